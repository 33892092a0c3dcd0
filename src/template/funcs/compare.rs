//! Go's own comparisons: `eq`, `ne`, `lt`, `le`, `gt` and `ge`.

use std::cmp::Ordering;
use std::rc::Rc;

use super::{Answer, Fault, Func, Ty, func, func_more};
use crate::template::value::{IntKind, Value};

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func_more("eq", &[Ty::Any], Ty::Any, |_, args| eq(args).map(Value::Bool)),
    func("ne", &[Ty::Any, Ty::Any], |_, args| {
        eq(args).map(|equal| Value::Bool(!equal))
    }),
    func("lt", &[Ty::Any, Ty::Any], |_, args| less(args)),
    func("le", &[Ty::Any, Ty::Any], |_, args| less_or_equal(args)),
    // Go turns the two around, which tells for NaN.
    func("gt", &[Ty::Any, Ty::Any], |_, args| not(less_or_equal(args)?)),
    func("ge", &[Ty::Any, Ty::Any], |_, args| not(less(args)?)),
];

fn not(value: Value) -> Answer {
    Ok(Value::Bool(!value.truth()))
}

/// Kinds that can be compared with one another.
#[derive(PartialEq, Eq)]
enum Basic {
    Bool,
    Complex,
    Int,
    Uint,
    Float,
    Text,
}

fn basic(value: &Value) -> Result<Basic, Fault> {
    match value {
        Value::Bool(_) => Ok(Basic::Bool),
        Value::Complex(..) => Ok(Basic::Complex),
        Value::Int(kind, _) if kind.unsigned() => Ok(Basic::Uint),
        Value::Int(..) | Value::Duration(_) => Ok(Basic::Int),
        Value::Float(_) => Ok(Basic::Float),
        Value::Text(_) => Ok(Basic::Text),
        _ => Err("invalid type for comparison".into()),
    }
}

/// Whether the first argument equals one of the others.
fn eq(args: &[Value]) -> Result<bool, Fault> {
    let Some((first, others)) = args.split_first() else {
        return Err("missing argument for comparison".into());
    };
    if others.is_empty() {
        return Err("missing argument for comparison".into());
    }
    for other in others {
        if equal(first, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn equal(one: &Value, other: &Value) -> Result<bool, Fault> {
    Ok(match (one, other) {
        (Value::Bool(one), Value::Bool(other)) => one == other,
        (Value::Complex(..), Value::Complex(..)) => {
            matches!((one, other), (Value::Complex(a, b), Value::Complex(c, d)) if a == c && b == d)
        }
        (Value::Float(one), Value::Float(other)) => one == other,
        (Value::Text(one), Value::Text(other)) => one == other,
        (Value::Nil, Value::Nil) => true,
        (Value::Time(one), Value::Time(other)) => one.unix == other.unix && one.nanos == other.nanos,
        (Value::Version(one), Value::Version(other)) => Rc::ptr_eq(one, other),
        (Value::Certificate(one), Value::Certificate(other)) => {
            one.cert == other.cert && one.key == other.key
        }
        (Value::Nil, Value::List(list)) | (Value::List(list), Value::Nil) => list.nil,
        (Value::Nil, _) | (_, Value::Nil) => false,
        (Value::List(one), Value::List(other)) if one.nil || other.nil => one.nil && other.nil,
        (Value::List(_) | Value::Map(_), _) | (_, Value::List(_) | Value::Map(_)) => {
            return Err("non-comparable types".into());
        }
        _ => match (integer(one), integer(other)) {
            (Some(one), Some(other)) => one == other,
            _ => return Err("incompatible types for comparison".into()),
        },
    })
}

/// An integer of any type.
fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Int(IntKind::Uint64, bits) => Some(i128::from(u64::from_ne_bytes(bits.to_ne_bytes()))),
        Value::Int(_, number) | Value::Duration(number) => Some(i128::from(*number)),
        _ => None,
    }
}

fn less(args: &[Value]) -> Answer {
    let (one, other) = two(args)?;
    Ok(Value::Bool(order(one, other)? == Some(Ordering::Less)))
}

fn less_or_equal(args: &[Value]) -> Answer {
    let (one, other) = two(args)?;
    let order = order(one, other)?;
    Ok(Value::Bool(matches!(
        order,
        Some(Ordering::Less | Ordering::Equal)
    )))
}

fn two(args: &[Value]) -> Result<(&Value, &Value), Fault> {
    match args {
        [one, other] => Ok((one, other)),
        _ => Err("missing argument for comparison".into()),
    }
}

/// Nothing if one of them is no number.
fn order(one: &Value, other: &Value) -> Result<Option<Ordering>, Fault> {
    let (first, second) = (basic(one)?, basic(other)?);
    match (one, other) {
        (Value::Float(one), Value::Float(other)) => Ok(one.partial_cmp(other)),
        (Value::Text(one), Value::Text(other)) => Ok(Some(one.cmp(other))),
        _ => match (integer(one), integer(other)) {
            (Some(one), Some(other)) => Ok(Some(one.cmp(&other))),
            _ if first == second => Err("invalid type for comparison".into()),
            _ => Err("incompatible types for comparison".into()),
        },
    }
}
