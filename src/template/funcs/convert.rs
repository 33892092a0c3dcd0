//! Conversions to numbers and texts.

use std::rc::Rc;

use super::numbers::{NotInt, parse_int, to_float, to_int};
use super::{Answer, Fault, Func, Ty, args, func};
use crate::template::fmt;
use crate::template::limits::Limits;
use crate::template::value::{Elem, Text, Value};

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func("atoi", &[Ty::Text], |_, list| {
        Ok(Value::int(atoi(args::text(list, 0))))
    }),
    func("int", &[Ty::Any], |_, list| {
        Ok(Value::int(to_int(args::value(list, 0))))
    }),
    func("int64", &[Ty::Any], |_, list| {
        Ok(Value::int64(to_int(args::value(list, 0))))
    }),
    func("float64", &[Ty::Any], |_, list| {
        Ok(Value::Float(to_float(args::value(list, 0))))
    }),
    func("toDecimal", &[Ty::Any], to_decimal),
    func("toString", &[Ty::Any], |limits, list| {
        Ok(Value::Text(text(limits, args::value(list, 0))?))
    }),
    func("toStrings", &[Ty::Any], to_strings),
];

/// What does not fit becomes the nearest number, all else 0.
fn atoi(text: &[u8]) -> i64 {
    match parse_int(text, 10) {
        Ok(number) | Err(NotInt::Range(number)) => number,
        Err(NotInt::Syntax) => 0,
    }
}

/// Reads octal digits.
fn to_decimal(limits: &mut Limits, list: &[Value]) -> Answer {
    let text = fmt::text_of(limits, args::value(list, 0))?;
    Ok(Value::int64(parse_int(&text, 8).unwrap_or(0)))
}

/// A value as sprig makes texts of it: like `%v`, but bytes are their text.
///
/// # Errors
/// If a limit is reached.
pub(super) fn text(limits: &mut Limits, value: &Value) -> Result<Text, Fault> {
    match value {
        Value::Text(text) => Ok(Rc::clone(text)),
        Value::List(list) if list.elem == Elem::Byte => {
            let byte = |item: &Value| match item {
                Value::Int(_, number) => u8::try_from(*number).ok(),
                _ => None,
            };
            limits.grow(list.items.len())?;
            Ok(list.items.iter().filter_map(byte).collect())
        }
        other => Ok(Text::from(fmt::text_of(limits, other)?)),
    }
}

/// The texts of a list's elements that are not nil; a value that is no list is the only element.
///
/// # Errors
/// If a limit is reached.
pub(super) fn text_list(limits: &mut Limits, value: &Value) -> Result<Vec<Text>, Fault> {
    match value {
        Value::Nil => Ok(Vec::new()),
        Value::List(list) => {
            limits.grow(list.items.len().saturating_mul(size_of::<Value>()))?;
            limits.step(list.items.len() as u64)?;
            let present = list.items.iter().filter(|item| !matches!(item, Value::Nil));
            present.map(|item| text(limits, item)).collect()
        }
        other => Ok(vec![text(limits, other)?]),
    }
}

fn to_strings(limits: &mut Limits, list: &[Value]) -> Answer {
    match args::value(list, 0) {
        same @ Value::List(list) if list.elem == Elem::Str => Ok(same.clone()),
        other => {
            let texts = text_list(limits, other)?;
            Ok(Value::slice(
                Elem::Str,
                texts.into_iter().map(Value::Text).collect(),
            ))
        }
    }
}
