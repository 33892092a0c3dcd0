//! What is told of an error of the API server: its code, its reason and the fields that it names, never its message.
//! A message quotes what it does not like, and much of what we send and read is made of secrets (promise 8).

use kube::core::Status;
use kube::core::response::StatusCause;

/// Fields that are named, and the longest name of one.
const FIELDS: usize = 5;
const FIELD_MAX: usize = 200;
/// Longest word that passes for a reason.
const REASON_MAX: usize = 60;

/// For example `422 Invalid because of data[tls.crt]`.
#[must_use]
pub fn told(status: &Status) -> String {
    let mut told = status.code.to_string();
    // A webhook may write whatever it likes there.
    if is_word(&status.reason) {
        told = format!("{told} {}", status.reason);
    }
    let fields: Vec<&str> = causes(status)
        .map(|cause| cause.field.as_str())
        .filter(|field| is_path(field))
        .collect();
    if fields.is_empty() {
        return told;
    }
    let named = fields[..fields.len().min(FIELDS)].join(", ");
    let more = match fields.len().saturating_sub(FIELDS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{told} because of {named}{more}")
}

/// Whether one of the causes is this.
#[must_use]
pub fn has_cause(status: &Status, reason: &str) -> bool {
    causes(status).any(|cause| cause.reason == reason)
}

fn causes(status: &Status) -> impl Iterator<Item = &StatusCause> {
    status.details.iter().flat_map(|details| &details.causes)
}

fn is_word(text: &str) -> bool {
    (1..=REASON_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn is_path(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/[]".contains(&byte);
    (1..=FIELD_MAX).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn status(value: Value) -> Status {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_message_is_never_told() {
        for (answer, wanted) in [
            (
                json!({"code": 422, "reason": "Invalid", "message": "invalid character 'Q'", "details": {"causes": [
                    {"reason": "FieldValueInvalid", "message": "invalid character 'Q'", "field": "data[.dockercfg]"},
                ]}}),
                "422 Invalid because of data[.dockercfg]",
            ),
            (json!({"code": 500, "message": "hunter2"}), "500"),
            // What an admission webhook wrote.
            (
                json!({"code": 400, "reason": "value hunter2 is weak", "message": "hunter2", "details": {"causes": [
                    {"field": "password 'hunter2'"}, {"field": ""},
                ]}}),
                "400",
            ),
        ] {
            assert_eq!(told(&status(answer)), wanted);
        }
    }

    #[test]
    fn however_many_fields_are_wrong_a_few_are_named() {
        let causes: Vec<Value> = (0..1000)
            .map(|i| json!({"field": format!("spec.a{i}")}))
            .collect();
        let told = told(&status(json!({"code": 422, "details": {"causes": causes}})));
        assert_eq!(
            told,
            "422 because of spec.a0, spec.a1, spec.a2, spec.a3, spec.a4 and 995 more"
        );
    }
}
