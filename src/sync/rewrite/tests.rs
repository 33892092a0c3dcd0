#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn rewritten(rewrites: Value, input: &[(&str, &str)]) -> Result<Vec<(String, String)>, RewriteError> {
    let rewrites: Vec<Rewrite> = serde_json::from_value(rewrites).unwrap();
    assert_eq!(check(&rewrites), Ok(()));
    let map = input
        .iter()
        .map(|(key, value)| ((*key).to_owned(), SecretBytes::from(*value)));
    let text = |value: SecretBytes| String::from_utf8(value.expose().to_vec()).unwrap();
    apply(&rewrites, map.collect())
        .map(|map| map.into_iter().map(|(key, value)| (key, text(value))).collect())
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn regexp(source: &str, target: &str) -> Value {
    json!({"regexp": {"source": source, "target": target}})
}

#[test]
fn regexps_rewrite_keys_as_go_does() {
    for (steps, input, output) in [
        (vec![regexp("-", "_")], "foo-bar", "foo_bar"),
        (vec![regexp("hello", "world")], "foo", "foo"),
        (
            vec![regexp("^my/initial/path/", "")],
            "my/initial/path/foo",
            "foo",
        ),
        (vec![regexp("f(.*)o", "a_new_path_$1")], "foo", "a_new_path_o"),
        (
            vec![regexp("f(.*)o", "a_new_path_$1")],
            "foodaloo",
            "a_new_path_oodalo",
        ),
        (
            vec![regexp("f(?P<content>.*)o", "a_new_path_${content}_${1}")],
            "floo",
            "a_new_path_lo_lo",
        ),
        (
            vec![
                regexp("my/(.*?)/bar/(.*)", "$1-$2"),
                regexp("-", "_"),
                regexp("ass", "***"),
            ],
            "my/app/bar/password",
            "app_p***word",
        ),
        (vec![regexp("(.*)", "my_$1")], "username", "my_username"),
        // `$1x` is the group of the name `1x`, which there is not; `$$` is a dollar sign.
        (vec![regexp("(a)", "$1x-${1}x-$$")], "a", "-ax-$"),
        (vec![regexp("\\w+", "W")], "é_a", "éW"),
    ] {
        assert_eq!(
            rewritten(json!(steps), &[(input, "v")]).unwrap(),
            owned(&[(output, "v")]),
            "{steps:?}"
        );
    }
}

#[test]
fn templates_transform_keys() {
    let steps = json!([
        regexp("my/(.*?)/bar/(.*)", "$1-$2"),
        {"transform": {"template": "{{ .value | upper | replace \"-\" \"_\" }}"}},
    ]);
    assert_eq!(
        rewritten(steps, &[("my/app/bar/key", "v")]).unwrap(),
        owned(&[("APP_KEY", "v")])
    );
}

#[test]
fn a_template_of_a_field_that_is_not_there_does_not_fail() {
    let steps = json!([{"transform": {"template": "{{ .value }}-{{ .other }}"}}]);
    assert_eq!(
        rewritten(steps, &[("a", "v")]).unwrap(),
        owned(&[("a-<no value>", "v")])
    );
}

#[test]
fn a_template_that_fails_names_the_key_and_not_the_value() {
    let steps = json!([{"transform": {"template": "{{ fail \"no\" }}"}}]);
    let error = rewritten(steps, &[("key1", "hunter2")]).unwrap_err().to_string();
    assert!(
        error.starts_with(
            "error applying rewrite to keys: failed rewrite operation[0]: transform failed with failed to execute \
             template for key \"key1\""
        ),
        "{error}"
    );
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn two_keys_that_become_one_are_an_error_that_names_them() {
    let steps = json!([regexp("x", "y"), regexp("[12]$", "")]);
    let error = rewritten(steps, &[("a1", "hunter2"), ("a2", "hunter2")])
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(
            "error applying rewrite to keys: failed rewrite operation[1]: the keys \"a1\" and \"a2\" both become \"a\""
        ),
        "{error}"
    );
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn keys_that_become_nothing_are_left_out() {
    let steps = json!([regexp("^drop.*", ""), regexp("^$", "found")]);
    assert_eq!(
        rewritten(steps, &[("drop1", "1"), ("drop2", "2"), ("keep", "3")]).unwrap(),
        owned(&[("keep", "3")])
    );
}

fn merge(fields: Value, input: &[(&str, &str)]) -> Result<Vec<(String, String)>, RewriteError> {
    rewritten(json!([{"merge": fields}]), input)
}

const MONGO: (&str, &str) = ("mongo-credentials", r#"{"username": "foz", "password": "baz"}"#);
const REDIS: (&str, &str) = (
    "redis-credentials",
    r#"{"host": "redis.example.com", "port": "6379"}"#,
);
const OTHER: (&str, &str) = (
    "other",
    r#"{"host": "<other>", "n": 1.0, "deep": {"n": 1e21, "t": "<"}}"#,
);

#[test]
fn disjoint_objects_become_one_map() {
    assert_eq!(
        merge(json!({}), &[MONGO, REDIS]).unwrap(),
        owned(&[
            ("host", "redis.example.com"),
            ("password", "baz"),
            ("port", "6379"),
            ("username", "foz")
        ])
    );
}

#[test]
fn objects_win_in_the_order_of_their_keys_and_priority_wins_over_all() {
    let input = [
        ("c", r#"{"v": "c"}"#),
        ("a", r#"{"v": "a"}"#),
        ("b", r#"{"v": "b"}"#),
    ];
    let with = |priority: Value| {
        merge(json!({"conflictPolicy": "Ignore", "priority": priority}), &input)
            .unwrap()
            .remove(0)
            .1
    };
    assert_eq!(with(json!([])), "c");
    assert_eq!(with(json!(["a"])), "a");
    assert_eq!(with(json!(["a", "b"])), "b");
    assert_eq!(with(json!(["c", "a"])), "a");
}

#[test]
fn conflicts_are_an_error_unless_they_are_ignored() {
    let error = merge(json!({}), &[OTHER, REDIS, MONGO]).unwrap_err().to_string();
    assert!(error.contains("merge failed with conflicts: host;"), "{error}");
    assert!(!error.contains("redis.example.com"), "{error}");
    let merged = merge(json!({"conflictPolicy": "Ignore"}), &[OTHER, REDIS]).unwrap();
    assert!(merged.contains(&("host".into(), "redis.example.com".into())));
}

#[test]
fn a_key_of_priority_that_is_missing_is_an_error_unless_it_is_ignored() {
    let error = merge(json!({"priority": ["none"]}), &[MONGO])
        .unwrap_err()
        .to_string();
    assert!(error.contains("key \"none\" not found in input map"), "{error}");
    let ignored = json!({"priority": ["none"], "priorityPolicy": "IgnoreNotFound"});
    assert_eq!(merge(ignored, &[MONGO]).unwrap().len(), 2);
}

#[test]
fn strategy_json_keeps_the_originals_and_adds_the_merged_object() {
    let merged = merge(json!({"strategy": "JSON", "into": "all"}), &[MONGO, OTHER]).unwrap();
    assert_eq!(
        merged[0],
        (
            "all".to_owned(),
            r#"{"deep":{"n":1e+21,"t":"<"},"host":"<other>","n":1,"password":"baz","username":"foz"}"#
                .to_owned()
        )
    );
    assert_eq!(merged[1..], owned(&[MONGO, OTHER]));
}

#[test]
fn extracted_values_have_the_forms_of_extract() {
    assert_eq!(
        merge(json!({"strategy": "Extract"}), &[OTHER]).unwrap(),
        owned(&[
            ("deep", r#"{"n":1e+21,"t":"\u003c"}"#),
            ("host", "<other>"),
            ("n", "1")
        ])
    );
}

#[test]
fn only_objects_can_be_merged() {
    for value in ["hunter2", r#"["hunter2"]"#, r#"{"hunter2""#, r#""hunter2""#] {
        let error = merge(json!({}), &[("key1", value)]).unwrap_err().to_string();
        assert!(
            error.contains("failed to unmarshal JSON: the value of key \"key1\"")
                && !error.contains("hunter2"),
            "{error}"
        );
    }
    assert_eq!(merge(json!({}), &[("a", "null")]).unwrap(), []);
}

#[test]
fn steps_work_on_what_the_steps_before_made() {
    let ignore = |further: Value| {
        let mut merge = json!({"conflictPolicy": "Ignore"});
        for (field, value) in further.as_object().unwrap() {
            merge[field] = value.clone();
        }
        json!({"merge": merge})
    };
    let (a, b) = (
        r#"{"host": "dba.example.com"}"#,
        r#"{"host": "dbb.example.com", "pass": "yolo"}"#,
    );
    let steps = json!([
        regexp("db/(.*)", "$1"),
        ignore(json!({"strategy": "JSON", "into": "merged", "priority": ["a"]})),
    ]);
    assert_eq!(
        rewritten(steps, &[("db/a", a), ("db/b", b)]).unwrap(),
        owned(&[
            ("a", a),
            ("b", b),
            ("merged", r#"{"host":"dba.example.com","pass":"yolo"}"#)
        ])
    );
    let steps = json!([
        ignore(json!({"strategy": "JSON", "into": "merged", "priority": ["a"]})),
        ignore(json!({"strategy": "Extract", "priority": ["b"]})),
    ]);
    let input = [
        ("a", r#"{"host": "dba", "pass": "yola", "port": 123}"#),
        ("b", r#"{"host": "dbb", "pass": "yolb"}"#),
    ];
    assert_eq!(
        rewritten(steps, &input).unwrap(),
        owned(&[("host", "dbb"), ("pass", "yolb"), ("port", "123")])
    );
}

#[test]
fn a_step_that_cannot_be_done_is_refused_by_its_field() {
    let good = regexp("a", "b");
    for (step, field) in [
        (regexp("(", "x"), "[1].regexp.source"),
        (
            json!({"transform": {"template": "{{ .value | nope }}"}}),
            "[1].transform.template",
        ),
        (json!({"merge": {"strategy": "JSON"}}), "[1].merge.into"),
        (json!({}), "[1]"),
        (
            json!({"merge": {}, "regexp": {"source": "a", "target": "b"}}),
            "[1]",
        ),
    ] {
        let rewrites: Vec<Rewrite> = serde_json::from_value(json!([good, step])).unwrap();
        assert_eq!(check(&rewrites).unwrap_err().0, field);
    }
}

#[test]
fn steps_share_their_time() {
    let step = json!({"transform": {"template": "{{ range until 1000 }}{{ end }}{{ .value }}"}});
    let steps = |count: usize| -> Vec<Rewrite> {
        let steps = (0..count).map(|_| serde_json::from_value(step.clone()).unwrap());
        steps.collect()
    };
    let map = || Map::from([("a".to_owned(), "b".into())]);
    let in_time = |steps: &[Rewrite]| apply_until(steps, map(), Instant::now() + Duration::from_millis(300));
    assert_eq!(in_time(&steps(1)), Ok(map()));
    let error = in_time(&steps(20_000)).unwrap_err();
    assert_eq!(error.fault, Fault::TooSlow);
    assert!(error.step > 1, "{error}");
}

proptest! {
    #[test]
    fn no_regexp_makes_it_panic_or_lose_a_key(source in ".{0,12}", target in "[$a{}1]{0,8}", keys in prop::collection::btree_set("[a-z/é]{1,6}", 0..5)) {
        let rewrite: Rewrite = serde_json::from_value(regexp(&source, &target)).unwrap();
        let map: Map = keys.iter().map(|key| (key.clone(), key.as_str().into())).collect();
        if check(std::slice::from_ref(&rewrite)).is_ok()
            && let Ok(renamed) = apply(std::slice::from_ref(&rewrite), map)
        {
            prop_assert!(renamed.len() <= keys.len() && !renamed.contains_key(""));
        }
    }

    #[test]
    fn no_value_makes_a_merge_panic(a in ".{0,16}", b in "\\{\"[ab]\":(1|\"x\"|null|\\[\\])\\}", into in "[ab]{0,1}", json in any::<bool>()) {
        let strategy = if json { MergeStrategy::Json } else { MergeStrategy::Extract };
        let rewrite = Rewrite {
            merge: Some(crate::api::external_secret::RewriteMerge {
                into: Some(into),
                strategy: Some(strategy),
                ..Default::default()
            }),
            ..Rewrite::default()
        };
        let map = Map::from([("a".into(), a.as_str().into()), ("b".into(), b.as_str().into())]);
        let _ = apply(&[rewrite], map);
    }
}
