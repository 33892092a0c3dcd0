#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn template(template: Value) -> ExternalSecretTemplate {
    serde_json::from_value(template).unwrap()
}

fn values() -> BTreeMap<String, SecretBytes> {
    [
        ("user", "admin"),
        ("password", "hunter2"),
        ("json", r#"{"a":"1","b":"2"}"#),
    ]
    .map(|(key, value)| (key.to_owned(), value.into()))
    .into()
}

fn source(
    kind: SourceKind,
    name: &str,
    content: &[(&str, &str)],
) -> (SourceRef, BTreeMap<String, SecretBytes>) {
    let reference = SourceRef {
        kind,
        name: name.to_owned(),
    };
    let content = content
        .iter()
        .map(|(key, text)| ((*key).to_owned(), (*text).into()));
    (reference, content.collect())
}

fn shaped_with(of: Value, sources: &Sources) -> Result<Shaped, ShapeError> {
    Shape::prepare(&template(of), false, sources, &Delims::default())?.render(&values())
}

fn shaped(of: Value) -> Result<Shaped, ShapeError> {
    shaped_with(of, &Sources::new())
}

fn data(shaped: &Shaped) -> Vec<(&str, String)> {
    let pairs = shaped.data.iter();
    pairs
        .map(|(key, value)| (key.as_str(), String::from_utf8_lossy(value.expose()).into_owned()))
        .collect()
}

#[test]
fn only_rendered_keys_end_up_in_the_target_unless_the_merge_policy_keeps_the_values() {
    let of = json!({"data": {"url": "{{ .user }}:{{ .password }}"}});
    assert_eq!(data(&shaped(of).unwrap()), [("url", "admin:hunter2".to_owned())]);
    let of = json!({"mergePolicy": "Merge", "data": {"user": "{{ .user | upper }}"}});
    let merged = shaped(of).unwrap();
    assert_eq!(merged.data.len(), 3);
    assert!(data(&merged).contains(&("user", "ADMIN".to_owned())));
    for of in [
        json!({}),
        json!({"metadata": {"labels": {"a": "b"}}}),
        json!({"type": "Opaque"}),
    ] {
        assert_eq!(shaped(of).unwrap().data, values());
    }
}

#[test]
fn data_wins_over_template_from_and_later_entries_over_earlier_ones() {
    let of = json!({
        "templateFrom": [{"literal": "a: first\nb: first"}, {"literal": "b: second\nc: second"}],
        "data": {"c": "third"},
    });
    let wanted = [("a", "first"), ("b", "second"), ("c", "third")];
    assert_eq!(
        data(&shaped(of).unwrap()),
        wanted.map(|(key, value)| (key, value.to_owned()))
    );
}

#[test]
fn config_maps_and_secrets_are_read_as_values_and_as_keys_and_values() {
    let sources = Sources::from([
        source(
            SourceKind::ConfigMap,
            "cm",
            &[
                ("config.json", r#"{"u":"{{ .user }}"}"#),
                ("more", "k-{{ .user }}: on"),
            ],
        ),
        source(SourceKind::Secret, "sec", &[("tpl", "{{ .password }}")]),
    ]);
    let of = json!({"templateFrom": [{
        "configMap": {"name": "cm", "items": [{"key": "config.json"}, {"key": "more", "templateAs": "KeysAndValues"}]},
        "secret": {"name": "sec", "items": [{"key": "tpl"}]},
    }]});
    let wanted = [
        ("config.json", r#"{"u":"admin"}"#),
        ("k-admin", "true"),
        ("tpl", "hunter2"),
    ];
    let shaped = shaped_with(of, &sources).unwrap();
    assert_eq!(data(&shaped), wanted.map(|(key, value)| (key, value.to_owned())));
}

#[test]
fn a_template_may_make_labels_and_annotations_whatever_the_case_of_the_target() {
    let of = json!({
        "templateFrom": [{"target": "labels", "literal": "a: '{{ .user }}'"}, {"target": "Annotations", "literal": "b: x"}],
        "metadata": {"labels": {"c": "{{ .user }}"}, "annotations": {"d": "{{ .user }}"}},
    });
    let shaped = shaped(of).unwrap();
    assert_eq!(
        (shaped.labels["a"].as_str(), shaped.labels["c"].as_str()),
        ("admin", "admin")
    );
    assert_eq!(
        (shaped.annotations["b"].as_str(), shaped.annotations["d"].as_str()),
        ("x", "admin")
    );
}

#[test]
fn rendered_values_are_decoded_and_keys_never() {
    let of = json!({"templateFrom": [{"literal": "SGVsbG8=: V29ybGQ=", "valuesDecodingStrategy": "Base64"}]});
    // The `=` of the key is no character of a key in a Secret, so it is refused rather than decoded.
    assert!(matches!(shaped(of).unwrap_err().problem, Problem::Key(_)));
    let of = json!({"templateFrom": [{"literal": "SGVsbG8: V29ybGQ=", "valuesDecodingStrategy": "Base64"}]});
    assert_eq!(data(&shaped(of).unwrap()), [("SGVsbG8", "World".to_owned())]);
    let of = json!({"templateFrom": [{"literal": "service-a: '%'", "valuesDecodingStrategy": "Base64"}]});
    let message = shaped(of).unwrap_err().to_string();
    assert!(
        message.contains("rendered template value for key service-a"),
        "{message}"
    );
}

#[test]
fn a_float_keeps_all_its_digits() {
    let of = json!({"templateFrom": [{"literal": "pi: 3.14159265"}]});
    assert_eq!(data(&shaped(of).unwrap()), [("pi", "3.14159265".to_owned())]);
}

#[test]
fn every_fault_names_the_field_and_no_value() {
    let sources = Sources::from([source(SourceKind::ConfigMap, "cm", &[("k", "{{ .nope }}")])]);
    let item = |name: &str, key: &str| json!({"templateFrom": [{"configMap": {"name": name, "items": [{"key": key}]}}]});
    for (of, field, part) in [
        (json!({"data": {"a": "{{ .nope }}"}}), r#"data["a"]"#, "nope"),
        (json!({"data": {"a": "{{ if }}"}}), r#"data["a"]"#, "a:1"),
        (json!({"data": {"a": "{{ nofunc }}"}}), r#"data["a"]"#, "nofunc"),
        (
            json!({"data": {"a": "{{ fail .password }}"}}),
            r#"data["a"]"#,
            "fail",
        ),
        (
            json!({"data": {"a b": "x"}}),
            r#"data["a b"]"#,
            "invalid character",
        ),
        (
            json!({"templateFrom": [{"literal": "{{ .password }}"}]}),
            "templateFrom[0].literal",
            "YAML map",
        ),
        (
            json!({"templateFrom": [{"literal": "a: [1]"}]}),
            "templateFrom[0].literal",
            "list",
        ),
        (
            json!({"templateFrom": [{"literal": "a: b", "target": "type"}]}),
            "templateFrom[0].target",
            "not allowed",
        ),
        (
            json!({"metadata": {"labels": {"l": "{{ .password }} !"}}}),
            r#"labels["l"]"#,
            "no valid label",
        ),
        (item("gone", "k"), "templateFrom[0].configMap", "does not exist"),
        (item("cm", "gone"), "templateFrom[0].configMap", "no key"),
        (item("cm", "k"), "templateFrom[0].configMap", "nope"),
    ] {
        let message = shaped_with(of, &sources).unwrap_err().to_string();
        assert!(message.starts_with("could not apply template: "), "{message}");
        assert!(message.contains(field) && message.contains(part), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn mistakes_in_the_external_secret_itself_are_found_before_anything_is_read() {
    let faulty = [
        json!({"data": {"a": "{{ end }}"}}),
        json!({"templateFrom": [{"literal": "{{"}]}),
        json!({"metadata": {"annotations": {"a": "{{ nofunc }}"}}}),
    ];
    for of in faulty {
        assert!(check(&template(of), &Delims::default()).is_err());
    }
    let reads = json!({"templateFrom": [{"configMap": {"name": "cm", "items": [{"key": "k"}]}}], "data": {"a": "{{ .user }}"}});
    assert!(check(&template(reads.clone()), &Delims::default()).is_ok());
    assert_eq!(sources(&template(reads)).len(), 1);
}

#[test]
fn a_generic_target_gets_what_is_rendered_by_path_and_the_parts_of_a_secret_by_name() {
    let sources = Sources::from([source(
        SourceKind::ConfigMap,
        "cm",
        &[("app.conf", "u={{ .user }}")],
    )]);
    let from_map = json!({"name": "cm", "items": [{"key": "app.conf"}]});
    let of = template(json!({"templateFrom": [
        {"configMap": from_map}, {"target": "Data", "literal": "port: 80"},
        {"target": "spec.users[0]", "literal": "name: {{ .user }}"}, {"target": "spec", "configMap": from_map},
        {"target": "Labels", "literal": "a: b"},
    ]}));
    let shape = Shape::prepare(&of, true, &sources, &Delims::default());
    let shaped = shape.unwrap().render(&values()).unwrap();
    let wanted = [
        ("spec.users[0]", json!({"name": "admin"})),
        ("spec", json!({"app.conf": "u=admin"})),
    ];
    assert_eq!(shaped.paths, wanted.map(|(path, value)| (path.to_owned(), value)));
    let wanted = [("app.conf", "u=admin"), ("port", "80")];
    assert_eq!(data(&shaped), wanted.map(|(key, value)| (key, value.to_owned())));
    assert_eq!(shaped.labels["a"], "b");
}

#[test]
fn other_delimiters_leave_braces_alone() {
    let delims = Delims {
        left: "<<".into(),
        right: ">>".into(),
    };
    let of = template(json!({"data": {"a": "{{ .user }} << .user >>"}}));
    let shaped = Shape::prepare(&of, false, &Sources::new(), &delims)
        .unwrap()
        .render(&values())
        .unwrap();
    assert_eq!(data(&shaped), [("a", "{{ .user }} admin".to_owned())]);
}

#[test]
fn a_template_with_a_random_function_is_not_stable() {
    let stable = |text: &str| {
        let of = template(json!({"data": {"a": text}}));
        Shape::prepare(&of, false, &Sources::new(), &Delims::default())
            .unwrap()
            .is_stable()
    };
    assert!(stable("{{ .user | upper }}"));
    assert!(!stable("{{ if false }}{{ randAlphaNum 8 }}{{ end }}"));
}

#[test]
fn what_a_template_makes_up_stays_as_it_is_held_and_all_else_is_rendered() {
    let of = template(json!({
        "templateFrom": [{"literal": "made: {{ randAlphaNum 4 }}"}, {"literal": "read: {{ .user }}"}],
        "data": {"password": "{{ .user }}-{{ randAlphaNum 4 }}", "user": "{{ .user }}", "new": "{{ randAlphaNum 4 }}"},
        "metadata": {"annotations": {"at": "{{ now }}", "of": "{{ .user }}"}},
    }));
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    let before = map(&[
        ("made", "m"),
        ("password", "root-p"),
        ("user", "root"),
        ("read", "root"),
    ]);
    let held = Shaped {
        data: before
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().into()))
            .collect(),
        annotations: map(&[("at", "noon"), ("of", "root")]),
        ..Shaped::default()
    };
    let shape = Shape::prepare(&of, false, &Sources::new(), &Delims::default()).unwrap();
    let shaped = shape.render_around(&held, &values()).unwrap();
    let text = |key: &str| String::from_utf8_lossy(shaped.data[key].expose()).into_owned();
    for (key, wanted) in [
        ("made", "m"),
        ("password", "root-p"),
        ("user", "admin"),
        ("read", "admin"),
    ] {
        assert_eq!(text(key), wanted, "{key}");
    }
    assert_eq!((shaped.data.len(), text("new").len()), (5, 4));
    assert_eq!(shaped.annotations, map(&[("at", "noon"), ("of", "admin")]));
}

#[test]
fn templates_that_make_too_much_together_are_refused_though_each_may_make_as_much() {
    let of = |count: usize| {
        let keys = (0..count).map(|i| (format!("k{i}"), json!("{{ repeat 1900000 \"x\" }}")));
        shaped(json!({"data": Value::Object(keys.collect())}))
    };
    assert_eq!(of(2).unwrap().data.len(), 2);
    let error = of(3).unwrap_err().to_string();
    assert!(
        error.starts_with(
            "could not apply template: spec.target.template: all templates of the target make more than 4 MiB"
        ),
        "{error}"
    );
}

#[test]
fn templates_that_are_too_much_together_are_refused_before_they_are_parsed() {
    let large = "{{ wrong".repeat(100_000);
    let sources: Sources = [source(
        SourceKind::ConfigMap,
        "c",
        &[("large", &large), ("small", "x")],
    )]
    .into();
    let named = |key: &str, times: usize| {
        let items = vec![json!({"key": key}); times];
        let of = json!({"templateFrom": [{"configMap": {"name": "c", "items": items}}]});
        shaped_with(of, &sources).map(drop)
    };
    for (key, times) in [("large", 6), ("small", 5_000), ("missing", 5_000)] {
        let error = named(key, times).unwrap_err();
        assert_eq!(error.field, "spec.target.template");
        assert!(error.to_string().contains("more than 4 MiB together"), "{error}");
    }
    assert!(matches!(
        named("large", 5).unwrap_err().problem,
        Problem::Template(_)
    ));
    assert_eq!(named("small", 1_000), Ok(()));
}
