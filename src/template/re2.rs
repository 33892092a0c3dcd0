//! Regular expressions as Go's `regexp` has them, on the crate `regex`: classes are of ASCII, `\Q…\E` quotes,
//! and what Go refuses is refused.
//!
//! Go reads texts rune by rune, a byte that is not UTF-8 as U+FFFD. Here such a text is matched with these
//! bytes replaced, and what was found is given back as the bytes that stood there.

use std::borrow::Cow;

use regex::bytes::{Captures, Regex, RegexBuilder};
use regex_syntax::hir::{Hir, HirKind};

use super::funcs::words::{is_digit, is_letter, runes};

#[path = "re2_translate.rs"]
mod translate;

/// Why a pattern is none. The text never holds the pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It breaks a rule of the syntax.
    #[error("wrong regular expression at character {position}: {problem}")]
    Syntax {
        /// Counted from 1.
        position: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// It is not UTF-8.
    #[error("the regular expression is not UTF-8")]
    Utf8,
    /// The crate refuses it.
    #[error("wrong regular expression")]
    Other,
    /// The program that would match it is too large.
    #[error("the regular expression is too large")]
    Size,
}

/// Bytes of a pattern.
const LENGTH: usize = 64 << 10;
/// Bytes of a compiled pattern.
const SIZE: usize = 8 << 20;
/// Bytes that a replacement grows to before it is cut off; whoever replaces refuses less.
const MOST: usize = 64 << 20;
/// Bytes of the states that matching keeps.
const STATES: usize = 1 << 20;

/// Compiles a pattern of Go's.
///
/// # Errors
/// If Go refuses it, or it becomes too large.
pub fn compile(pattern: &str) -> Result<Regex, Error> {
    sized(pattern, SIZE)
}

/// The same, if it becomes no larger than this.
pub(super) fn sized(pattern: &str, size: usize) -> Result<Regex, Error> {
    if pattern.len() > LENGTH {
        return Err(Error::Size);
    }
    let translated = translate::pattern(pattern)?;
    let built = RegexBuilder::new(&translated)
        .size_limit(size)
        .dfa_size_limit(STATES)
        .build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => Error::Size,
        _ => Error::Other,
    })
}

/// How many places of a text a pattern may be at while it matches: its characters and classes, as often as they are
/// repeated. Matching takes at most this times the length of the text.
#[must_use]
pub fn places(regex: &Regex) -> u64 {
    let parsed = regex_syntax::ParserBuilder::new()
        .utf8(false)
        .build()
        .parse(regex.as_str());
    parsed.map_or(u64::MAX, |hir| count(&hir))
}

/// The parser bounds the nesting.
fn count(hir: &Hir) -> u64 {
    match hir.kind() {
        HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Capture(capture) => count(&capture.sub).saturating_add(2),
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min.saturating_add(1)).max(1);
            count(&repetition.sub).saturating_mul(u64::from(times))
        }
        HirKind::Concat(all) | HirKind::Alternation(all) => {
            all.iter().fold(0, |sum, hir| sum.saturating_add(count(hir)))
        }
    }
}

/// A text made ready for matching.
pub(super) struct Hay<'a> {
    original: &'a [u8],
    /// The text with U+FFFD for each byte that is not UTF-8.
    valid: Cow<'a, [u8]>,
    /// For each offset of `valid` that of `original`, if they differ.
    offsets: Vec<usize>,
}

impl<'a> Hay<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        if str::from_utf8(text).is_ok() {
            return Self {
                original: text,
                valid: Cow::Borrowed(text),
                offsets: Vec::new(),
            };
        }
        let mut valid = String::with_capacity(text.len().saturating_mul(2));
        let mut offsets = Vec::with_capacity(text.len().saturating_mul(2));
        let mut at = 0_usize;
        for (c, bytes) in runes(text) {
            valid.push(c);
            offsets.resize(valid.len(), at);
            at = at.saturating_add(bytes.len());
        }
        offsets.push(at);
        Self {
            original: text,
            valid: Cow::Owned(valid.into_bytes()),
            offsets,
        }
    }

    fn len(&self) -> usize {
        self.valid.len()
    }

    /// The bytes of the original between two offsets.
    pub(super) fn piece(&self, from: usize, to: usize) -> &'a [u8] {
        let original = |offset: usize| {
            if self.offsets.is_empty() {
                Some(offset)
            } else {
                self.offsets.get(offset).copied()
            }
        };
        match (original(from), original(to)) {
            (Some(from), Some(to)) => self.original.get(from..to).unwrap_or_default(),
            _ => &[],
        }
    }

    fn boundary(&self, offset: usize) -> bool {
        self.valid.get(offset).is_none_or(|byte| byte & 0xC0 != 0x80)
    }

    /// The size of the rune at an offset, 0 at the end.
    fn width(&self, offset: usize) -> usize {
        if offset >= self.len() {
            return 0;
        }
        (1..4)
            .find(|size| self.boundary(offset.saturating_add(*size)))
            .unwrap_or(4)
    }

    /// The first match from an offset on. Only empty ones can lie within a rune, where Go does not look.
    fn find(&self, regex: &Regex, mut from: usize) -> Option<(usize, usize)> {
        loop {
            let found = regex.find_at(&self.valid, from)?;
            if self.boundary(found.start()) {
                return Some((found.start(), found.end()));
            }
            from = self.after(found.start());
        }
    }

    fn captures(&self, regex: &Regex, mut from: usize) -> Option<Captures<'_>> {
        loop {
            let found = regex.captures_at(&self.valid, from)?;
            let start = found.get(0)?.start();
            if self.boundary(start) {
                return Some(found);
            }
            from = self.after(start);
        }
    }

    fn after(&self, offset: usize) -> usize {
        (offset.saturating_add(1)..)
            .find(|next| self.boundary(*next))
            .unwrap_or(self.len())
    }

    /// The first match.
    pub(super) fn first(&self, regex: &Regex) -> Option<&'a [u8]> {
        self.find(regex, 0).map(|(start, end)| self.piece(start, end))
    }

    /// Hands at most so many matches over, in offsets, until one is refused.
    pub(super) fn all<E>(
        &self,
        regex: &Regex,
        count: usize,
        mut each: impl FnMut(usize, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut made = 0;
        let mut at = 0;
        let mut before = None;
        while made < count && at <= self.len() {
            let Some((start, end)) = self.find(regex, at) else {
                break;
            };
            let mut counts = true;
            if end == at {
                // An empty match right after another one is none.
                counts = before != Some(start);
                at = at.saturating_add(self.width(at).max(1));
            } else {
                at = end;
            }
            before = Some(end);
            if counts {
                made += 1;
                each(start, end)?;
            }
        }
        Ok(())
    }

    /// Go's `regexp.Split`; hands the pieces over.
    pub(super) fn split<E>(
        &self,
        regex: &Regex,
        count: i64,
        mut each: impl FnMut(&'a [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let limit = usize::try_from(count).unwrap_or(usize::MAX);
        if limit == 0 {
            return Ok(());
        }
        if self.len() == 0 && !regex.as_str().is_empty() {
            return each(&[]);
        }
        let mut made = 0_usize;
        let (mut from, mut to) = (0, 0);
        self.all(regex, limit, |start, end| {
            // The last piece is all that is left.
            if made.saturating_add(1) == limit {
                return Ok(());
            }
            to = start;
            if end != 0 {
                made += 1;
                each(self.piece(from, start))?;
            }
            from = end;
            Ok(())
        })?;
        if to != self.len() {
            each(self.piece(from, self.len()))?;
        }
        Ok(())
    }

    /// Replaces all matches by what a function appends, until it refuses.
    pub(super) fn replace<E>(
        &self,
        regex: &Regex,
        mut with: impl FnMut(&Captures<'_>, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Vec<u8>, E> {
        let mut made = Vec::with_capacity(self.original.len());
        let (mut copied, mut at) = (0, 0);
        while at <= self.len() {
            let Some(captures) = self.captures(regex, at) else {
                break;
            };
            let Some(found) = captures.get(0) else {
                break;
            };
            made.extend_from_slice(self.piece(copied, found.start()));
            // An empty match right after another one is none.
            if found.end() > copied || found.start() == 0 {
                with(&captures, &mut made)?;
            }
            copied = found.end();
            at = match at.saturating_add(self.width(at)) {
                next if next > copied => next,
                _ if at >= copied => at.saturating_add(1),
                _ => copied,
            };
        }
        made.extend_from_slice(self.piece(copied, self.len()));
        Ok(made)
    }

    /// Appends a replacement with the groups that its `$1` and `${name}` stand for.
    pub(super) fn expand(
        &self,
        regex: &Regex,
        captures: &Captures<'_>,
        mut template: &[u8],
        made: &mut Vec<u8>,
    ) {
        while let Some(at) = memchr::memchr(b'$', template) {
            let (plain, rest) = template.split_at_checked(at).unwrap_or((template, b""));
            made.extend_from_slice(plain);
            template = rest.get(1..).unwrap_or_default();
            if let Some(rest) = template.strip_prefix(b"$") {
                made.push(b'$');
                template = rest;
            } else if let Some((name, rest)) = group(template) {
                let found = match number(name) {
                    Some(index) => captures.get(index),
                    None => by_name(regex, captures, name),
                };
                if let Some(found) = found.filter(|_| made.len() <= MOST) {
                    made.extend_from_slice(self.piece(found.start(), found.end()));
                }
                template = rest;
            } else {
                made.push(b'$');
            }
        }
        made.extend_from_slice(template);
    }
}

/// The first group of this name that took part. What the translation put before a name ends with a dot.
fn by_name<'a>(regex: &Regex, captures: &Captures<'a>, name: &[u8]) -> Option<regex::bytes::Match<'a>> {
    let same = |known: &str| {
        known
            .rsplit('.')
            .next()
            .is_some_and(|known| known.as_bytes() == name)
    };
    let mut names = regex.capture_names().enumerate();
    names.find_map(|(index, known)| {
        known
            .filter(|known| same(known))
            .and_then(|_| captures.get(index))
    })
}

/// The name after a `$`, and what follows it.
fn group(template: &[u8]) -> Option<(&[u8], &[u8])> {
    let braces = template.first() == Some(&b'{');
    let text = template.get(usize::from(braces)..)?;
    let word = |c: char| c == '_' || is_letter(c) || is_digit(c);
    let size: usize = runes(text)
        .take_while(|(c, _)| word(*c))
        .map(|(_, bytes)| bytes.len())
        .sum();
    let (name, rest) = text.split_at_checked(size).filter(|(name, _)| !name.is_empty())?;
    let rest = if braces { rest.strip_prefix(b"}")? } else { rest };
    Some((name, rest))
}

/// A group's number. One that begins with 0 is a name, which no group has.
fn number(name: &[u8]) -> Option<usize> {
    if !name.iter().all(u8::is_ascii_digit) || (name.len() > 1 && name.starts_with(b"0")) || name.len() > 8 {
        return None;
    }
    str::from_utf8(name).ok()?.parse().ok()
}

/// Go's `ReplaceAllString`: replaces all matches by a template with `$1` and `${name}`. Asks after each match, with
/// the size of what was made, whether to go on.
///
/// # Errors
/// That with which it was told to stop.
pub fn replace_all<E>(
    regex: &Regex,
    text: &[u8],
    template: &str,
    mut go_on: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<u8>, E> {
    let hay = Hay::new(text);
    hay.replace(regex, |captures, made| {
        hay.expand(regex, captures, template.as_bytes(), made);
        go_on(made.len())
    })
}

/// Go's `MatchString`.
#[must_use]
pub fn is_match(regex: &Regex, text: &[u8]) -> bool {
    Hay::new(text).first(regex).is_some()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn replaced(pattern: &str, text: &[u8], template: &str) -> Vec<u8> {
        replace_all(&compile(pattern).unwrap(), text, template, free).unwrap()
    }

    fn free(_: usize) -> Result<(), Infallible> {
        Ok(())
    }

    fn found(pattern: &str, text: &str) -> Option<String> {
        let regex = compile(pattern).unwrap();
        let found = Hay::new(text.as_bytes()).first(&regex)?.to_vec();
        Some(String::from_utf8(found).unwrap())
    }

    #[test]
    fn classes_hold_ascii_only() {
        assert!(!is_match(&compile(r"\d|\w").unwrap(), "٣é".as_bytes()));
        assert!(!is_match(&compile(r"\s").unwrap(), "\u{a0}\u{b}".as_bytes()));
        assert_eq!(found(r"\bé", "é"), None);
        assert_eq!(found(r"[\W\d]+", "aé5 b").as_deref(), Some("é5 "));
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for pattern in [
            r"\C",
            r"\Z",
            r"\1",
            r"\g",
            r"\é",
            "a**",
            "a+*",
            "a{1001}",
            "a{2,1}",
            "[b-a]",
            "[[:foo:]]",
            "(?=a)",
            "(?x)a",
            "(?<n",
            "(?P=n)",
            "[a",
            "(a",
            "a)",
            r"\",
            "*",
            r"\p{Foo}",
            r"\x{110000}",
            r"\p{L",
            "(?i",
            "(?i-)a",
            r"\pé",
        ] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn what_the_crate_takes_for_syntax_is_a_character_in_go() {
        assert_eq!(found("[a&&b]+", "&a").as_deref(), Some("&a"));
        assert_eq!(found("[[a]+", "[a").as_deref(), Some("[a"));
        assert_eq!(found(r"\<a\>", "<a>").as_deref(), Some("<a>"));
        assert_eq!(found("a{,2}", "a{,2}").as_deref(), Some("a{,2}"));
        assert_eq!(found(r"\Qa.*b\E+", "a.*bb").as_deref(), Some("a.*bb"));
    }

    #[test]
    fn nothing_is_found_within_a_rune() {
        assert_eq!(replaced(r"\B", "aéa".as_bytes(), "-"), "aéa".as_bytes());
        assert_eq!(replaced("", "世é".as_bytes(), "."), ".世.é.".as_bytes());
    }

    #[test]
    fn a_byte_that_is_not_utf_8_is_one_character_and_stays_what_it_was() {
        assert_eq!(replaced("a(.)", b"a\xFFa\xC3b", "<$1>"), b"<\xFF><\xC3>b");
        assert_eq!(replaced("[^a]", b"a\xFF\xFE", "x"), b"axx");
    }

    #[test]
    fn groups_are_named_as_go_allows_it() {
        assert_eq!(replaced("(?P<1a>x)(?<n>y)", b"xy", "${n}${1a}$2"), b"yxy");
        assert_eq!(replaced("(?P<n>a)|(?P<n>b)", b"ab", "[$n]"), b"[a][b]");
        assert_eq!(replaced("(a)", b"a", "$1é $01 $$ ${x"), "  $ ${x".as_bytes());
    }

    #[test]
    fn an_error_shows_the_place_but_not_the_pattern() {
        let error = compile("secret**").unwrap_err().to_string();
        assert_eq!(
            error,
            "wrong regular expression at character 8: invalid nested repetition operator"
        );
    }

    #[test]
    fn a_program_that_becomes_too_large_is_refused() {
        assert_eq!(compile(r"(\pL{900}){900}").unwrap_err(), Error::Size);
    }

    #[test]
    fn a_search_for_all_matches_and_a_replacement_can_be_stopped_at_each_of_them() {
        let regex = compile("a").unwrap();
        let hay = Hay::new(b"aaaa");
        let mut seen = Vec::new();
        let stopped = hay.all(&regex, 9, |from, to| {
            seen.push((from, to));
            if from == 1 { Err("enough") } else { Ok(()) }
        });
        assert_eq!((stopped, seen), (Err("enough"), vec![(0, 1), (1, 2)]));
        let large = |size| if size > 2 { Err("enough") } else { Ok(()) };
        assert_eq!(replace_all(&regex, b"aaaa", "bb", large), Err("enough"));
    }

    proptest! {
        #[test]
        fn no_pattern_and_no_text_make_it_panic(
            pattern in r"([a-z.^$|()\[\]{}?*+\\\-:<>PQEbBpdsw0-9,&~é]|\\[a-zA-Z]|\(\?){0,12}",
            text in prop::collection::vec(any::<u8>(), 0..20),
            template in "[$a-z0-9{}é]{0,8}",
        ) {
            if let Ok(regex) = sized(&pattern, 1 << 20) {
                let hay = Hay::new(&text);
                let _ = replace_all(&regex, &text, &template, free);
                let mut size = 0;
                let split = hay.split(&regex, -1, |piece| {
                    size += piece.len();
                    Ok::<(), Infallible>(())
                });
                prop_assert!(split.is_ok());
                prop_assert!(size <= text.len());
            }
        }

        #[test]
        fn replacing_each_match_by_itself_changes_nothing(
            pattern in r"[ab.é*+?|]{0,6}",
            text in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            if let Ok(regex) = compile(&pattern) {
                prop_assert_eq!(replace_all(&regex, &text, "$0", free), Ok(text));
            }
        }
    }
}
