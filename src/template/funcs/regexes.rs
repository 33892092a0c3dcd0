//! Regular expressions.

use std::cell::RefCell;
use std::rc::Rc;

use regex::bytes::Regex;

use super::{Answer, Fault, Func, Ty, args, func};
use crate::template::limits::Limits;
use crate::template::re2::{self, Hay};
use crate::template::value::{Elem, List, Value};

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func("regexMatch", &[Ty::Text, Ty::Text], |limits, list| {
        // Of a wrong pattern this one makes no error.
        let pattern = compiled(limits, list)?;
        Ok(Value::Bool(pattern.is_ok_and(|pattern| {
            re2::is_match(&pattern.regex, args::text(list, 1))
        })))
    }),
    func("mustRegexMatch", &[Ty::Text, Ty::Text], |limits, list| {
        Ok(Value::Bool(re2::is_match(
            &right(limits, list)?.regex,
            args::text(list, 1),
        )))
    }),
    func("regexFind", &[Ty::Text, Ty::Text], find),
    func("mustRegexFind", &[Ty::Text, Ty::Text], find),
    func("regexFindAll", &[Ty::Text, Ty::Text, Ty::Int], find_all),
    func("mustRegexFindAll", &[Ty::Text, Ty::Text, Ty::Int], find_all),
    func("regexReplaceAll", &[Ty::Text, Ty::Text, Ty::Text], replace_all),
    func(
        "mustRegexReplaceAll",
        &[Ty::Text, Ty::Text, Ty::Text],
        replace_all,
    ),
    func(
        "regexReplaceAllLiteral",
        &[Ty::Text, Ty::Text, Ty::Text],
        replace_all_literal,
    ),
    func(
        "mustRegexReplaceAllLiteral",
        &[Ty::Text, Ty::Text, Ty::Text],
        replace_all_literal,
    ),
    func("regexSplit", &[Ty::Text, Ty::Text, Ty::Int], split),
    func("mustRegexSplit", &[Ty::Text, Ty::Text, Ty::Int], split),
    func("regexQuoteMeta", &[Ty::Text], quote_meta),
];

/// Steps that compiling a pattern costs.
const COMPILE: u64 = 1000;
/// Places of a pattern times bytes of a text that a step pays for.
const PLACES: u64 = 100;
/// Bytes that a piece takes besides its text.
const PIECE: usize = size_of::<Value>() + 32;
/// Patterns that a thread keeps, and how large each may be.
const KEPT: usize = 16;
const KEPT_SIZE: usize = 256 << 10;

/// A pattern, and at how many places of a text it may be at once.
struct Pattern {
    regex: Regex,
    places: u64,
}

impl Pattern {
    fn new(regex: Regex) -> Rc<Self> {
        let places = re2::places(&regex);
        Rc::new(Self { regex, places })
    }
}

thread_local! {
    static COMPILED: RefCell<Vec<(Vec<u8>, Rc<Pattern>)>> = const { RefCell::new(Vec::new()) };
}

/// The pattern that comes first among the arguments. Matching takes steps by the sizes of both.
///
/// The inner error is one of the pattern, the outer one that a limit is reached.
fn compiled(limits: &mut Limits, list: &[Value]) -> Result<Result<Rc<Pattern>, re2::Error>, Fault> {
    let text = args::text(list, 1);
    let pattern = known(limits, args::text(list, 0))?;
    if let Ok(pattern) = &pattern {
        limits.step(pattern.places.saturating_mul(text.len() as u64) / PLACES)?;
        if str::from_utf8(text).is_err() {
            // It is copied, with the offset of each byte.
            limits.grow(text.len().saturating_mul(3 * size_of::<usize>()))?;
        }
    }
    Ok(pattern)
}

fn known(limits: &mut Limits, pattern: &[u8]) -> Result<Result<Rc<Pattern>, re2::Error>, Fault> {
    let kept = |kept: &(Vec<u8>, Rc<Pattern>)| kept.0 == pattern;
    let known = COMPILED.with_borrow(|all| {
        all.iter()
            .find(|one| kept(one))
            .map(|(_, pattern)| Rc::clone(pattern))
    });
    if let Some(pattern) = known {
        return Ok(Ok(pattern));
    }
    limits.step(COMPILE.saturating_add(pattern.len() as u64))?;
    let Ok(text) = str::from_utf8(pattern) else {
        return Ok(Err(re2::Error::Utf8));
    };
    Ok(match re2::sized(text, KEPT_SIZE) {
        Ok(regex) => {
            let made = Pattern::new(regex);
            COMPILED.with_borrow_mut(|all| {
                if all.len() >= KEPT {
                    all.remove(0);
                }
                all.push((pattern.to_vec(), Rc::clone(&made)));
            });
            Ok(made)
        }
        Err(re2::Error::Size) => {
            limits.step(COMPILE.saturating_mul(50))?;
            re2::compile(text).map(Pattern::new)
        }
        Err(error) => Err(error),
    })
}

/// The pattern, which must be one.
fn right(limits: &mut Limits, list: &[Value]) -> Result<Rc<Pattern>, Fault> {
    compiled(limits, list)?.map_err(|error| error.to_string().into())
}

fn find(limits: &mut Limits, list: &[Value]) -> Answer {
    let pattern = right(limits, list)?;
    let found = Hay::new(args::text(list, 1))
        .first(&pattern.regex)
        .unwrap_or_default();
    limits.grow(found.len())?;
    Ok(Value::text(found))
}

/// Takes what a match costs, and the time: each may have read the text to its end.
fn matched(limits: &mut Limits, bytes: usize) -> Result<(), Fault> {
    limits.step(1)?;
    limits.grow(bytes)?;
    limits.in_time()
}

/// Adds a piece.
fn push(limits: &mut Limits, pieces: &mut Vec<Value>, piece: &[u8]) -> Result<(), Fault> {
    matched(limits, piece.len().saturating_add(PIECE))?;
    pieces.push(Value::text(piece));
    Ok(())
}

/// The pieces as `[]string`, which is nil if there are none.
fn texts(items: Vec<Value>) -> Answer {
    Ok(Value::List(Rc::new(List {
        elem: Elem::Str,
        nil: items.is_empty(),
        items,
    })))
}

fn find_all(limits: &mut Limits, list: &[Value]) -> Answer {
    let pattern = right(limits, list)?;
    let count = usize::try_from(args::int(list, 2)).unwrap_or(usize::MAX);
    let hay = Hay::new(args::text(list, 1));
    let mut made = Vec::new();
    hay.all(&pattern.regex, count, |from, to| {
        push(limits, &mut made, hay.piece(from, to))
    })?;
    texts(made)
}

fn split(limits: &mut Limits, list: &[Value]) -> Answer {
    let pattern = right(limits, list)?;
    let hay = Hay::new(args::text(list, 1));
    let mut made = Vec::new();
    hay.split(&pattern.regex, args::int(list, 2), |piece| {
        push(limits, &mut made, piece)
    })?;
    texts(made)
}

/// Stops replacing once it grows too large.
fn replaced(limits: &mut Limits, list: &[Value], expand: bool) -> Answer {
    let pattern = right(limits, list)?;
    let (text, with) = (args::text(list, 1), args::text(list, 2));
    limits.grow(text.len())?;
    let hay = Hay::new(text);
    let made = hay.replace(&pattern.regex, |captures, made| {
        let before = made.len();
        if expand {
            hay.expand(&pattern.regex, captures, with, made);
        } else {
            made.extend_from_slice(with);
        }
        matched(limits, made.len().saturating_sub(before))
    })?;
    Ok(Value::text(made))
}

fn replace_all(limits: &mut Limits, list: &[Value]) -> Answer {
    replaced(limits, list, true)
}

fn replace_all_literal(limits: &mut Limits, list: &[Value]) -> Answer {
    replaced(limits, list, false)
}

fn quote_meta(limits: &mut Limits, list: &[Value]) -> Answer {
    let text = args::text(list, 0);
    limits.grow(text.len().saturating_mul(2))?;
    let mut made = Vec::with_capacity(text.len().saturating_mul(2));
    for byte in text {
        if br"\.+*?()|[]{}^$".contains(byte) {
            made.push(b'\\');
        }
        made.push(*byte);
    }
    Ok(Value::text(made))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_that_grows_too_large_is_refused() {
        let text = "a".repeat(1 << 20);
        let list = [Value::text("a"), Value::text(text), Value::text("x".repeat(1000))];
        assert!(replace_all(&mut Limits::default(), &list).is_err());
    }

    #[test]
    fn a_large_pattern_is_compiled_but_not_kept() {
        let pattern = [Value::text(r"\pL{50}"), Value::text("é".repeat(50))];
        let found = find(&mut Limits::default(), &pattern).unwrap();
        assert_eq!(super::super::bytes(&found).len(), 100);
        assert!(COMPILED.with_borrow(|all| all.iter().all(|(pattern, _)| pattern != br"\pL{50}")));
    }

    #[test]
    fn only_so_many_patterns_are_kept() {
        for number in 0..40 {
            find(
                &mut Limits::default(),
                &[Value::text(format!("x{number}")), Value::text("y")],
            )
            .unwrap();
        }
        assert_eq!(COMPILED.with_borrow(Vec::len), KEPT);
    }
}
