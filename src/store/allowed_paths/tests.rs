#![allow(clippy::unwrap_used)]

use super::*;
use crate::api::vault::KvVersion;
use crate::vault::kv::{Kv, Question};
use proptest::prelude::*;

fn allows(text: &str, namespace: &str, path: &str) -> bool {
    AllowedPaths::compile(text).unwrap().allow(namespace, path)
}

#[test]
fn a_pattern_allows_the_paths_that_it_describes_and_no_other() {
    for (pattern, yes, no) in [
        (
            "app",
            &["app"][..],
            &["App", "app2", "ap", "app/x", "x/app", ""][..],
        ),
        ("a/b", &["a/b"], &["a", "b", "a/b/c", "a-b"]),
        ("a/*", &["a/b", "a/ü", "a/*"], &["a", "a/b/c", "b/b"]),
        ("*", &["a"], &["a/b", ""]),
        (
            "a/db-*",
            &["a/db-", "a/db-main"],
            &["a/db", "a/x-db-main", "a/db-main/x"],
        ),
        ("*-ro", &["x-ro", "-ro"], &["ro", "x-ro-y", "x-ro/y"]),
        (
            "a*b*c",
            &["abc", "a1b2c", "abbcc"],
            &["ab", "acb", "abcd", "a/b/c"],
        ),
        ("a*a", &["aa", "aba"], &["a"]),
        ("a/**", &["a/b", "a/b/c/d"], &["a", "ab", "b/a/c"]),
        ("**", &["a", "a/b/c"], &[""]),
        ("**/x", &["x", "a/x", "a/b/x"], &["xx", "x/y", "a/xx"]),
        (
            "a/**/z",
            &["a/z", "a/b/z", "a/b/c/z", "a/z/z"],
            &["a", "z", "a/z/b"],
        ),
        ("a/**/**/z", &["a/z", "a/b/z"], &["a"]),
        ("a?b", &["a?b"], &["axb"]),
        ("[a]/(b|c).+", &["[a]/(b|c).+"], &["a/b", "a/bb"]),
        ("a b/ü", &["a b/ü"], &["a/ü", "a b/u"]),
        ("a%2Fb", &["a%2Fb"], &["a/b"]),
    ] {
        for path in yes {
            assert!(allows(pattern, "ns", path), "{pattern} {path}");
        }
        for path in no {
            assert!(!allows(pattern, "ns", path), "{pattern} {path}");
        }
    }
}

#[test]
fn the_namespace_is_put_in_as_plain_text_anywhere_in_a_segment() {
    let text = "tenants/{{namespace}}/**\nshared/{{namespace}}-*\n";
    assert!(allows(text, "a", "tenants/a/db"));
    assert!(allows(text, "a", "shared/a-tls"));
    for path in [
        "tenants/b/db",
        "tenants/aa/db",
        "tenants/{{namespace}}/db",
        "shared/b-tls",
        "tenants/a",
    ] {
        assert!(!allows(text, "a", path), "{path}");
    }
    // No namespace has such a name; if one had, it would be no pattern all the same.
    assert!(!allows(text, "*", "tenants/b/db"));
    assert!(!allows(text, "**", "tenants/b/db"));
    assert!(!allows(text, "b/c", "tenants/b/c/db"));
}

#[test]
fn lines_are_alternatives_and_comments_do_not_count() {
    let text = "# what is shared\n\n  shared/*  \r\n#tenants/**\none\n";
    assert!(allows(text, "a", "shared/x") && allows(text, "a", "one"));
    assert!(!allows(text, "a", "tenants/x") && !allows(text, "a", "#tenants/x"));
}

#[test]
fn an_annotation_without_patterns_allows_nothing() {
    for text in ["", "\n\n", "# nothing yet\n"] {
        let none = AllowedPaths::compile(text).unwrap();
        assert!(none.is_empty());
        assert!(!none.allow("a", "app") && !none.allow("a", "") && !none.lead_through("a", ""));
    }
}

#[test]
fn what_is_no_pattern_is_named_with_its_line_and_the_reason() {
    for (text, line, why) in [
        ("a\n/b", 2, "empty segment"),
        ("a//b", 1, "empty segment"),
        ("\n# x\na/", 3, "write ** behind it"),
        ("a/../b", 1, "'..' segment"),
        ("./a", 1, "'.' or '..'"),
        ("a**", 1, "whole segments"),
        ("a/***", 1, "whole segments"),
        ("{{ namespace }}/a", 1, "something else than {{namespace}}"),
        ("{{name}}/a", 1, "something else than {{namespace}}"),
        ("{{{namespace}}}}", 1, "something else than {{namespace}}"),
        ("a\tb", 1, "control characters"),
    ] {
        let error = AllowedPaths::compile(text).unwrap_err();
        assert!(
            error.starts_with(&format!("annotation keyferry.dev/allowed-paths, line {line}: '"))
                && error.contains(why),
            "{text:?}: {error}"
        );
    }
    let many = "a\n".repeat(1_001);
    assert!(
        AllowedPaths::compile(&many)
            .unwrap_err()
            .contains("more than 1000 patterns")
    );
}

#[test]
fn an_annotation_that_would_take_long_to_judge_is_refused_with_what_is_too_much() {
    let stars = "**/a/".repeat(40_000);
    let long = "a".repeat(LENGTH_MAX + 1);
    let many = format!("{}\n", ["x"; SEGMENTS_MAX].join("/")).repeat(PATTERNS_MAX);
    for (text, why) in [
        (stars.as_str(), "longer than 1024 bytes"),
        (&long, "longer than 1024 bytes"),
        (&"a/".repeat(SEGMENTS_MAX + 1), "ends with '/'"),
        (&["a"; SEGMENTS_MAX + 1].join("/"), "more than 64 segments"),
        (&"a*".repeat(STARS_MAX + 1), "more than 8 '*' in one segment"),
        (&many, "more than 8000 segments together"),
    ] {
        let error = AllowedPaths::compile(text).unwrap_err();
        assert!(error.contains(why) && error.len() < 500, "{error}");
    }
}

#[test]
fn the_worst_annotation_and_path_are_judged_in_a_bounded_number_of_comparisons() {
    // Each pattern fits nearly to its end at every place; with backtracking this would take longer than the sun lasts.
    let line = format!("{}b", "**/a/a/a/".repeat(SEGMENTS_MAX / 4 - 1));
    let text = format!("{line}\n").repeat(TOGETHER_MAX / line.split('/').count());
    let allowed = AllowedPaths::compile(&text).unwrap();
    let path = ["a"; SEGMENTS_MAX].join("/");
    let begin = std::time::Instant::now();
    assert!(!allowed.allow("ns", &path));
    // What that takes at most, beside as many plain comparisons.
    let (judged, begin) = (begin.elapsed(), std::time::Instant::now());
    let one = Segment(vec!["a".into()]);
    let fits = (0..TOGETHER_MAX * SEGMENTS_MAX)
        .filter(|_| std::hint::black_box(&one).fits("ns", std::hint::black_box("a")));
    assert_eq!(fits.count(), TOGETHER_MAX * SEGMENTS_MAX);
    let reference = begin.elapsed();
    assert!(judged < 5 * reference, "{judged:?}, {reference:?}");
    assert!(!allowed.allow("ns", &vec!["b"; SEGMENTS_MAX + 1].join("/")));
    assert!(
        !AllowedPaths::compile("**")
            .unwrap()
            .allow("ns", &"b/".repeat(1_000_000))
    );
}

#[tokio::test]
async fn others_get_their_turn_while_many_names_are_judged() {
    let text = "**/x/y/z\n".repeat(1_000);
    let allowed = AllowedPaths::compile(&text).unwrap();
    let names = vec![Json::String("name".into()); 10_000];
    let turns = std::cell::Cell::new(0);
    let others = async {
        loop {
            turns.set(turns.get() + 1);
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        shown = allowed.shown("ns", "folder", &names) => assert!(shown.is_empty()),
        () = others => {}
    }
    assert!(turns.get() > 1_000, "{} turns", turns.get());
}

#[test]
fn only_folders_that_may_hold_something_allowed_lead_further() {
    let text = "tenants/{{namespace}}/**\nshared/*/tls\n**/public\n".replace("**/public\n", "");
    let allowed = AllowedPaths::compile(&text).unwrap();
    for folder in [
        "",
        "tenants",
        "tenants/a",
        "tenants/a/x/y/",
        "shared",
        "shared/x/",
    ] {
        assert!(allowed.lead_through("a", folder), "{folder}");
    }
    for folder in ["tenants/b", "other", "shared/x/tls", "shared/x/y", "tenant"] {
        assert!(!allowed.lead_through("a", folder), "{folder}");
    }
    assert!(
        AllowedPaths::compile("**/public")
            .unwrap()
            .lead_through("a", "any/where")
    );
}

#[test]
fn names_that_a_namespace_may_not_know_are_not_shown() {
    let allowed = AllowedPaths::compile("tenants/{{namespace}}/**\ntenants/{{namespace}}-note\n").unwrap();
    let names: Vec<Json> = ["a/", "b/", "a", "a-note", "b-note", "a-note/"]
        .iter()
        .map(|name| Json::String((*name).into()))
        .collect();
    let shown = |folder: &str| -> Vec<String> {
        let shown = futures::executor::block_on(allowed.shown("a", folder, &names));
        shown
            .iter()
            .filter_map(|name| name.as_str().map(String::from))
            .collect()
    };
    assert_eq!(shown("tenants"), ["a/", "a-note"]);
    assert_eq!(shown(""), Vec::<String>::new());
    assert_eq!(shown("tenants/a").len(), names.len());
}

#[test]
fn the_path_is_judged_below_the_mount_however_the_key_is_written_and_with_the_mount_if_the_store_names_none()
{
    let kv = |mount: Option<&str>| Kv {
        mount: mount.map(String::from),
        version: KvVersion::V2,
    };
    let within = |mount: Option<&str>, key: &str| kv(mount).locate(key).unwrap().within(&kv(mount));
    for key in [
        "a/db",
        "/a/db",
        "a//db/",
        "secret/a/db",
        "secret/data/a/db",
        "/secret/data/a//db",
    ] {
        assert_eq!(within(Some("secret"), key), "a/db", "{key}");
    }
    for key in ["secret/a/db", "secret/data/a/db", "/secret/a//db/"] {
        assert_eq!(within(None, key), "secret/a/db", "{key}");
    }
    for key in ["a/../b", "a/./b", "a/..", "a\n/b", "a\0"] {
        assert!(kv(Some("secret")).locate(key).is_err(), "{key:?}");
    }
    // They are escaped in the request, and so no separators and no dots.
    for key in ["a%2Fdb", "a/%2e%2e/b", "a\\..\\b", "a?b", "a#b", "a;b"] {
        assert_eq!(within(Some("secret"), key), key);
    }
}

fn stores() -> impl Strategy<Value = Kv> {
    let mounts = prop::sample::select(vec![
        None,
        Some("secret"),
        Some("secret/tenants"),
        Some("/secret/"),
    ]);
    let versions = prop::sample::select(vec![KvVersion::V1, KvVersion::V2]);
    (mounts, versions).prop_map(|(mount, version)| Kv {
        mount: mount.map(String::from),
        version,
    })
}

fn keys() -> impl Strategy<Value = String> {
    let pieces = vec![
        "/",
        "//",
        ".",
        "..",
        "%2e",
        "%2E%2e",
        "%2F",
        "%252f",
        "\\",
        "?",
        "#",
        ";",
        "*",
        "**",
        " ",
        "\t",
        "\n",
        "\0",
        "\u{202e}",
        "é",
        "\u{ff0f}",
        "secret",
        "data",
        "metadata",
        "tenants",
        "a",
        "b",
        "{{namespace}}",
        "db",
        "&list=true",
    ];
    // Most random texts lie far from any tenant: many begin where one is.
    let begins = vec![
        "",
        "tenants/a/",
        "/secret/tenants/a/",
        "secret/data/tenants/a/",
        "secret/tenants/data/a/",
        "a/",
    ];
    let pieces = prop::collection::vec(prop::sample::select(pieces), 0..12);
    (prop::sample::select(begins), pieces).prop_map(|(begin, pieces)| begin.to_string() + &pieces.concat())
}

fn questions() -> impl Strategy<Value = Question> {
    prop::sample::select(vec![
        Question::Value(None),
        Question::Value(Some(1)),
        Question::Metadata,
        Question::Names,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn however_a_key_is_written_what_vault_is_asked_for_lies_within_the_tenants_folder(
        kv in stores(), key in keys(), question in questions(),
    ) {
        let pattern = match kv.mount.as_deref() {
            None => "secret/tenants/{{namespace}}/**",
            Some("secret/tenants") => "{{namespace}}/**",
            Some(_) => "tenants/{{namespace}}/**",
        };
        let allowed = AllowedPaths::compile(pattern).unwrap();
        if let Ok(path) = kv.locate(&key) && allowed.allow("a", &path.within(&kv)) {
            let asked = path.policy_path(question);
            let asked: Vec<&str> = segments(asked.trim_end_matches("/*")).collect();
            prop_assert!(!asked.contains(&"..") && !asked.contains(&"."));
            let before = asked.iter().take_while(|segment| **segment != "a");
            let before: Vec<&str> = before.copied().filter(|part| !["data", "metadata"].contains(part)).collect();
            prop_assert_eq!(before, ["secret", "tenants"]);
        }
    }

    #[test]
    fn a_path_is_allowed_exactly_if_every_folder_on_the_way_leads_to_it_and_its_name_is_shown(
        pattern in "(a|b|\\*|a\\*|\\*\\*)(/(a|b|\\*|a\\*|\\*\\*)){0,4}", path in "(a|b|ab)(/(a|b|ab)){0,5}",
    ) {
        let allowed = AllowedPaths::compile(&pattern).unwrap();
        let mut way = vec![];
        let mut visible = true;
        let all: Vec<&str> = path.split('/').collect();
        for (i, segment) in all.iter().enumerate() {
            visible &= allowed.lead_through("ns", &way.join("/"));
            let end = if i + 1 == all.len() { "" } else { "/" };
            let name = Json::String(format!("{segment}{end}"));
            visible &= futures::executor::block_on(allowed.shown("ns", &way.join("/"), &[name])).len() == 1;
            way.push(*segment);
        }
        prop_assert_eq!(visible, allowed.allow("ns", &path));
    }

    #[test]
    fn patterns_agree_with_regular_expressions_that_say_the_same(
        pattern in "(a|b|\\*|a\\*|\\*b|a\\*b\\*|\\*\\*)(/(a|b|\\*|a\\*|\\*b|\\*\\*)){0,4}", path in "[abc]{1,3}(/[abc]{1,3}){0,5}",
    ) {
        let mut expression = String::from("^");
        let parts: Vec<&str> = pattern.split('/').collect();
        for (i, part) in parts.iter().enumerate() {
            let last = i + 1 == parts.len();
            expression += &match *part {
                "**" if last => "(?:[^/]+/)*[^/]+".to_string(),
                "**" => "(?:[^/]+/)*".to_string(),
                text => format!("{}{}", text.replace('*', "[^/]*"), if last { "" } else { "/" }),
            };
        }
        let expression = regex::Regex::new(&(expression + "$")).unwrap();
        prop_assert_eq!(allows(&pattern, "ns", &path), expression.is_match(&path), "{}", expression);
    }

    #[test]
    fn no_annotation_and_no_path_makes_it_panic(text in "\\PC*(\n\\PC*){0,3}", namespace in "\\PC*", path in "\\PC*") {
        if let Ok(allowed) = AllowedPaths::compile(&text) {
            let _ = allowed.allow(&namespace, &path);
            let _ = allowed.lead_through(&namespace, &path);
        }
    }
}
