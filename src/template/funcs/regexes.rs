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
        let regex = compiled(limits, list)?;
        Ok(Value::Bool(
            regex.is_ok_and(|regex| re2::is_match(&regex, args::text(list, 1))),
        ))
    }),
    func("mustRegexMatch", &[Ty::Text, Ty::Text], |limits, list| {
        Ok(Value::Bool(re2::is_match(
            &*right(limits, list)?,
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
/// Steps that each byte of a text costs where the pattern is too large to be kept.
const LARGE: u64 = 64;
/// Patterns that a thread keeps, and how large each may be.
const KEPT: usize = 16;
const KEPT_SIZE: usize = 256 << 10;

thread_local! {
    static COMPILED: RefCell<Vec<(Vec<u8>, Rc<Regex>)>> = const { RefCell::new(Vec::new()) };
}

/// The pattern that comes first among the arguments. Matching takes steps by the sizes of both.
///
/// The inner error is one of the pattern, the outer one that a limit is reached.
fn compiled(limits: &mut Limits, list: &[Value]) -> Result<Result<Rc<Regex>, re2::Error>, Fault> {
    let pattern = args::text(list, 0);
    limits.step((args::text(list, 1).len() / 16) as u64)?;
    let kept = |kept: &(Vec<u8>, Rc<Regex>)| kept.0 == pattern;
    let known = COMPILED.with_borrow(|all| {
        all.iter()
            .find(|one| kept(one))
            .map(|(_, regex)| Rc::clone(regex))
    });
    if let Some(regex) = known {
        return Ok(Ok(regex));
    }
    limits.step(COMPILE.saturating_add(pattern.len() as u64))?;
    let Ok(text) = str::from_utf8(pattern) else {
        return Ok(Err(re2::Error::Utf8));
    };
    Ok(match re2::sized(text, KEPT_SIZE) {
        Ok(regex) => {
            let regex = Rc::new(regex);
            COMPILED.with_borrow_mut(|all| {
                if all.len() >= KEPT {
                    all.remove(0);
                }
                all.push((pattern.to_vec(), Rc::clone(&regex)));
            });
            Ok(regex)
        }
        Err(re2::Error::Size) => {
            limits.step(COMPILE.saturating_mul(50))?;
            // Its matching may take a step of time for each of its many states.
            limits.step((args::text(list, 1).len() as u64).saturating_mul(LARGE))?;
            re2::compile(text).map(Rc::new)
        }
        Err(error) => Err(error),
    })
}

/// The pattern, which must be one.
fn right(limits: &mut Limits, list: &[Value]) -> Result<Rc<Regex>, Fault> {
    compiled(limits, list)?.map_err(|error| error.to_string().into())
}

fn find(limits: &mut Limits, list: &[Value]) -> Answer {
    let regex = right(limits, list)?;
    let found = Hay::new(args::text(list, 1)).first(&regex).unwrap_or_default();
    limits.grow(found.len())?;
    Ok(Value::text(found))
}

/// The pieces as `[]string`, which is nil if there are none.
fn pieces(limits: &mut Limits, pieces: &[&[u8]]) -> Answer {
    limits.step(pieces.len() as u64)?;
    let size = pieces
        .iter()
        .fold(0_usize, |sum, piece| sum.saturating_add(piece.len()));
    limits.grow(size.saturating_add(pieces.len().saturating_mul(size_of::<Value>())))?;
    Ok(Value::List(Rc::new(List {
        elem: Elem::Str,
        items: pieces.iter().map(Value::text).collect(),
        nil: pieces.is_empty(),
    })))
}

/// Every search may read all that is left, so that many of them take long.
fn search(limits: &mut Limits, left: usize) -> Result<(), Fault> {
    limits.step((left as u64 / 16_384).saturating_add(1))
}

fn find_all(limits: &mut Limits, list: &[Value]) -> Answer {
    let regex = right(limits, list)?;
    let count = usize::try_from(args::int(list, 2)).unwrap_or(usize::MAX);
    let hay = Hay::new(args::text(list, 1));
    let found = hay.all(&regex, count, |left| search(limits, left))?;
    let found: Vec<&[u8]> = found.into_iter().map(|(from, to)| hay.piece(from, to)).collect();
    pieces(limits, &found)
}

fn split(limits: &mut Limits, list: &[Value]) -> Answer {
    let regex = right(limits, list)?;
    let hay = Hay::new(args::text(list, 1));
    let found = hay.split(&regex, args::int(list, 2), |left| search(limits, left))?;
    pieces(limits, &found)
}

fn replaced(limits: &mut Limits, list: &[Value], expand: bool) -> Answer {
    let regex = right(limits, list)?;
    let (text, with) = (args::text(list, 1), args::text(list, 2));
    limits.grow(text.len())?;
    let hay = Hay::new(text);
    let made = hay.replace(&regex, |captures, made, left| {
        let before = made.len();
        if expand {
            hay.expand(&regex, captures, with, made);
        } else {
            made.extend_from_slice(with);
        }
        search(limits, left)?;
        limits.grow(made.len().saturating_sub(before))
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
