//! Inputs that are nested very deeply: each gets an answer. Tests run on threads with 2 MiB of stack, as the workers of
//! the operator do, and an overflow ends the whole process.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use keyferry::api::store::SecretStore;
use keyferry::controller::guarded::Guarded;
use keyferry::secret::SecretBytes;
use keyferry::store::allowed_paths::AllowedPaths;
use keyferry::sync::property;
use keyferry::target::manifest_path::Path;
use keyferry::template::funcs::yaml::string_map;
use keyferry::template::{Delims, MissingKey, Template, re2};
use keyferry::vault::json::Json;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::targets::{config, timed};

/// What opens a level of one of the languages, and what closes it.
const LEVELS: &[(&str, &str)] = &[
    ("[", "]"),
    ("{\"a\":", "}"),
    ("{a: ", "}"),
    ("- ", ""),
    ("? ", ""),
    ("(", ")"),
    ("(?:", ")*"),
    ("{{ if true }}", "{{ end }}"),
    ("{{ with (", ") }}x{{ end }}"),
    ("{{ define \"a\" }}", "{{ end }}"),
    ("a.", ""),
    ("a[0].", ""),
    ("@this|", ""),
    ("@pretty|", ""),
    ("[@this,", "]"),
    ("#(a.", ")#"),
    ("a/", ""),
    ("**/", ""),
    ("&a [*a, ", "]"),
    ("\"{\\\"a\\\":", "}\""),
];
const CORES: &[&str] = &["", "x", "1", "\"x\"", "a", "{}", "null"];

/// All that a template can do with a value that it reads.
const WALKS: &str = "{{ $v := %s .v }}{{ print $v }}{{ printf \"%#v\" $v }}{{ toJson $v }}{{ toYaml $v }}\
                     {{ toPrettyJson $v }}{{ deepEqual $v (deepCopy $v) }}{{ $v | quote | len }}";

fn check(text: &str) -> Result<(), TestCaseError> {
    if let Ok(json) = timed(|| Json::parse(text.as_bytes()))? {
        timed(|| (property::value(&json, None), property::members(&json, None)))?
            .0
            .ok();
        timed(|| property::value(&json, Some("a.@pretty")))?.ok();
    }
    let json = Json::parse(br#"{"a":{"a":[1,{"a":"{\"a\":[[1]]}"}]}}"#).unwrap();
    timed(|| property::value(&json, Some(text)))?.ok();
    timed(|| string_map(text.as_bytes()))?.ok();
    if let Ok(template) = timed(|| Template::parse("deep", text, &Delims::default()))? {
        timed(|| template.render(&BTreeMap::new(), MissingKey::Invalid))?.ok();
    }
    let data = BTreeMap::from([("v".to_owned(), SecretBytes::new(text.as_bytes().to_vec()))]);
    for reads in ["fromJson", "fromYaml"] {
        let walk = Template::parse("walk", &WALKS.replace("%s", reads), &Delims::default()).unwrap();
        timed(|| walk.render(&data, MissingKey::Invalid))?.ok();
    }
    if let Ok(regex) = timed(|| re2::compile(text))? {
        timed(|| (re2::places(&regex), re2::is_match(&regex, b"some text")))?;
    }
    if let Ok(path) = timed(|| Path::parse(text))? {
        let mut object = json!({"a": {"a": [1]}});
        timed(|| path.put(&mut object, json!({"a": 1})))?.ok();
        prop_assert!(serde_json::from_str::<Value>(&object.to_string()).is_ok());
    }
    if let Ok(allowed) = timed(|| AllowedPaths::compile(text))? {
        timed(|| (allowed.allow("a", text), allowed.lead_through("a", text)))?;
    }
    Ok(())
}

/// An object of the API server, as deep as it takes them.
fn check_object(text: &str) -> Result<(), TestCaseError> {
    if serde_json::from_str::<&serde_json::value::RawValue>(text).is_err() {
        return Ok(());
    }
    let object = format!(
        r#"{{"metadata":{{"name":"a","managedFields":[{{"fieldsV1":{text}}}]}},"spec":{{"provider":{{"aws":{text}}}}}}}"#
    );
    let read = timed(|| serde_json::from_str::<Guarded<SecretStore>>(&object))?;
    prop_assert!(read.is_ok(), "it ends the list of all");
    timed(|| serde_json::from_str::<Guarded<ConfigMap>>(&object))?.ok();
    Ok(())
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn anything_that_is_nested_deeply_gets_an_answer(
        levels in prop::collection::vec((any::<Index>(), 1..60_000_usize), 1..3), core in any::<Index>(), shallow in any::<bool>(),
    ) {
        let mut text = (*core.get(CORES)).to_owned();
        for (level, depth) in levels {
            let (open, close) = level.get(LEVELS);
            let depth = if shallow { depth % 300 } else { depth };
            text = format!("{}{text}{}", open.repeat(depth), close.repeat(depth));
        }
        check(&text)?;
        check_object(&text)?;
    }
}
