#![allow(clippy::unwrap_used)]

use super::*;

fn v2(mount: Option<&str>) -> Kv {
    Kv {
        mount: mount.map(String::from),
        version: KvVersion::V2,
    }
}

fn v1(mount: Option<&str>) -> Kv {
    Kv {
        mount: mount.map(String::from),
        version: KvVersion::V1,
    }
}

fn reply(status: u16, body: &str) -> Reply {
    Reply {
        status,
        retry_after: None,
        body: body.as_bytes().to_vec().into(),
    }
}

fn answer(status: u16, body: &str) -> Result<Told, VaultError> {
    asked(Question::Value(None), status, body)
}

fn asked(question: Question, status: u16, body: &str) -> Result<Told, VaultError> {
    let path = v2(Some("secret")).locate("foo").unwrap();
    path.answer(question, reply(status, body))
}

fn v1_answer(status: u16, body: &str) -> Result<Told, VaultError> {
    let path = v1(Some("kv")).locate("foo").unwrap();
    path.answer(Question::Value(None), reply(status, body))
}

fn found(told: Result<Told, VaultError>) -> String {
    match told {
        Ok(Told::Found(json)) => json.to_go_string(),
        _ => unreachable!("it was not found"),
    }
}

fn data_path(kv: &Kv, key: &str) -> String {
    kv.locate(key).unwrap().policy_path(Question::Value(None))
}

#[test]
fn all_forms_of_a_key_name_one_secret() {
    for key in ["foo", "/foo", "secret/foo", "secret/data/foo"] {
        assert_eq!(data_path(&v2(Some("secret")), key), "secret/data/foo", "{key}");
        let metadata = v2(Some("secret")).locate(key).unwrap();
        assert_eq!(
            metadata.policy_path(Question::Metadata),
            "secret/metadata/foo",
            "{key}"
        );
    }
    for key in ["secret/foo", "secret/data/foo"] {
        assert_eq!(data_path(&v2(None), key), "secret/data/foo", "{key}");
    }
}

#[test]
fn paths_are_those_of_eso() {
    let mount = Some("secret/path");
    for (kv, key, path) in [
        (v2(mount), "secret/path/data/test", "secret/path/data/test"),
        (v2(mount), "secret/path/test", "secret/path/data/test"),
        (v2(mount), "test", "secret/path/data/test"),
        (v2(None), "secret/test/big/path", "secret/data/test/big/path"),
        (
            v2(None),
            "secret/test/data/not/the/first/and/data/twice",
            "secret/test/data/not/the/first/and/data/twice",
        ),
        (v1(mount), "secret/path/test", "secret/path/test"),
        (v1(mount), "test", "secret/path/test"),
        (v1(None), "secret/test", "secret/test"),
    ] {
        assert_eq!(data_path(&kv, key), path, "{key}");
    }
    let located = v2(None).locate("my_data/data/path").unwrap();
    assert_eq!(located.policy_path(Question::Metadata), "my_data/metadata/path");
}

#[test]
fn a_folder_may_be_the_whole_mount() {
    let list = |kv: &Kv, path: &str| kv.folder(path).unwrap().policy_path(Question::Names);
    let with = v2(Some("secret"));
    for path in ["", "/"] {
        assert_eq!(list(&with, path), "secret/metadata/*");
    }
    assert_eq!(list(&with, "app/"), "secret/metadata/app/*");
    assert_eq!(list(&with, "secret/data/app"), "secret/metadata/app/*");
    assert_eq!(list(&v2(None), "secret/data"), "secret/metadata/*");
    assert_eq!(list(&v2(None), "secret/app"), "secret/metadata/app/*");
    assert!(v2(None).folder("").is_err());
    assert!(v2(Some("secret")).folder("a/../b").is_err());
}

#[test]
fn what_stands_below_a_folder_is_not_taken_for_another_form_of_a_key() {
    let folder = v2(Some("secret")).folder("").unwrap();
    let below = |path: &str| folder.below(path).map(|p| p.policy_path(Question::Value(None)));
    assert_eq!(below("secret/foo").unwrap(), "secret/data/secret/foo");
    assert_eq!(below("data/x").unwrap(), "secret/data/data/x");
    assert!(below("a/../../b").is_err());
}

#[test]
fn metadata_are_texts_and_the_users_own_win() {
    let body = r#"{"data":{"custom_metadata":{"access_key":"a","created_time":"custom-time"},
        "created_time":"2020","current_version":2,"delete_version_after":"0s","max_versions":0,"cas_required":false}}"#;
    assert_eq!(
        found(asked(Question::Metadata, 200, body)),
        r#"{"access_key":"a","created_time":"custom-time","current_version":"2","delete_version_after":"0s"}"#
    );
    let none = r#"{"data":{"custom_metadata":null,"current_version":1}}"#;
    assert_eq!(
        found(asked(Question::Metadata, 200, none)),
        r#"{"current_version":"1"}"#
    );
}

#[test]
fn only_a_clean_not_found_counts_as_an_empty_folder() {
    assert!(matches!(
        asked(Question::Names, 404, r#"{"errors":[]}"#),
        Ok(Told::NotFound)
    ));
    let keys = r#"{"data":{"keys":["a","b/"]}}"#;
    assert!(matches!(asked(Question::Names, 200, keys), Ok(Told::Found(_))));
    for (status, body) in [
        (404, "<html>nginx</html>"),
        (404, r#"{"errors":[],"warnings":["Invalid path"]}"#),
        (200, r#"{"data":{"keys":[]}}"#),
        (200, r#"{"data":{"keys":[1]}}"#),
        (200, r#"{"data":{}}"#),
        (200, r#"{"data":null}"#),
        (200, "{}"),
        (403, "{}"),
        (503, "{}"),
    ] {
        assert!(asked(Question::Names, status, body).is_err(), "{status} {body}");
    }
}

#[test]
fn a_mount_with_slashes_keeps_them() {
    assert_eq!(data_path(&v2(Some("team/kv")), "team/kv/a/b"), "team/kv/data/a/b");
}

#[test]
fn a_key_that_leaves_the_mount_is_refused() {
    for key in ["../x", "a/../../x", "a/./b", "a\nb", "", "/"] {
        assert!(v2(Some("secret")).locate(key).is_err(), "{key:?}");
    }
}

#[test]
fn only_a_clean_not_found_counts_as_missing() {
    assert!(matches!(answer(404, r#"{"errors":[]}"#), Ok(Told::NotFound)));
    assert!(matches!(v1_answer(404, r#"{"errors":[]}"#), Ok(Told::NotFound)));
    let deleted = r#"{"data":{"data":null,"metadata":{"deletion_time":"x"}}}"#;
    for status in [200, 404] {
        assert!(matches!(answer(status, deleted), Ok(Told::NotFound)));
    }
    for body in [
        r#"{"errors":["no handler for route \"secret/data/foo\". route entry not found."]}"#,
        r#"{"errors":[],"warnings":["Invalid path for a versioned K/V secrets engine"]}"#,
        r#"{"errors":["something new"]}"#,
        "<html>nginx</html>",
        "",
        "{}",
    ] {
        assert!(answer(404, body).is_err(), "{body}");
    }
    for status in [400, 403, 405, 412, 429, 500, 502, 503] {
        assert!(answer(status, r#"{"errors":[]}"#).is_err(), "{status}");
    }
}

#[test]
fn an_answer_of_another_shape_is_an_error_and_not_an_empty_secret() {
    for body in [
        "",
        "[]",
        r#"{"data":{"password":"x"}}"#,
        r#"{"data":[]}"#,
        r#"{"data":null}"#,
        r#"{"data":{"data":[1]}}"#,
    ] {
        assert!(answer(200, body).is_err(), "{body}");
    }
}

#[test]
fn what_only_looks_like_a_not_found_deletes_nothing() {
    for (status, body) in [
        (200, "{}"),
        (200, r#"{"status":"ok"}"#),
        (200, r#"{"data":null}"#),
        (200, r#"{"data":null,"wrap_info":{"token":"x"}}"#),
        (200, r#"{"data":{"data":null}}"#),
        (
            200,
            r#"{"data":{"data":null,"metadata":{"deletion_time":"","destroyed":false}}}"#,
        ),
        (404, r#"{"data":null,"message":"no such page"}"#),
        (404, r#"{"errors":null}"#),
        (404, r#"{"errors":"no such page"}"#),
        (
            404,
            r#"{"data":{"data":null,"metadata":{"deletion_time":"","destroyed":false}}}"#,
        ),
    ] {
        assert!(answer(status, body).is_err(), "{status} {body}");
    }
}

#[test]
fn what_only_looks_like_metadata_empties_nothing() {
    for body in [
        "{}",
        r#"{"data":null}"#,
        r#"{"data":{}}"#,
        r#"{"data":{"custom_metadata":{"a":"b"}}}"#,
    ] {
        assert!(asked(Question::Metadata, 200, body).is_err(), "{body}");
    }
}

#[test]
fn a_page_for_people_casts_suspicion_and_a_body_that_ends_early_is_a_broken_connection() {
    for (status, body) in [
        (200, ""),
        (200, "<html>"),
        (404, ""),
        (404, "<html>"),
        (404, "{}"),
    ] {
        assert!(
            answer(status, body).is_err_and(|error| error == VaultError::NotVault && error.casts_suspicion())
        );
    }
    let half = answer(200, r#"{"data":{"data":{"pass"#);
    assert!(half.is_err_and(|error| error == VaultError::Unreachable(Unreachable::Broken)));
}

#[test]
fn a_refused_read_says_where_it_went_and_what_to_do() {
    let path = v2(Some("nowhere")).locate("foo").unwrap();
    let error = VaultError::of_status(404, None, br#"{"errors":["no handler for route \"x\""]}"#);
    assert_eq!(
        path.explain(Question::Value(None), &error),
        "Vault answered 404 (no handler for route) to the read of 'nowhere/data/foo': no engine is mounted there; enable \
         one, or correct the path of the store"
    );
}

#[test]
fn a_version_and_metadata_of_kv_v1_are_refused() {
    let path = v1(Some("kv")).locate("a").unwrap();
    assert!(path.call(Question::Value(Some(1))).is_err());
    let error = path.call(Question::Metadata).err().unwrap().to_string();
    assert!(
        error.starts_with("cannot perform metadata fetch operations with kv version v1"),
        "{error}"
    );
}

fn mounted(kind: &str, path: &str, version: Option<&str>) -> String {
    let options = version.map(|version| serde_json::json!({ "version": version }));
    serde_json::json!({"data": {"type": kind, "path": path, "options": options}}).to_string()
}

#[test]
fn what_a_store_does_not_find_is_missing_only_in_the_mount_and_the_version_that_it_names() {
    let paths = [
        v2(Some("team/kv")).locate("a").unwrap(),
        v1(Some("team/kv")).locate("a").unwrap(),
    ];
    let v2_engine = mounted("kv", "team/kv/", Some("2"));
    let v1_engine = mounted("kv", "team/kv/", None);
    let [confirmed, v1_confirmed] =
        paths.map(|path| move |status, body: &str| path.confirm_missing(reply(status, body), None));
    assert_eq!(confirmed(200, &v2_engine), Ok(()));
    for engine in [
        &v1_engine,
        &mounted("kv", "team/kv/", Some("1")),
        &mounted("generic", "team/kv/", None),
    ] {
        assert_eq!(v1_confirmed(200, engine), Ok(()));
        let error = confirmed(200, engine).err().unwrap().to_string();
        assert!(
            error.contains("'team/kv' is a KV v1 engine") && error.contains("set version: v1"),
            "{error}"
        );
    }
    let error = v1_confirmed(200, &v2_engine).err().unwrap().to_string();
    assert!(
        error.contains("'team/kv' is a KV v2 engine") && error.contains("set version: v2"),
        "{error}"
    );
    for (status, body, said) in [
        (200, &*mounted("cubbyhole", "team/kv/", None), "is no KV engine"),
        (
            200,
            &mounted("kv", "team/kv/", Some("3")),
            "an answer of unknown form",
        ),
        (
            200,
            r#"{"data":{"options":{"version":"2"},"type":"kv"}}"#,
            "an answer of unknown form",
        ),
        (
            200,
            r#"{"data":{"type":7,"x":"canary"}}"#,
            "an answer of unknown form",
        ),
        (
            200,
            &mounted("kv", "canary/", Some("2")),
            "an answer about another mount",
        ),
        (
            200,
            &mounted("kv", "team/k/", Some("2")),
            "an answer about another mount",
        ),
        (200, "<html>canary</html>", "an answer of unknown form"),
        (
            403,
            r#"{"errors":["preflight capability check returned 403"]}"#,
            "answered 403",
        ),
        (404, r#"{"errors":[]}"#, "nothing is taken for missing"),
        (503, "{}", "Vault answered 503"),
        (429, "{}", "limits the rate"),
    ] {
        for error in [confirmed(status, body), v1_confirmed(status, body)] {
            let error = error.err().unwrap().to_string();
            assert!(
                error.contains(said) && !error.contains("canary"),
                "{status} {body}: {error}"
            );
        }
    }
}

#[test]
fn a_folder_of_a_mount_is_no_mount_and_the_message_says_what_path_should_be() {
    let told = |kv: Kv, key: &str, found: &str, version| {
        let path = kv.locate(key).unwrap();
        let answer = reply(200, &mounted("kv", found, version));
        path.confirm_missing(answer, None).err().unwrap().to_string()
    };
    let two = Some("2");
    for (store, found, says) in [
        ("kv/data", "kv/", "set path: kv in the store"),
        ("kv/metadata", "kv/", "set path: kv in the store"),
        (
            "kv/data/team",
            "kv/",
            "set path: kv in the store, and begin its keys with 'team/'",
        ),
        (
            "kv/team/a",
            "kv/",
            "set path: kv in the store, and begin its keys with 'team/a/'",
        ),
        ("team/kv/data", "team/kv/", "set path: team/kv in the store"),
    ] {
        let wanted = format!(
            "Vault did not find it, but '{store}' is no mount: it lies inside mount '{}', so nothing is taken for \
             missing; {says}",
            found.trim_end_matches('/')
        );
        assert_eq!(told(v2(Some(store)), "app", found, two), wanted);
    }
    let says = "set path: kv in the store, and begin its keys with 'data/team/'";
    assert!(told(v1(Some("kv/data/team")), "app", "kv/", None).ends_with(says));
    // Without a path in the store, the key names the mount.
    let says = "set path: kv in the store, and begin its keys with 'a/'";
    assert!(told(v2(None), "kv/a/data/b", "kv/", two).ends_with(says));
}

#[test]
fn a_mount_of_a_namespace_is_named_as_its_store_names_it_or_from_the_root() {
    let path = v2(Some("team/kv")).locate("a").unwrap();
    let confirmed = |found: &str, namespace| {
        let answer = reply(200, &mounted("kv", found, Some("2")));
        path.confirm_missing(answer, namespace).is_ok()
    };
    for namespace in [None, Some("a"), Some("a/b/")] {
        assert!(confirmed("team/kv/", namespace), "{namespace:?}");
    }
    assert!(confirmed("a/b/team/kv/", Some("/a/b/")));
    assert!(!confirmed("a/b/team/kv/", Some("a")) && !confirmed("a/b/team/kv/", None));
    assert!(!confirmed("ateam/kv/", Some("a")) && !confirmed("team/kv/", Some("team")));
}

#[test]
fn numbers_booleans_and_null_stay_as_vault_sent_them() {
    let secret = r#"{"data":{"access_key":"a","access_secret":"s","token":null}}"#;
    assert_eq!(
        found(v1_answer(200, secret)),
        r#"{"access_key":"a","access_secret":"s","token":null}"#
    );
    let secret = r#"{"data":{"data":{"n":42,"b":true,"f":2.1234534153423423},"metadata":{"version":1}}}"#;
    assert_eq!(
        found(answer(200, secret)),
        r#"{"b":true,"f":2.1234534153423423,"n":42}"#
    );
    // Unlike for ESO, a 200 never means that a secret is gone: no Vault says so.
    assert!(v1_answer(200, r#"{"data":null}"#).is_err());
}

#[test]
fn keys_with_every_kind_of_character_stay_in_the_mount() {
    for key in [
        "a b",
        "50%",
        "a?b",
        "a#b",
        "a+b",
        "é",
        "🔑",
        "a%2Fb",
        "%2e%2e/x",
        "a\\..\\..\\sys",
        "a;b",
        "a:b",
        "a&b=c",
        "a..b",
        "...",
        "\"a\"",
        "[x]",
        "{x}",
        "a|b",
        "~a",
        "a*",
    ] {
        let path = v2(Some("secret")).locate(key).unwrap();
        let url = path
            .call(Question::Value(Some(3)))
            .unwrap()
            .url("http://h:1/vault");
        let (path, query) = url.split_once('?').unwrap();
        let told = path.strip_prefix("http://h:1/vault/v1/secret/data/").unwrap();
        let decoded = percent_encoding::percent_decode_str(told).decode_utf8().unwrap();
        assert_eq!(decoded, key, "{url}");
        assert_eq!(query, "version=3", "{url}");
    }
}
