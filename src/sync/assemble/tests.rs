#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::sync::plan::plan;

fn planned(mut spec: Value) -> Plan {
    spec["secretStoreRef"] = json!({"name": "vault"});
    plan(&serde_json::from_value(spec).unwrap(), "db").unwrap()
}

/// One answer per read; null stands for a missing secret, an array of pairs for what a search found.
fn assembled(spec: Value, answers: &[Value]) -> Result<Assembled, AssembleError> {
    let pair = |pair: &Value| {
        let text = |position: usize| pair[position].as_str().unwrap();
        (text(0).to_owned(), SecretBytes::from(text(1)))
    };
    let answers: Vec<Answer> = answers
        .iter()
        .map(|answer| match answer {
            Value::Null => Answer::Missing,
            Value::Array(pairs) => Answer::Many(pairs.iter().map(pair).collect()),
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

#[test]
fn found_secrets_are_keys_of_converted_names() {
    let found = [json!([["app/db", "{}"], ["app/web-1", "V29ybGQ="]])];
    let with = |find: Value| json!({"dataFrom": [{"find": find}]});
    assert_eq!(
        texts(&assembled(with(json!({})), &found).unwrap()),
        [("app_db", "{}"), ("app_web-1", "V29ybGQ=")]
    );
    let unicode = json!({"conversionStrategy": "Unicode", "decodingStrategy": "Auto"});
    assert_eq!(
        texts(&assembled(with(unicode), &found).unwrap()),
        [("app_U002f_db", "{}"), ("app_U002f_web-1", "World")]
    );
    let twice = [json!([["app/db", "1"], ["app_db", "2"]])];
    let error = assembled(with(json!({})), &twice).unwrap_err().to_string();
    assert!(
        error.starts_with("error processing spec.dataFrom[0].find (the whole mount), err: ")
            && error.contains("collision during conversion: app_db"),
        "{error}"
    );
    let null = [json!([["a", "x\0"]])];
    let error = assembled(with(json!({"nullBytePolicy": "Fail"})), &null).unwrap_err();
    assert!(matches!(error.fault, Fault::NullByte(_)));
}

#[test]
fn rewritten_keys_are_not_converted_and_must_be_valid() {
    let with = |source: &str, target: &str| json!({"dataFrom": [{"find": {}, "rewrite": [{"regexp": {"source": source, "target": target}}]}]});
    let found = [json!([["app/db", "1"], ["app/web", "2"]])];
    assert_eq!(
        texts(&assembled(with("^app/", ""), &found).unwrap()),
        [("db", "1"), ("web", "2")]
    );
    let error = assembled(with("x", "y"), &found).unwrap_err().to_string();
    assert!(
        error.contains("invalid secret keys (TIP: use rewrite") && error.contains("app/db"),
        "{error}"
    );
    let error = assembled(with(".*", "one"), &found).unwrap_err();
    assert!(matches!(error.fault, Fault::Rewrite(_)), "{error}");
}

#[test]
fn extracted_keys_are_rewritten_before_values_are_decoded() {
    let spec = json!({"dataFrom": [{
        "extract": {"key": "a", "decodingStrategy": "Base64"},
        "rewrite": [{"regexp": {"source": "(.*)", "target": "my_$1"}}],
    }]});
    assert_eq!(
        texts(&assembled(spec, &[json!({"username": "Ym9i"})]).unwrap()),
        [("my_username", "bob")]
    );
}

#[test]
fn many_found_secrets_can_be_merged_into_one_map() {
    let spec = json!({"dataFrom": [{"find": {"path": "db"}, "rewrite": [{"merge": {}}]}]});
    let found = [json!([["db/a", "{\"user\":\"u\"}"], ["db/b", "{\"port\":5432}"]])];
    assert_eq!(
        texts(&assembled(spec, &found).unwrap()),
        [("port", "5432"), ("user", "u")]
    );
}

#[test]
fn a_missing_folder_is_a_missing_secret_and_a_search_without_result_is_not() {
    let with =
        |policy: &str| json!({"target": {"deletionPolicy": policy}, "dataFrom": [{"find": {"path": "app"}}]});
    let error = assembled(with("Retain"), &[Value::Null]).unwrap_err();
    assert_eq!(error.fault, Fault::Missing);
    let result = assembled(with("Delete"), &[Value::Null]).unwrap();
    assert_eq!(result.missing, ["spec.dataFrom[0].find (path: app)"]);
    for policy in ["Retain", "Delete"] {
        let result = assembled(with(policy), &[json!([])]).unwrap();
        assert_eq!((result.data.len(), result.found, result.missing.len()), (0, 0, 0));
    }
}

#[test]
fn metadata_have_the_rules_of_properties() {
    let metadata = [json!({"access_key": "a", "created_time": "custom-time", "current_version": "2"})];
    let fetch = |property: &str| {
        let remote = json!({"key": "a", "metadataPolicy": "Fetch", "property": property});
        json!({"data": [entry("k", remote)]})
    };
    assert_eq!(
        texts(&assembled(fetch(""), &metadata).unwrap()),
        [(
            "k",
            r#"{"access_key":"a","created_time":"custom-time","current_version":"2"}"#
        )]
    );
    assert_eq!(
        texts(&assembled(fetch("current_version"), &metadata).unwrap()),
        [("k", "2")]
    );
    let error = assembled(fetch("does_not_exist"), &metadata)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot find secret data for key: \"does_not_exist\""),
        "{error}"
    );
    let all = json!({"dataFrom": [{"extract": {"key": "a", "metadataPolicy": "Fetch"}}]});
    assert_eq!(texts(&assembled(all, &metadata).unwrap()).len(), 3);
}

#[test]
fn missing_metadata_are_an_error_under_every_deletion_policy() {
    for policy in ["Delete", "Merge", "Retain"] {
        let remote = json!({"key": "a", "metadataPolicy": "Fetch"});
        let spec = json!({"target": {"deletionPolicy": policy}, "data": [entry("k", remote)]});
        let error = assembled(spec, &[Value::Null]).unwrap_err();
        assert_eq!(error.fault, Fault::NoMetadata);
        assert!(error.to_string().contains("secret not found"));
    }
}
