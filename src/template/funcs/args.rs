//! Reads the arguments of a function. Their number and types were checked before it is called.

use std::rc::Rc;

use crate::template::value::{Map, Value};

/// An argument; nil where there is none.
pub(super) fn value(args: &[Value], index: usize) -> &Value {
    args.get(index).unwrap_or(&Value::Nil)
}

/// The bytes of an argument that was declared as text.
pub(super) fn text(args: &[Value], index: usize) -> &[u8] {
    super::bytes(value(args, index))
}

/// An argument that was declared as an integer.
pub(super) fn int(args: &[Value], index: usize) -> i64 {
    super::number(value(args, index))
}

/// An argument that was declared as a float.
pub(super) fn float(args: &[Value], index: usize) -> f64 {
    match value(args, index) {
        Value::Float(number) => *number,
        _ => 0.0,
    }
}

/// An argument that was declared as a dict; `None` for nil, which Go takes for a map without entries.
pub(super) fn dict(args: &[Value], index: usize) -> Option<&Rc<Map>> {
    match value(args, index) {
        Value::Map(map) => Some(map),
        _ => None,
    }
}

/// The arguments after those that were declared one by one.
pub(super) fn rest(args: &[Value], from: usize) -> &[Value] {
    args.get(from..).unwrap_or_default()
}
