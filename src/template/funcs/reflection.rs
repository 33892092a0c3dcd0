//! Types and kinds of values, and whether two are the same.

use std::rc::Rc;

use super::{Answer, Fault, Func, Ty, args, func};
use crate::template::limits::Limits;
use crate::template::time::{Time, Zone};
use crate::template::value::{NESTING, Value};

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func("typeOf", &[Ty::Any], |_, list| {
        Ok(Value::text(args::value(list, 0).type_name()))
    }),
    func("typeIs", &[Ty::Text, Ty::Any], |_, list| type_is(list, false)),
    func("typeIsLike", &[Ty::Text, Ty::Any], |_, list| type_is(list, true)),
    func("kindOf", &[Ty::Any], |_, list| {
        Ok(Value::text(args::value(list, 0).kind_name()))
    }),
    func("kindIs", &[Ty::Text, Ty::Any], kind_is),
    func("deepEqual", &[Ty::Any, Ty::Any], |limits, list| {
        Ok(Value::Bool(deep_equal(
            limits,
            args::value(list, 0),
            args::value(list, 1),
            0,
        )?))
    }),
];

fn type_is(list: &[Value], pointed: bool) -> Answer {
    let (target, name) = (args::text(list, 0), args::value(list, 1).type_name());
    let like = || pointed && name.as_bytes().strip_prefix(b"*") == Some(target);
    Ok(Value::Bool(target == name.as_bytes() || like()))
}

fn kind_is(_: &mut Limits, list: &[Value]) -> Answer {
    Ok(Value::Bool(
        args::text(list, 0) == args::value(list, 1).kind_name().as_bytes(),
    ))
}

/// Go's `reflect.DeepEqual`: types count, and NaN is not itself.
///
/// # Errors
/// If a limit is reached.
pub(super) fn deep_equal(limits: &mut Limits, a: &Value, b: &Value, depth: usize) -> Result<bool, Fault> {
    limits.step(1)?;
    if depth > NESTING {
        return Err("a value is nested too deeply".into());
    }
    Ok(match (a, b) {
        (Value::Nil, Value::Nil) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(kind, a), Value::Int(other, b)) => kind == other && a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a == b,
        (Value::Complex(a, c), Value::Complex(b, d)) => a == b && c == d,
        (Value::Text(a), Value::Text(b)) => a == b,
        (Value::Time(a), Value::Time(b)) => same_time(a, b),
        (Value::Version(a), Value::Version(b)) => a == b,
        (Value::Certificate(a), Value::Certificate(b)) => a.cert == b.cert && a.key == b.key,
        (Value::List(a), Value::List(b)) => {
            if a.elem != b.elem || a.nil != b.nil || a.items.len() != b.items.len() {
                return Ok(false);
            }
            if Rc::ptr_eq(a, b) {
                return Ok(true);
            }
            for (a, b) in a.items.iter().zip(&b.items) {
                if !deep_equal(limits, a, b, depth.saturating_add(1))? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Map(a), Value::Map(b)) => {
            if Rc::ptr_eq(a, b) {
                return Ok(true);
            }
            let (one, other) = (a.items.borrow(), b.items.borrow());
            if a.elem != b.elem || one.len() != other.len() {
                return Ok(false);
            }
            for ((key, a), (other_key, b)) in one.iter().zip(other.iter()) {
                if key != other_key || !deep_equal(limits, a, b, depth.saturating_add(1))? {
                    return Ok(false);
                }
            }
            true
        }
        _ => false,
    })
}

fn same_time(a: &Time, b: &Time) -> bool {
    let same_zone = match (&a.zone, &b.zone) {
        (Zone::Utc, Zone::Utc) => true,
        (Zone::Fixed(a, name), Zone::Fixed(b, other)) => a == b && name == other,
        (Zone::Named(a), Zone::Named(b)) => a == b,
        _ => false,
    };
    same_zone && a.unix == b.unix && a.nanos == b.nanos
}
