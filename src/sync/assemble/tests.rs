#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::sync::plan::plan;

fn planned(mut spec: Value) -> Plan {
    spec["secretStoreRef"] = json!({"name": "vault"});
    plan(&serde_json::from_value(spec).unwrap(), "db").unwrap()
}

/// One answer per read; null stands for a missing secret.
fn assembled(spec: Value, answers: &[Value]) -> Result<Assembled, AssembleError> {
    let answers: Vec<Answer> = answers
        .iter()
        .map(|answer| match answer {
            Value::Null => Answer::Missing,
            found => Answer::Found(Arc::new(Json::parse(found.to_string().as_bytes()).unwrap())),
        })
        .collect();
    assemble(&planned(spec), &answers)
}

fn texts(assembled: &Assembled) -> Vec<(&str, &str)> {
    assembled
        .data
        .iter()
        .map(|(key, value)| (key.as_str(), std::str::from_utf8(value.expose()).unwrap()))
        .collect()
}

fn entry(key: &str, remote: Value) -> Value {
    json!({"secretKey": key, "remoteRef": remote})
}

#[test]
fn later_data_from_wins_over_earlier_and_data_wins_over_both() {
    let spec = json!({
        "dataFrom": [{"extract": {"key": "one"}}, {"extract": {"key": "two"}}],
        "data": [entry("c", json!({"key": "three", "property": "p"}))],
    });
    let answers = [
        json!({"a": "1", "b": "1", "c": "1"}),
        json!({"b": "2", "c": "2"}),
        json!({"p": "3"}),
    ];
    assert_eq!(
        texts(&assembled(spec, &answers).unwrap()),
        [("a", "1"), ("b", "2"), ("c", "3")]
    );
}

#[test]
fn many_entries_share_one_answer() {
    let spec = json!({"data": [
        entry("user", json!({"key": "db", "property": "user"})),
        entry("pass", json!({"key": "db", "property": "pass"})),
        entry("all", json!({"key": "db"})),
    ]});
    let result = assembled(spec, &[json!({"user": "u", "pass": "p"})]).unwrap();
    assert_eq!(
        texts(&result),
        [
            ("all", r#"{"pass":"p","user":"u"}"#),
            ("pass", "p"),
            ("user", "u")
        ]
    );
}

#[test]
fn with_retain_a_missing_secret_fails_the_whole_sync_and_names_the_entry() {
    let spec = json!({"data": [entry("a", json!({"key": "here"})), entry("b", json!({"key": "app/db"}))]});
    let error = assembled(spec, &[json!({"a": "1"}), Value::Null]).unwrap_err();
    assert_eq!(error.fault, Fault::Missing);
    assert!(
        error
            .to_string()
            .starts_with("error processing spec.data[1] (key: app/db), err: Secret does not exist")
    );
}

#[test]
fn with_the_other_policies_a_missing_secret_is_left_out_and_listed() {
    for policy in ["Delete", "Merge"] {
        let spec = json!({
            "target": {"deletionPolicy": policy},
            "data": [entry("a", json!({"key": "app/db"})), entry("b", json!({"key": "here", "property": "p"}))],
            "dataFrom": [{"extract": {"key": "gone"}}],
        });
        let result = assembled(spec, &[Value::Null, Value::Null, json!({"p": "1"})]).unwrap();
        assert_eq!(texts(&result), [("b", "1")]);
        assert_eq!(
            result.missing,
            [
                "spec.dataFrom[0].extract (key: gone)",
                "spec.data[0] (key: app/db)"
            ]
        );
        assert_eq!(result.found, 1);
    }
}

#[test]
fn a_missing_property_is_an_error_under_every_deletion_policy() {
    for policy in ["Delete", "Merge", "Retain"] {
        let spec = json!({
            "target": {"deletionPolicy": policy},
            "data": [entry("a", json!({"key": "app/db", "property": "nop"}))],
        });
        let error = assembled(spec, &[json!({"p": "hunter2"})])
            .unwrap_err()
            .to_string();
        let expected =
            "error processing spec.data[0] (key: app/db), err: cannot find secret data for key: \"nop\"";
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains("hunter2"));
    }
}

#[test]
fn an_empty_secret_counts_as_found() {
    let result = assembled(json!({"dataFrom": [{"extract": {"key": "a"}}]}), &[json!({})]).unwrap();
    assert_eq!((result.data.len(), result.found, result.missing.len()), (0, 1, 0));
}

#[test]
fn extracted_keys_are_converted_and_checked() {
    let with =
        |strategy: &str| json!({"dataFrom": [{"extract": {"key": "a", "conversionStrategy": strategy}}]});
    let secret = [json!({"foo/bar": "1", "": "dropped"})];
    assert_eq!(
        texts(&assembled(with("Default"), &secret).unwrap()),
        [("foo_bar", "1")]
    );
    assert_eq!(
        texts(&assembled(with("Unicode"), &secret).unwrap()),
        [("foo_U002f_bar", "1")]
    );
    let error = assembled(with("Default"), &[json!({"clé": "hunter2"})])
        .unwrap_err()
        .to_string();
    assert!(error.contains("clé") && !error.contains("hunter2"), "{error}");
}

#[test]
fn values_are_decoded_and_keys_never() {
    let spec = json!({
        "dataFrom": [{"extract": {"key": "a", "decodingStrategy": "Base64"}}],
        "data": [entry("d", json!({"key": "b", "property": "p", "decodingStrategy": "Auto"}))],
    });
    let result = assembled(spec, &[json!({"SGVsbG8": "V29ybGQ="}), json!({"p": "plain!"})]).unwrap();
    assert_eq!(texts(&result), [("SGVsbG8", "World"), ("d", "plain!")]);
}

#[test]
fn a_value_that_cannot_be_decoded_is_named_by_entry_and_key() {
    let spec = json!({"dataFrom": [{"extract": {"key": "a", "decodingStrategy": "Base64"}}]});
    let error = assembled(spec, &[json!({"good": "V29ybGQ=", "pin": "hunter2"})])
        .unwrap_err()
        .to_string();
    assert!(error.starts_with(
        "error processing spec.dataFrom[0].extract (key: a), err: error applying decoding strategy Base64 to data: \
         the value of key \"pin\""
    ), "{error}");
    assert!(!error.contains("hunter2"));
}

#[test]
fn null_bytes_are_refused_for_data_and_extract_at_the_first_key_in_order() {
    let spec = json!({"data": [entry("a", json!({"key": "a", "property": "p", "nullBytePolicy": "Fail"}))]});
    assert!(matches!(
        assembled(spec, &[json!({"p": "A\0B"})]).unwrap_err().fault,
        Fault::NullByte(_)
    ));
    let spec = json!({"dataFrom": [{"extract": {"key": "a", "nullBytePolicy": "Fail"}}]});
    let error = assembled(spec, &[json!({"z": "A\0B", "k": "A\0B", "a": "fine"})])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("the value of key \"k\" holds a null byte"),
        "{error}"
    );
    let spec = json!({"data": [entry("a", json!({"key": "a", "property": "p"}))]});
    assert_eq!(
        texts(&assembled(spec, &[json!({"p": "A\0B"})]).unwrap()),
        [("a", "A\0B")]
    );
}

#[test]
fn null_bytes_are_looked_for_after_decoding() {
    let remote = json!({"key": "a", "property": "p", "nullBytePolicy": "Fail", "decodingStrategy": "Base64"});
    let error = assembled(json!({"data": [entry("a", remote)]}), &[json!({"p": "QQBC"})]).unwrap_err();
    assert!(matches!(error.fault, Fault::NullByte(_)));
}

#[test]
fn an_answer_too_few_is_an_error_and_no_panic() {
    let error = assembled(json!({"dataFrom": [{"extract": {"key": "a"}}]}), &[]).unwrap_err();
    assert_eq!(error.fault, Fault::NotRead);
}
