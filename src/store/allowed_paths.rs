//! Which paths a namespace may read through a store: the annotation `keyferry.dev/allowed-paths`. Vault's policies
//! bind the store's identity, which all namespaces share; this binds each namespace (promise 7).
//!
//! A pattern is a path as a store resolves it: below the mount, or beginning with it if the store has no `path`.
//! `*` is any text within a segment, `**` any number of segments, `{{namespace}}` the namespace that asks.

use std::borrow::Cow;

use crate::vault::json::Json;

/// The annotation.
pub const ANNOTATION: &str = "keyferry.dev/allowed-paths";
const NAMESPACE: &str = "{{namespace}}";
/// Each path and each name of a folder is held against every pattern.
const PATTERNS_MAX: usize = 1_000;
/// Segments of all patterns together: what one path costs at most is so many comparisons for each of its segments.
const TOGETHER_MAX: usize = 8_000;
/// Segments of a pattern, and of a path that any pattern allows.
const SEGMENTS_MAX: usize = 64;
/// Stars of a segment.
const STARS_MAX: usize = 8;
/// Bytes of a pattern.
const LENGTH_MAX: usize = 1_024;
/// Characters of a pattern that a message shows.
const SHOWN_MAX: usize = 100;
/// Comparisons after which others get their turn: well below a millisecond.
const TURN: usize = 20_000;

/// The patterns of one store. None of them means that nothing may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedPaths {
    patterns: Vec<Pattern>,
    /// How many segments they have together.
    segments: usize,
}

/// A pattern, cut at each `**`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Pattern {
    /// What a path begins with.
    head: Vec<Segment>,
    /// What stands behind each `**`: any number of segments may come before it, also none. The path ends with the last.
    behind: Vec<Vec<Segment>>,
}

/// One segment: the texts between its stars. The namespace is put in when a path is judged, so that it is never taken
/// for a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment(Vec<String>);

impl AllowedPaths {
    /// Compiles the annotation: one pattern a line; empty lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// The first line that is no pattern, and why.
    pub fn compile(text: &str) -> Result<Self, String> {
        let (mut patterns, mut segments) = (Vec::new(), 0_usize);
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (pattern, size) = Pattern::compile(line).map_err(|why| {
                let shown: String = line.chars().take(SHOWN_MAX).collect();
                let cut = if shown.len() < line.len() { "…" } else { "" };
                format!(
                    "annotation {ANNOTATION}, line {}: '{}{cut}' {why}",
                    number + 1,
                    shown.escape_debug()
                )
            })?;
            patterns.push(pattern);
            segments += size;
            if patterns.len() > PATTERNS_MAX {
                return Err(format!(
                    "annotation {ANNOTATION} has more than {PATTERNS_MAX} patterns; use * and {NAMESPACE} to need fewer"
                ));
            }
            if segments > TOGETHER_MAX {
                return Err(format!(
                    "annotation {ANNOTATION} has patterns of more than {TOGETHER_MAX} segments together; use ** and \
                     {NAMESPACE} to need fewer"
                ));
            }
        }
        Ok(Self { patterns, segments })
    }

    /// Whether nobody may read anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether the namespace may read this secret.
    #[must_use]
    pub fn allow(&self, namespace: &str, path: &str) -> bool {
        let path: Vec<&str> = segments(path).take(SEGMENTS_MAX + 1).collect();
        path.len() <= SEGMENTS_MAX && self.patterns.iter().any(|pattern| pattern.fits(namespace, &path))
    }

    /// Whether there may be a secret below this folder that the namespace may read; others need not be listed.
    #[must_use]
    pub fn lead_through(&self, namespace: &str, folder: &str) -> bool {
        let folder: Vec<&str> = segments(folder).take(SEGMENTS_MAX).collect();
        folder.len() < SEGMENTS_MAX
            && self
                .patterns
                .iter()
                .any(|pattern| pattern.leads_through(namespace, &folder))
    }

    /// The names in a folder that the namespace may know of. There may be many: others get their turn meanwhile.
    pub async fn shown(&self, namespace: &str, folder: &str, names: &[Json]) -> Vec<Json> {
        let may_know = |name: &&Json| {
            let name = name.as_str().unwrap_or_default();
            let path = format!("{folder}/{name}");
            if name.ends_with('/') {
                self.lead_through(namespace, &path)
            } else {
                self.allow(namespace, &path)
            }
        };
        let mut shown = Vec::new();
        for some in names.chunks(self.at_a_turn()) {
            shown.extend(some.iter().filter(may_know).cloned());
            tokio::task::yield_now().await;
        }
        shown
    }

    /// How many paths may be judged before others get their turn.
    #[must_use]
    pub fn at_a_turn(&self) -> usize {
        TURN / (self.segments + 1) + 1
    }
}

/// Empty segments do not count: they vanish from the request too.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

impl Pattern {
    /// The pattern, and how many segments it has.
    fn compile(line: &str) -> Result<(Self, usize), String> {
        if line.len() > LENGTH_MAX {
            return Err(format!(
                "is longer than {LENGTH_MAX} bytes; use * or ** for parts of it"
            ));
        }
        if line.chars().any(char::is_control) {
            return Err("holds control characters".into());
        }
        if line.ends_with('/') {
            return Err("ends with '/'; write ** behind it for all that is below".into());
        }
        if line.split('/').count() > SEGMENTS_MAX {
            return Err(format!(
                "has more than {SEGMENTS_MAX} segments; use ** for some of them"
            ));
        }
        let mut pattern = Self::default();
        let mut size = 0;
        for text in line.split('/') {
            let segment = Segment::compile(text)?;
            size += 1;
            match (segment, pattern.behind.last_mut()) {
                // A second one right behind it says nothing new.
                (None, Some(run)) if run.is_empty() => {}
                (None, _) => pattern.behind.push(Vec::new()),
                (Some(segment), Some(run)) => run.push(segment),
                (Some(segment), None) => pattern.head.push(segment),
            }
        }
        // What is below a folder is not the folder itself.
        if let Some(run) = pattern.behind.last_mut().filter(|run| run.is_empty()) {
            run.push(Segment::any());
        }
        Ok((pattern, size))
    }

    /// Whether this is a path that the pattern describes. Each run of segments is taken where it fits first: a later
    /// place would leave less for those behind it, and none is ever looked at again.
    fn fits(&self, namespace: &str, path: &[&str]) -> bool {
        let Some((begin, rest)) = path.split_at_checked(self.head.len()) else {
            return false;
        };
        if !all_fit(&self.head, namespace, begin) {
            return false;
        }
        let Some((last, between)) = self.behind.split_last() else {
            return rest.is_empty();
        };
        let Some((mut rest, end)) = rest
            .len()
            .checked_sub(last.len())
            .and_then(|at| rest.split_at_checked(at))
        else {
            return false;
        };
        all_fit(last, namespace, end)
            && between.iter().all(|run| {
                let mut places = rest.windows(run.len().max(1));
                let found = places.position(|place| all_fit(run, namespace, place));
                let behind = found.and_then(|at| rest.get(at + run.len()..));
                rest = behind.unwrap_or_default();
                behind.is_some()
            })
    }

    /// Whether a path that the pattern describes may go on behind this folder.
    fn leads_through(&self, namespace: &str, folder: &[&str]) -> bool {
        let common = folder.len().min(self.head.len());
        let longer = !self.behind.is_empty() || folder.len() < self.head.len();
        longer
            && self
                .head
                .iter()
                .zip(folder)
                .take(common)
                .all(|(segment, text)| segment.fits(namespace, text))
    }
}

fn all_fit(pattern: &[Segment], namespace: &str, path: &[&str]) -> bool {
    pattern
        .iter()
        .zip(path)
        .all(|(segment, text)| segment.fits(namespace, text))
}

impl Segment {
    fn any() -> Self {
        Self(vec![String::new(), String::new()])
    }

    /// The segment; `None` for `**`.
    fn compile(text: &str) -> Result<Option<Self>, String> {
        let literal = text.replace(NAMESPACE, "");
        let why = match text {
            "" => "has an empty segment; begin without '/', and write single ones",
            "." | ".." => "has a '.' or '..' segment, which no path has",
            "**" => return Ok(None),
            _ if text.contains("**") => "has '**' beside other text; it stands for whole segments",
            _ if literal.contains("{{") || literal.contains("}}") => {
                "has something else than {{namespace}} in double braces"
            }
            _ if text.matches('*').count() > STARS_MAX => {
                return Err(format!("has more than {STARS_MAX} '*' in one segment"));
            }
            _ => return Ok(Some(Self(text.split('*').map(String::from).collect()))),
        };
        Err(why.into())
    }

    /// Whether a segment is these texts with anything between them.
    fn fits(&self, namespace: &str, segment: &str) -> bool {
        let put_in = |text| put_in(text, namespace);
        match self.0.as_slice() {
            [] => false,
            [only] => put_in(only) == segment,
            [first, between @ .., last] => {
                let inner = segment
                    .strip_prefix(put_in(first).as_ref())
                    .and_then(|rest| rest.strip_suffix(put_in(last).as_ref()));
                let behind = between.iter().try_fold(inner.unwrap_or_default(), |rest, text| {
                    let text = put_in(text);
                    rest.find(text.as_ref())
                        .and_then(|at| rest.get(at + text.len()..))
                });
                inner.is_some() && behind.is_some()
            }
        }
    }
}

/// A part of a pattern for this namespace.
fn put_in<'a>(text: &'a str, namespace: &str) -> Cow<'a, str> {
    match text.contains(NAMESPACE) {
        true => text.replace(NAMESPACE, namespace).into(),
        false => text.into(),
    }
}

#[cfg(test)]
mod tests;
