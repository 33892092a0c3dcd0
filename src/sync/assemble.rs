//! What the target must hold, from the values that were read.

use std::collections::BTreeMap;

use super::plan::{Entry, Plan, Use};
use super::{decode, keys, property};
use crate::api::external_secret::{NullBytePolicy, RemoteRef};
use crate::secret::SecretBytes;
use crate::vault::json::Json;

/// What became of a read.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The secret.
    Found(Json),
    /// A clean 'not found'.
    Missing,
}

/// What the target must hold.
#[derive(Clone, Debug, Default)]
pub struct Assembled {
    /// Its data.
    pub data: BTreeMap<String, SecretBytes>,
    /// Entries whose secret is missing, for people: `spec.data[0] (key: app/db)`.
    pub missing: Vec<String>,
    /// Whether any secret was there, be it empty: then nothing may be deleted (promise 1).
    pub found: bool,
}

/// Why it cannot be said what the target must hold. No value is ever part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error processing {field} (key: {key}), err: {cause}")]
pub struct AssembleError {
    field: String,
    key: String,
    cause: String,
}

/// Assembles the data, all or nothing. `answers` are parallel to the plan's reads.
///
/// # Errors
/// The first entry that cannot be served.
pub fn assemble(plan: &Plan, answers: &[Answer]) -> Result<Assembled, AssembleError> {
    let mut assembled = Assembled::default();
    for entry in &plan.entries {
        let fail = |cause: String| AssembleError {
            field: entry.field.clone(),
            key: entry.remote.key.clone(),
            cause,
        };
        match answers.get(entry.read) {
            Some(Answer::Found(secret)) => {
                assembled.found = true;
                assembled.data.extend(values(entry, secret).map_err(fail)?);
            }
            Some(Answer::Missing) if !plan.missing_fails => {
                assembled
                    .missing
                    .push(format!("{} (key: {})", entry.field, entry.remote.key));
            }
            Some(Answer::Missing) => {
                return Err(fail(
                    "Secret does not exist; write it to Vault, or correct the key".into(),
                ));
            }
            None => return Err(fail("it was not read".into())),
        }
    }
    Ok(assembled)
}

fn values(entry: &Entry, secret: &Json) -> Result<BTreeMap<String, SecretBytes>, String> {
    let remote = &entry.remote;
    let property = remote.property.as_deref();
    let not_found = || {
        format!(
            "cannot find secret data for key: \"{}\"; the secret exists, but has no such property",
            property.unwrap_or_default()
        )
    };
    match &entry.usage {
        Use::Single { secret_key } => {
            let value = property::single(secret, property).ok_or_else(not_found)?;
            keys::check(secret_key)?;
            Ok(BTreeMap::from([(
                secret_key.clone(),
                finish(secret_key, value, remote)?,
            )]))
        }
        Use::Extract => {
            let map = property::extract(secret, property)
                .map_err(|_| {
                    format!(
                        "property '{}' is not a JSON object, and extract needs one",
                        property.unwrap_or_default()
                    )
                })?
                .ok_or_else(not_found)?;
            let converted = keys::convert_all(map, remote.conversion_strategy.unwrap_or_default())?;
            let named = converted.into_iter().filter(|(key, _)| !key.is_empty());
            named
                .map(|(key, value)| {
                    keys::check(&key).map_err(|e| {
                        format!(
                            "invalid secret keys (TIP: use rewrite or conversionStrategy to change keys): {e}"
                        )
                    })?;
                    let value = finish(&key, value, remote)?;
                    Ok((key, value))
                })
                .collect()
        }
    }
}

fn finish(key: &str, value: SecretBytes, remote: &RemoteRef) -> Result<SecretBytes, String> {
    let strategy = remote.decoding_strategy.unwrap_or_default();
    let value = decode::decode(value, strategy)
        .ok_or_else(|| format!("error applying decoding strategy {strategy:?} to data: the value of key {key} is not of that form"))?;
    if remote.null_byte_policy == Some(NullBytePolicy::Fail) && value.expose().contains(&0) {
        return Err(format!(
            "the value of key {key} holds a null byte, and nullBytePolicy is Fail"
        ));
    }
    Ok(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sync::plan::plan;
    use serde_json::json;

    fn run(mut spec: serde_json::Value, answers: &[Option<&str>]) -> Result<Assembled, AssembleError> {
        spec["secretStoreRef"] = json!({"name": "s"});
        let plan = plan(&serde_json::from_value(spec).unwrap(), "db").unwrap();
        let answers: Vec<Answer> = answers
            .iter()
            .map(|a| {
                a.map_or(Answer::Missing, |text| {
                    Answer::Found(Json::parse(text.as_bytes()).unwrap())
                })
            })
            .collect();
        assemble(&plan, &answers)
    }

    fn text(assembled: &Assembled) -> Vec<(String, String)> {
        assembled
            .data
            .iter()
            .map(|(k, v)| (k.clone(), String::from_utf8_lossy(v.expose()).into_owned()))
            .collect()
    }

    #[test]
    fn data_wins_over_data_from_and_later_over_earlier() {
        let spec = json!({
            "dataFrom": [{"extract": {"key": "a"}}, {"extract": {"key": "b"}}],
            "data": [{"secretKey": "x", "remoteRef": {"key": "c", "property": "p"}}],
        });
        let got = run(
            spec,
            &[
                Some(r#"{"x":"a","y":"a","z":"a"}"#),
                Some(r#"{"x":"b","y":"b"}"#),
                Some(r#"{"p":"c"}"#),
            ],
        );
        let pairs = text(&got.unwrap());
        assert_eq!(
            pairs,
            [("x", "c"), ("y", "b"), ("z", "a")].map(|(k, v)| (k.to_string(), v.to_string()))
        );
    }

    #[test]
    fn one_failing_entry_fails_all_and_shows_no_value() {
        let spec = json!({"data": [
            {"secretKey": "a", "remoteRef": {"key": "p", "property": "x"}},
            {"secretKey": "b", "remoteRef": {"key": "p", "property": "x", "decodingStrategy": "Base64"}},
        ]});
        let error = run(spec, &[Some(r#"{"x":"hunter2!"}"#)]).unwrap_err();
        assert!(
            error.to_string().contains("spec.data[1]") && !format!("{error:?}").contains("hunter2"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_property_is_an_error_and_never_a_deletion() {
        for policy in ["Retain", "Delete"] {
            let spec = json!({
                "target": {"deletionPolicy": policy},
                "data": [{"secretKey": "a", "remoteRef": {"key": "p", "property": "gone"}}],
            });
            let error = run(spec, &[Some(r#"{"x":"1"}"#)]).unwrap_err().to_string();
            assert!(
                error.contains("cannot find secret data for key: \"gone\""),
                "{error}"
            );
        }
    }

    #[test]
    fn a_missing_secret_fails_with_retain_and_is_told_with_delete() {
        let data = json!([{"secretKey": "a", "remoteRef": {"key": "p"}}]);
        assert!(
            run(json!({"data": data}), &[None])
                .unwrap_err()
                .to_string()
                .contains("Secret does not exist")
        );
        let got = run(
            json!({"data": data, "target": {"deletionPolicy": "Delete"}}),
            &[None],
        )
        .unwrap();
        assert!(got.data.is_empty());
        assert_eq!(got.missing, ["spec.data[0] (key: p)"]);
    }

    #[test]
    fn null_bytes_fail_only_if_asked_to() {
        let entry = |policy: &str| json!({"data": [{"secretKey": "a", "remoteRef": {"key": "p", "property": "x", "nullBytePolicy": policy}}]});
        assert!(run(entry("Ignore"), &[Some(r#"{"x":"A\u0000B"}"#)]).is_ok());
        assert!(run(entry("Fail"), &[Some(r#"{"x":"A\u0000B"}"#)]).is_err());
    }

    #[test]
    fn extracted_keys_are_made_valid_and_decoded() {
        let spec = json!({"dataFrom": [{"extract": {"key": "p", "decodingStrategy": "Auto"}}]});
        let got = run(spec, &[Some(r#"{"a/b":"YmFy","":"x"}"#)]).unwrap();
        assert_eq!(text(&got), [("a_b".to_string(), "bar".to_string())]);
    }
}
