//! Methods and fields of values that are no maps.

use super::funcs::Answer;
use super::funcs::dates::time_method;
use super::funcs::semver::version_method;
use super::limits::Limits;
use super::value::Value;

/// Whether a value has methods at all.
pub(super) fn has_methods(value: &Value) -> bool {
    matches!(value, Value::Time(_) | Value::Version(_))
}

/// Calls a method; nothing if the value has none of this name.
pub(super) fn call(limits: &mut Limits, value: &Value, name: &str, args: &[Value]) -> Option<Answer> {
    match value {
        Value::Time(time) => time_method(limits, time, name, args),
        Value::Version(version) => version_method(version, name, args),
        _ => None,
    }
}

/// The field of this name.
pub(super) fn field(value: &Value, name: &str) -> Option<Value> {
    match (value, name) {
        (Value::Certificate(pair), "Cert") => Some(Value::Text(pair.cert.clone())),
        (Value::Certificate(pair), "Key") => Some(Value::Text(pair.key.clone())),
        _ => None,
    }
}
