//! Which paths a namespace may read through a store: the annotation `keyferry.dev/allowed-paths`. Vault's policies
//! bind the store's identity, which all namespaces share; this binds each namespace (promise 7).
//!
//! A pattern is a path as a store resolves it: below the mount, or beginning with it if the store has no `path`.
//! `*` is any text within a segment, `**` any number of segments, `{{namespace}}` the namespace that asks.

use crate::vault::json::Json;

/// The annotation.
pub const ANNOTATION: &str = "keyferry.dev/allowed-paths";
const NAMESPACE: &str = "{{namespace}}";
/// Each path and each name of a folder is held against every pattern.
const PATTERNS_MAX: usize = 1_000;

/// The patterns of one store. None of them means that nothing may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedPaths {
    patterns: Vec<Vec<Part>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// `**`: any number of segments, also none.
    Segments,
    /// One segment: the texts between its stars. The namespace is put in when a path is judged, so that it is
    /// never taken for a pattern.
    Segment(Vec<String>),
}

impl AllowedPaths {
    /// Compiles the annotation: one pattern a line; empty lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// The first line that is no pattern, and why.
    pub fn compile(text: &str) -> Result<Self, String> {
        let mut patterns = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let pattern = pattern(line).map_err(|why| {
                format!(
                    "annotation {ANNOTATION}, line {}: '{}' {why}",
                    number + 1,
                    line.escape_debug()
                )
            })?;
            patterns.push(pattern);
        }
        if patterns.len() > PATTERNS_MAX {
            return Err(format!(
                "annotation {ANNOTATION} has more than {PATTERNS_MAX} patterns; use * and {NAMESPACE} to need fewer"
            ));
        }
        Ok(Self { patterns })
    }

    /// Whether nobody may read anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether the namespace may read this secret.
    #[must_use]
    pub fn allow(&self, namespace: &str, path: &str) -> bool {
        self.patterns
            .iter()
            .any(|pattern| reached(pattern, namespace, path).last() == Some(&true))
    }

    /// Whether there may be a secret below this folder that the namespace may read; others need not be listed.
    #[must_use]
    pub fn lead_through(&self, namespace: &str, folder: &str) -> bool {
        self.patterns.iter().any(|pattern| {
            let reached = reached(pattern, namespace, folder);
            reached.iter().take(pattern.len()).any(|here| *here)
        })
    }

    /// The names in a folder that the namespace may know of.
    #[must_use]
    pub fn shown(&self, namespace: &str, folder: &str, names: &[Json]) -> Vec<Json> {
        let may_know = |name: &&Json| {
            let name = name.as_str().unwrap_or_default();
            let path = format!("{folder}/{name}");
            if name.ends_with('/') {
                self.lead_through(namespace, &path)
            } else {
                self.allow(namespace, &path)
            }
        };
        names.iter().filter(may_know).cloned().collect()
    }
}

/// Empty segments do not count: they vanish from the request too.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

fn pattern(line: &str) -> Result<Vec<Part>, &'static str> {
    if line.chars().any(char::is_control) {
        return Err("holds control characters");
    }
    if line.ends_with('/') {
        return Err("ends with '/'; write ** behind it for all that is below");
    }
    let mut parts = Vec::new();
    for segment in line.split('/') {
        parts.push(part(segment)?);
    }
    // What is below a folder is not the folder itself.
    if parts.last() == Some(&Part::Segments) {
        parts.push(Part::Segment(vec![String::new(), String::new()]));
    }
    Ok(parts)
}

fn part(segment: &str) -> Result<Part, &'static str> {
    let literal = segment.replace(NAMESPACE, "");
    match segment {
        "" => Err("has an empty segment; begin without '/', and write single ones"),
        "." | ".." => Err("has a '.' or '..' segment, which no path has"),
        "**" => Ok(Part::Segments),
        _ if segment.contains("**") => Err("has '**' beside other text; it stands for whole segments"),
        _ if literal.contains("{{") || literal.contains("}}") => {
            Err("has something else than {{namespace}} in double braces")
        }
        _ => Ok(Part::Segment(segment.split('*').map(String::from).collect())),
    }
}

/// Which places of a pattern one may stand at after this path; the last one is its end.
fn reached(pattern: &[Part], namespace: &str, path: &str) -> Vec<bool> {
    let mut here = vec![false; pattern.len() + 1];
    enter(pattern, &mut here, 0);
    for segment in segments(path) {
        let mut next = vec![false; here.len()];
        let standing = pattern
            .iter()
            .zip(&here)
            .enumerate()
            .filter(|(_, (_, here))| **here);
        for (at, (part, _)) in standing {
            match part {
                Part::Segments => enter(pattern, &mut next, at),
                Part::Segment(texts) if fits(texts, namespace, segment) => enter(pattern, &mut next, at + 1),
                Part::Segment(_) => {}
            }
        }
        here = next;
    }
    here
}

/// Stands at a place, and behind it if nothing needs to be read there.
fn enter(pattern: &[Part], places: &mut [bool], at: usize) {
    for (place, part) in places
        .iter_mut()
        .skip(at)
        .zip(pattern.iter().skip(at).map(Some).chain([None]))
    {
        *place = true;
        if part != Some(&Part::Segments) {
            return;
        }
    }
}

/// Whether a segment is these texts with anything between them.
fn fits(texts: &[String], namespace: &str, segment: &str) -> bool {
    let texts: Vec<String> = texts
        .iter()
        .map(|text| text.replace(NAMESPACE, namespace))
        .collect();
    match texts.as_slice() {
        [] => false,
        [only] => only == segment,
        [first, between @ .., last] => {
            let inner = segment
                .strip_prefix(first.as_str())
                .and_then(|rest| rest.strip_suffix(last.as_str()));
            let behind = between.iter().try_fold(inner.unwrap_or_default(), |rest, text| {
                rest.find(text.as_str())
                    .and_then(|at| rest.get(at + text.len()..))
            });
            inner.is_some() && behind.is_some()
        }
    }
}

#[cfg(test)]
mod tests;
