//! The KV engines, read for real: where a key leads, what a value looks like, and what counts as missing.

use anyhow::{Result, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::scene::{Scene, one, play};

fn escaped(key: &str) -> String {
    let segments = key
        .split('/')
        .map(|segment| utf8_percent_encode(segment, NON_ALPHANUMERIC).to_string());
    segments.collect::<Vec<_>>().join("/")
}

impl Scene {
    /// One more ClusterSecretStore of this scene's Vault, for an engine; `None` for no path.
    async fn engine(&self, name: &str, path: Option<&str>, version: &str) -> Result<Value> {
        self.store_of(
            name,
            self.vault.address(),
            json!({"path": path, "version": version}),
        )
        .await
    }

    async fn data(&self, secret: &str) -> Result<Value> {
        Ok(self.get("secret", secret).await?["data"].clone())
    }
}

#[test]
fn a_key_is_found_in_all_its_forms_with_and_without_a_path_in_both_versions() {
    play(async {
        let scene = Scene::new("key-forms").await?;
        let kv = json!({"type": "kv", "options": {"version": "2"}});
        scene.vault.api("POST", "sys/mounts/team/a/kv", &kv).await?;
        let read = "capabilities = [\"read\", \"list\"]";
        let policy = format!(
            "path \"secret/*\" {{ {read} }}\npath \"kv1/*\" {{ {read} }}\npath \"team/a/kv/*\" {{ {read} }}"
        );
        scene
            .vault
            .api("PUT", "sys/policies/acl/eso-reader", &json!({"policy": policy}))
            .await?;
        scene.vault.put("deep/app", json!({"value": "v2"})).await?;
        scene
            .vault
            .api("POST", "kv1/deep/app", &json!({"value": "v1"}))
            .await?;
        // KV v2 upgrades its mount for a moment after it is made.
        keyferry_testbed::wait_for("the nested engine", crate::scene::SOON, || async {
            let data = json!({"data": {"value": "nested"}});
            scene
                .vault
                .api("POST", "team/a/kv/data/app", &data)
                .await
                .map(Some)
        })
        .await?;
        let engines = [
            (
                scene.engine("v2", Some("secret"), "v2").await?,
                "v2",
                vec![
                    "deep/app",
                    "/deep/app",
                    "secret/deep/app",
                    "secret/data/deep/app",
                    "deep//app/",
                ],
            ),
            (
                scene.engine("v2-slashes", Some("/secret/"), "v2").await?,
                "v2",
                vec!["deep/app"],
            ),
            (
                scene.engine("v2-none", None, "v2").await?,
                "v2",
                vec!["secret/deep/app", "secret/data/deep/app"],
            ),
            (
                scene.engine("v1", Some("kv1"), "v1").await?,
                "v1",
                vec!["deep/app", "kv1/deep/app", "/deep/app"],
            ),
            (
                scene.engine("v1-none", None, "v1").await?,
                "v1",
                vec!["kv1/deep/app"],
            ),
            (
                scene.engine("nested", Some("team/a/kv"), "v2").await?,
                "nested",
                vec!["app", "team/a/kv/app", "team/a/kv/data/app"],
            ),
            (
                scene.engine("nested-none", None, "v2").await?,
                "nested",
                vec!["team/a/kv/data/app"],
            ),
        ];
        for (i, (store, value, keys)) in engines.iter().enumerate() {
            let data: Vec<Value> = keys
                .iter()
                .enumerate()
                .map(|(j, key)| one(&format!("k{j}"), key, "value"))
                .collect();
            let name = format!("forms-{i}");
            let spec = json!({"refreshInterval": "1h", "secretStoreRef": store, "data": data});
            scene.external_secret(&name, spec).await?;
            for j in 0..keys.len() {
                scene.wait_value(&name, &format!("k{j}"), value).await?;
            }
        }
        // Without 'data' and without a path the mount is the first segment, as in ESO; that is not mounted here.
        let spec = json!({"secretStoreRef": engines[6].0, "data": [one("value", "team/a/kv/app", "value")]});
        scene.external_secret("wrong", spec).await?;
        scene
            .wait_ready(
                "externalsecret",
                "wrong",
                "False",
                "403 to the read of 'team/data/a/kv/app'",
            )
            .await
            .map(drop)
    });
}

#[test]
fn keys_with_unicode_and_characters_that_urls_escape_are_read() {
    play(async {
        let scene = Scene::new("key-chars").await?;
        let keys = [
            "with space",
            "50%",
            "what?",
            "a#b",
            "a+b",
            "café",
            "🔑",
            "a%2Fb",
            "x/%2e%2e/y",
            "a&b=c;d",
            "\"quoted\"",
            "a:b@c",
        ];
        for key in keys {
            scene
                .vault
                .put(&escaped(key), json!({"value": format!("of {key}")}))
                .await?;
            scene
                .vault
                .api(
                    "POST",
                    &format!("kv1/{}", escaped(key)),
                    &json!({"value": format!("v1 of {key}")}),
                )
                .await?;
        }
        let data: Vec<Value> = keys
            .iter()
            .enumerate()
            .map(|(i, key)| one(&format!("k{i}"), key, "value"))
            .collect();
        let v1 = scene.engine("v1", Some("kv1"), "v1").await?;
        scene
            .external_secret("v1", json!({"secretStoreRef": v1, "data": data}))
            .await?;
        scene.external_secret("v2", json!({"data": data})).await?;
        for (i, key) in keys.iter().enumerate() {
            scene
                .wait_value("v2", &format!("k{i}"), &format!("of {key}"))
                .await?;
            scene
                .wait_value("v1", &format!("k{i}"), &format!("v1 of {key}"))
                .await?;
        }
        // A search walks through the same names.
        let find = json!({"find": {"name": {"regexp": "^(a%2Fb|café|what\\?)$"}}, "rewrite": [
            {"transform": {"template": "{{ .value | sha256sum | trunc 8 }}"}},
        ]});
        scene
            .external_secret("found", json!({"dataFrom": [find]}))
            .await?;
        scene
            .wait_ready("externalsecret", "found", "True", "secret synced")
            .await?;
        let found = scene.data("found").await?;
        ensure!(
            found.as_object().is_some_and(|found| found.len() == 3),
            "{:?}",
            found.as_object().map(|d| d.len())
        );

        for (name, key, said) in [
            ("up", "../sys/x", "has a `..` segment"),
            ("dot", "a/./b", "a '.' or '..' segment"),
        ] {
            scene
                .external_secret(name, json!({"data": [one("value", key, "value")]}))
                .await?;
            scene.wait_ready("externalsecret", name, "False", said).await?;
        }
        Ok(())
    });
}

/// The rows of ESO's table of reads, on real engines.
#[test]
fn numbers_booleans_null_and_nested_values_look_as_eso_renders_them() {
    play(async {
        let scene = Scene::new("values").await?;
        let secret = r#"{"access_key":"access_key","big":12345678901234567890,"exp":1e3,"float":2.1234534153423423,"html":"<a&b>",
            "list":["x","y"],"nested":{"foo":"oke","bar":"in the object","deep":{"z":1,"a":"yada yada"}},"nested.bar":"something different",
            "no":false,"number":42,"one":1.0,"token":null,"yes":true}"#;
        let secret: Box<serde_json::value::RawValue> = serde_json::from_str(secret)?;
        for (path, body) in [
            ("secret/data/app", format!("{{\"data\":{secret}}}")),
            ("kv1/app", secret.to_string()),
        ] {
            // As it is written here: a library would write the numbers anew.
            let url = format!("{}/v1/{path}", scene.vault.address());
            let request = reqwest::Client::new()
                .post(url)
                .header("X-Vault-Token", scene.vault.root_token());
            request.body(body).send().await?.error_for_status()?;
        }
        let rows = [
            ("access_key", "access_key"),
            ("nested.foo", "oke"),
            ("nested.bar", "something different"),
            ("number", "42"),
            ("float", "2.1234534153423423"),
            ("yes", "true"),
            ("no", "false"),
            ("html", "<a&b>"),
            ("list", r#"["x","y"]"#),
            ("list.1", "y"),
            ("nested.deep", r#"{"a":"yada yada","z":1}"#),
            ("nested.deep.z", "1"),
        ];
        let whole = r#"{"access_key":"access_key","big":BIG,"exp":EXP,"float":2.1234534153423423,"html":"\u003ca\u0026b\u003e","list":["x","y"],"nested":{"bar":"in the object","deep":{"a":"yada yada","z":1},"foo":"oke"},"nested.bar":"something different","no":false,"number":42,"one":ONE,"token":null,"yes":true}"#;
        let extracted = [
            ("access_key", "access_key"),
            ("number", "42"),
            ("one", "1"),
            ("exp", "1000"),
            ("float", "2.1234534153423423"),
            ("yes", "true"),
            ("html", "<a&b>"),
            ("nested.bar", "something different"),
            ("list", r#"["x","y"]"#),
            (
                "nested",
                r#"{"bar":"in the object","deep":{"a":"yada yada","z":1},"foo":"oke"}"#,
            ),
        ];
        // KV v2 itself makes floats of all numbers; KV v1 keeps them as they were written.
        let written = [("BIG", "12345678901234567890"), ("EXP", "1e3"), ("ONE", "1.0")];
        let rounded = [("BIG", "12345678901234567000"), ("EXP", "1000"), ("ONE", "1")];
        for (name, store, numbers) in [
            ("v1", scene.engine("v1", Some("kv1"), "v1").await?, written),
            ("v2", scene.engine("v2", Some("secret"), "v2").await?, rounded),
        ] {
            let mut data: Vec<Value> = rows
                .iter()
                .enumerate()
                .map(|(i, (property, _))| one(&format!("k{i}"), "app", property))
                .collect();
            data.push(json!({"secretKey": "whole", "remoteRef": {"key": "app"}}));
            data.push(one("null", "app", "token"));
            for (key, _) in numbers {
                data.push(one(key, "app", &key.to_lowercase()));
            }
            scene
                .external_secret(name, json!({"secretStoreRef": store, "data": data}))
                .await?;
            for (i, (property, value)) in rows.iter().enumerate() {
                scene
                    .wait_value(name, &format!("k{i}"), value)
                    .await
                    .map_err(|e| e.context(*property))?;
            }
            let mut text = whole.to_string();
            for (key, value) in numbers {
                scene.wait_value(name, key, value).await?;
                text = text.replace(key, value);
            }
            scene.wait_value(name, "whole", &text).await?;
            ensure!(scene.data(name).await?["null"] == "", "null is an empty value");

            let of = format!("{name}-extract");
            let spec = json!({"secretStoreRef": store, "dataFrom": [{"extract": {"key": "app"}}]});
            scene.external_secret(&of, spec).await?;
            for (key, value) in extracted {
                scene.wait_value(&of, key, value).await?;
            }
            ensure!(scene.data(&of).await?["token"] == "", "null is an empty value");
            let of = format!("{name}-nested");
            let spec = json!({"secretStoreRef": store, "dataFrom": [{"extract": {"key": "app", "property": "nested.deep"}}]});
            scene.external_secret(&of, spec).await?;
            scene.wait_value(&of, "a", "yada yada").await?;

            let of = format!("{name}-none");
            let spec = json!({"secretStoreRef": store, "data": [one("x", "app", "nop.doesnt.exist")]});
            scene.external_secret(&of, spec).await?;
            scene
                .wait_ready(
                    "externalsecret",
                    &of,
                    "False",
                    "cannot find secret data for key: \"nop.doesnt.exist\"",
                )
                .await?;
        }
        Ok(())
    });
}

#[test]
fn deleted_and_destroyed_versions_are_missing_and_older_ones_are_not() {
    play(async {
        let scene = Scene::new("versions").await?;
        for value in ["one", "two", "three"] {
            scene.vault.put("app", json!({"value": value})).await?;
            scene.vault.put("gone", json!({"value": value})).await?;
        }
        let read = |key: &str, version: Option<&str>| {
            json!({"refreshInterval": "1h", "target": {"deletionPolicy": "Delete"}, "data": [
                {"secretKey": "value", "remoteRef": {"key": key, "property": "value", "version": version}},
            ]})
        };
        scene.external_secret("latest", read("app", None)).await?;
        scene.external_secret("second", read("app", Some("2"))).await?;
        scene.external_secret("first", read("app", Some("1"))).await?;
        scene.external_secret("whole", read("gone", None)).await?;
        for (name, value) in [
            ("latest", "three"),
            ("second", "two"),
            ("first", "one"),
            ("whole", "three"),
        ] {
            scene.wait_value(name, "value", value).await?;
        }
        scene.vault.delete("app").await?;
        scene
            .vault
            .api("PUT", "secret/destroy/app", &json!({"versions": [2]}))
            .await?;
        scene
            .vault
            .api("DELETE", "secret/metadata/gone", &Value::Null)
            .await?;
        let mark = scene.vault.audit_mark();
        for name in ["latest", "second", "first", "whole"] {
            scene.force_sync(name).await?;
        }
        for name in ["latest", "second", "whole"] {
            scene.wait_gone("secret", name).await?;
            scene
                .wait_ready("externalsecret", name, "True", "SecretDeleted")
                .await?;
        }
        scene.wait_value("first", "value", "one").await?;
        // Only what is gone without a trace makes us ask for the kind of the mount, and once.
        scene.force_sync("whole").await?;
        scene.vault.put("app", json!({"value": "four"})).await?;
        scene.force_sync("latest").await?;
        scene.wait_value("latest", "value", "four").await?;
        let asked = scene.vault.requests_since(mark)?;
        let mounts = asked
            .get("sys/internal/ui/mounts/secret")
            .copied()
            .unwrap_or_default();
        ensure!(mounts == 1, "{asked:?}");
        // A version that never was.
        scene.external_secret("ninth", read("app", Some("9"))).await?;
        scene.wait_gone("secret", "ninth").await?;
        scene
            .wait_ready("externalsecret", "ninth", "True", "SecretDeleted")
            .await
            .map(drop)
    });
}

#[test]
fn a_wrong_version_of_the_engine_deletes_nothing() {
    play(async {
        let scene = Scene::new("wrong-version").await?;
        scene
            .vault
            .api("POST", "kv1/app/one", &json!({"value": "v1"}))
            .await?;
        scene.vault.put("app/one", json!({"value": "v2"})).await?;
        let v1 = scene.engine("one", Some("kv1"), "v1").await?;
        let v2 = scene.engine("two", Some("secret"), "v2").await?;
        let delete = json!({"deletionPolicy": "Delete"});
        for (name, store) in [("one", &v1), ("two", &v2)] {
            let spec = json!({"refreshInterval": "1h", "secretStoreRef": store, "target": delete, "data": [one("value", "app/one", "value")]});
            scene.external_secret(name, spec).await?;
            let spec = json!({"refreshInterval": "1h", "secretStoreRef": store, "target": delete, "dataFrom": [{"find": {"path": "app"}}]});
            scene.external_secret(&format!("{name}-find"), spec).await?;
        }
        scene.wait_value("one", "value", "v1").await?;
        scene.wait_value("two", "value", "v2").await?;
        scene
            .wait_value("one-find", "app_one", r#"{"value":"v1"}"#)
            .await?;
        scene
            .wait_value("two-find", "app_one", r#"{"value":"v2"}"#)
            .await?;

        scene.engine("one", Some("kv1"), "v2").await?;
        scene.engine("two", Some("secret"), "v1").await?;
        for (name, said) in [
            (
                "one",
                "mount 'kv1' is a KV v1 engine, and the store says version v2; set version: v1",
            ),
            ("one-find", "mount 'kv1' is a KV v1 engine"),
            ("two", "does the store's version (v1 or v2) fit the engine?"),
            ("two-find", "does the store's version (v1 or v2) fit the engine?"),
        ] {
            scene.force_sync(name).await?;
            scene.wait_ready("externalsecret", name, "False", said).await?;
        }
        scene.wait_value("one", "value", "v1").await?;
        scene.wait_value("two", "value", "v2").await?;
        scene
            .wait_value("one-find", "app_one", r#"{"value":"v1"}"#)
            .await?;
        scene.wait_value("two-find", "app_one", r#"{"value":"v2"}"#).await
    });
}

#[test]
fn a_secret_of_a_million_bytes_is_carried_and_what_no_secret_can_hold_is_refused_clearly() {
    play(async {
        let scene = Scene::new("large").await?;
        // Vault's own storage takes 1 MiB, with all that its JSON escapes.
        let values = ["x".repeat(1_040_000), "abcdefgh<\"é".repeat(55_000)];
        for (i, value) in values.iter().enumerate() {
            scene
                .vault
                .put(&format!("large/{i}"), json!({"value": value}))
                .await?;
            let name = format!("fits-{i}");
            let spec = json!({"data": [one("value", &format!("large/{i}"), "value")]});
            scene.external_secret(&name, spec).await?;
            scene
                .wait_ready("externalsecret", &name, "True", "secret synced")
                .await?;
            let carried = scene.value(&name, "value").await?;
            ensure!(carried.as_ref() == Some(value), "{i} was not carried whole");
        }
        let spec = json!({"data": [one("a", "large/0", "value"), one("b", "large/1", "value")]});
        scene.external_secret("too-much", spec).await?;
        let message = scene
            .wait_ready(
                "externalsecret",
                "too-much",
                "False",
                "a Secret holds at most 1048576",
            )
            .await?;
        ensure!(message.len() < 1000 && !message.contains("xxx"), "{message}");
        Ok(())
    });
}

#[test]
fn whoever_may_read_one_secret_may_learn_the_kind_of_its_mount() {
    play(async {
        let scene = Scene::new("mount-rights").await?;
        // What is not found is asked for once a minute and identity: each policy needs a store of its own.
        for (i, path) in [
            "secret/data/none",
            "secret/data/+",
            "+/data/none",
            "+/+/none",
            "sec*",
        ]
        .iter()
        .enumerate()
        {
            let policy = format!("path \"{path}\" {{ capabilities = [\"read\"] }}");
            scene
                .vault
                .api("PUT", "sys/policies/acl/eso-reader", &json!({"policy": policy}))
                .await?;
            let store = scene.engine(&format!("s{i}"), Some("secret"), "v2").await?;
            let name = format!("none-{i}");
            let spec = json!({"secretStoreRef": store, "target": {"deletionPolicy": "Delete"}, "data": [one("value", "none", "value")]});
            scene.external_secret(&name, spec).await?;
            scene
                .wait_ready("externalsecret", &name, "True", "SecretDeleted")
                .await?;
        }
        Ok(())
    });
}
