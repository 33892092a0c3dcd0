//! What is fetched beyond single secrets, and how it is shaped: find, rewrite, metadata, versions, several stores,
//! and the windows in which it may happen.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use keyferry_testbed::wait_for;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::scene::{SOON, Scene, one, play};

/// What the policy of the testbed allows, and that one secret must not be read.
const WITHOUT_HIDDEN: &str = "path \"secret/*\" { capabilities = [\"read\", \"list\"] }\n\
                              path \"secret/data/app/hidden\" { capabilities = [\"deny\"] }";
const WITH_ALL: &str = "path \"secret/*\" { capabilities = [\"read\", \"list\"] }";

impl Scene {
    async fn find(&self, name: &str, entry: Value) -> Result<()> {
        let spec = json!({"refreshInterval": "1h", "dataFrom": [entry]});
        self.external_secret(name, spec).await
    }

    /// Waits until a Secret holds these keys and no others.
    async fn wait_keys(&self, secret: &str, wanted: &[&str]) -> Result<()> {
        wait_for(&format!("keys {wanted:?} of Secret {secret}"), SOON, || async {
            let secret = self.get("secret", secret).await?;
            let data = secret["data"].as_object().cloned().unwrap_or_default();
            let keys: Vec<&String> = data.keys().collect();
            ensure!(keys == wanted, "it has {keys:?}");
            Ok(Some(()))
        })
        .await
    }

    async fn tag(&self, path: &str, tags: Value) -> Result<()> {
        let body = json!({"custom_metadata": tags});
        self.vault
            .api("POST", &format!("secret/metadata/{path}"), &body)
            .await
            .map(drop)
    }

    async fn policy(&self, text: &str) -> Result<()> {
        self.vault
            .api("PUT", "sys/policies/acl/eso-reader", &json!({"policy": text}))
            .await
            .map(drop)
    }

    /// Removes a secret with all its versions, so that its folder no longer names it.
    async fn destroy(&self, path: &str) -> Result<()> {
        self.vault
            .api("DELETE", &format!("secret/metadata/{path}"), &Value::Null)
            .await
            .map(drop)
    }
}

#[test]
fn secrets_are_found_by_name_path_and_tags_and_their_keys_rewritten() {
    play(async {
        let scene = Scene::new("find").await?;
        for (path, value) in [
            ("app/db", "d"),
            ("app/web-1", "w"),
            ("app/deep/x", "x"),
            ("other", "o"),
            ("app/old", "n"),
        ] {
            scene.vault.put(path, json!({"value": value})).await?;
        }
        scene.vault.delete("app/old").await?;
        scene.tag("app/db", json!({"env": "prod", "team": "a"})).await?;
        scene.tag("other", json!({"env": "prod"})).await?;

        scene
            .find("by-name", json!({"find": {"name": {"regexp": "b$|^other"}}}))
            .await?;
        scene.find("by-path", json!({"find": {"path": "app"}})).await?;
        scene
            .find("by-tag", json!({"find": {"tags": {"env": "prod"}}}))
            .await?;
        scene
            .find("by-tags", json!({"find": {"tags": {"env": "prod", "team": "a"}}}))
            .await?;
        scene.find("rewritten", json!({
            "find": {"path": "app", "name": {"regexp": "^app/[a-z0-9-]+$"}},
            "rewrite": [{"regexp": {"source": "^app/(.*)$", "target": "my_$1"}}, {"regexp": {"source": "-", "target": "_"}}],
        })).await?;
        let template = "{{ .value | upper | replace \"/\" \"_\" | replace \"-\" \"_\" }}";
        let rewrite = json!([{"transform": {"template": template}}]);
        scene
            .find(
                "transformed",
                json!({"find": {"path": "app"}, "rewrite": rewrite}),
            )
            .await?;
        scene
            .find(
                "merged",
                json!({
                    "find": {"path": "app", "name": {"regexp": "app/(db|web)"}},
                    "rewrite": [{"merge": {"conflictPolicy": "Ignore", "priority": ["app/db"]}}],
                }),
            )
            .await?;

        scene.wait_keys("by-name", &["app_db", "other"]).await?;
        scene.wait_value("by-name", "app_db", r#"{"value":"d"}"#).await?;
        // The deleted one is left out, though Vault still lists it.
        scene
            .wait_keys("by-path", &["app_db", "app_deep_x", "app_web-1"])
            .await?;
        scene.wait_keys("by-tag", &["app_db", "other"]).await?;
        scene.wait_keys("by-tags", &["app_db"]).await?;
        scene.wait_keys("rewritten", &["my_db", "my_web_1"]).await?;
        scene
            .wait_keys("transformed", &["APP_DB", "APP_DEEP_X", "APP_WEB_1"])
            .await?;
        scene.wait_value("merged", "value", "d").await?;

        // A secret that comes and one that goes are seen by the next refresh.
        scene.vault.put("app/new", json!({"value": "n"})).await?;
        scene.vault.delete("app/db").await?;
        scene.force_sync("by-path").await?;
        scene
            .wait_keys("by-path", &["app_deep_x", "app_new", "app_web-1"])
            .await?;

        scene.vault.put("app/my_db", json!({"value": "2"})).await?;
        scene
            .find(
                "collision",
                json!({
                    "find": {"path": "app"}, "rewrite": [{"regexp": {"source": ".*", "target": "same"}}],
                }),
            )
            .await?;
        scene
            .wait_ready("externalsecret", "collision", "False", "both become \"same\"")
            .await?;
        Ok(())
    });
}

#[test]
fn an_unreadable_secret_fails_the_search_and_harms_nothing() {
    play(async {
        let scene = Scene::new("unreadable").await?;
        scene.vault.put("app/db", json!({"value": "1"})).await?;
        scene.vault.put("app/hidden", json!({"value": "h"})).await?;
        let delete = json!({
            "refreshInterval": "1h", "target": {"deletionPolicy": "Delete"}, "dataFrom": [{"find": {"path": "app"}}],
        });
        scene.external_secret("all", delete).await?;
        scene.wait_keys("all", &["app_db", "app_hidden"]).await?;

        scene.policy(WITHOUT_HIDDEN).await?;
        scene.vault.put("app/db", json!({"value": "2"})).await?;
        scene.force_sync("all").await?;
        let message = scene
            .wait_ready("externalsecret", "all", "False", "'secret/data/app/hidden'")
            .await?;
        ensure!(
            message.contains("answered 403 to the read of") && message.contains("capabilities = [\"read\"]"),
            "{message}"
        );
        scene.wait_keys("all", &["app_db", "app_hidden"]).await?;
        ensure!(scene.value("all", "app_db").await?.as_deref() == Some(r#"{"value":"1"}"#));

        // Nor does a folder that may not be listed delete anything.
        scene
            .policy("path \"secret/data/*\" { capabilities = [\"read\"] }")
            .await?;
        scene.force_sync("all").await?;
        scene
            .wait_ready(
                "externalsecret",
                "all",
                "False",
                "403 to the list of 'secret/metadata/app/*'",
            )
            .await?;
        scene.wait_keys("all", &["app_db", "app_hidden"]).await?;

        scene.policy(WITH_ALL).await?;
        scene.force_sync("all").await?;
        scene.wait_value("all", "app_db", r#"{"value":"2"}"#).await?;
        scene
            .wait_ready("externalsecret", "all", "True", "secret synced")
            .await?;
        Ok(())
    });
}

#[test]
fn an_empty_folder_deletes_only_where_the_policy_says_so() {
    play(async {
        let scene = Scene::new("empty").await?;
        scene.vault.put("app/one", json!({"value": "1"})).await?;
        for policy in ["Delete", "Retain", "Merge"] {
            let spec = json!({
                "refreshInterval": "1h", "target": {"deletionPolicy": policy}, "dataFrom": [{"find": {"path": "app"}}],
            });
            scene.external_secret(&policy.to_lowercase(), spec).await?;
            scene.wait_keys(&policy.to_lowercase(), &["app_one"]).await?;
        }
        scene.destroy("app/one").await?;
        for name in ["delete", "retain", "merge"] {
            scene.force_sync(name).await?;
        }
        scene.wait_gone("secret", "delete").await?;
        scene
            .wait_ready("externalsecret", "delete", "True", "SecretDeleted")
            .await?;
        scene
            .wait_ready(
                "externalsecret",
                "retain",
                "False",
                "spec.dataFrom[0].find (path: app)",
            )
            .await?;
        scene.wait_keys("retain", &["app_one"]).await?;
        scene.wait_keys("merge", &[]).await?;

        // A folder that only names deleted secrets holds none either.
        scene.vault.put("soft/one", json!({"value": "1"})).await?;
        let spec = json!({
            "refreshInterval": "1h", "target": {"deletionPolicy": "Delete"}, "dataFrom": [{"find": {"path": "soft"}}],
        });
        scene.external_secret("soft", spec).await?;
        scene.wait_keys("soft", &["soft_one"]).await?;
        scene.vault.delete("soft/one").await?;
        scene.force_sync("soft").await?;
        scene.wait_gone("secret", "soft").await?;

        // It comes back with the secret.
        scene.vault.put("app/one", json!({"value": "2"})).await?;
        scene.force_sync("delete").await?;
        scene.wait_value("delete", "app_one", r#"{"value":"2"}"#).await
    });
}

#[test]
fn metadata_and_old_versions_are_fetched() {
    play(async {
        let scene = Scene::new("metadata").await?;
        scene
            .vault
            .put("app", json!({"value": "old", "a-b": "1"}))
            .await?;
        scene.vault.put("app", json!({"value": "new"})).await?;
        scene.tag("app", json!({"owner": "db-team"})).await?;
        let fetch =
            |key: &str, property: &str| json!({"key": key, "property": property, "metadataPolicy": "Fetch"});
        let spec = json!({"refreshInterval": "1h", "data": [
            {"secretKey": "owner", "remoteRef": fetch("app", "owner")},
            {"secretKey": "version", "remoteRef": fetch("secret/data/app", "current_version")},
            one("value", "app", "value"),
        ]});
        scene.external_secret("data", spec).await?;
        scene
            .find(
                "extract",
                json!({"extract": {"key": "secret/app", "metadataPolicy": "Fetch"}}),
            )
            .await?;
        scene
            .find(
                "old",
                json!({
                    "extract": {"key": "app", "version": "1"},
                    "rewrite": [{"regexp": {"source": "^", "target": "old_"}}],
                }),
            )
            .await?;
        scene.wait_value("data", "owner", "db-team").await?;
        scene.wait_value("data", "version", "2").await?;
        scene.wait_value("data", "value", "new").await?;
        scene
            .wait_keys(
                "extract",
                &["created_time", "current_version", "delete_version_after", "owner"],
            )
            .await?;
        scene.wait_keys("old", &["old_a-b", "old_value"]).await?;
        scene.wait_value("old", "old_value", "old").await?;
        scene
            .find(
                "none",
                json!({"extract": {"key": "gone", "metadataPolicy": "Fetch"}}),
            )
            .await?;
        scene
            .wait_ready("externalsecret", "none", "False", "secret not found")
            .await
            .map(drop)
    });
}

#[test]
fn one_object_reads_and_searches_several_stores() {
    play(async {
        let scene = Scene::new("stores").await?;
        let v1 = format!("{}-v1", scene.class);
        let auth = json!({"kubernetes": {
            "mountPath": "kubernetes", "role": "eso-reader",
            "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"},
        }});
        let mut store = scene.store_manifest(scene.vault.address(), &auth);
        store["metadata"]["name"] = json!(v1);
        store["spec"]["provider"]["vault"]["path"] = json!("kv1");
        store["spec"]["provider"]["vault"]["version"] = json!("v1");
        scene.cluster.apply(&store.to_string()).await?;
        scene.vault.put("two/a", json!({"value": "2"})).await?;
        scene
            .vault
            .api("POST", "kv1/one/a", &json!({"value": "1"}))
            .await?;
        scene
            .vault
            .api("POST", "kv1/one/b/c", &json!({"value": "1c"}))
            .await?;
        let other = json!({"storeRef": {"kind": "ClusterSecretStore", "name": v1}});
        let spec = json!({
            "refreshInterval": "1h",
            "dataFrom": [
                {"find": {"path": "one"}, "sourceRef": other},
                {"find": {"path": "two"}},
                {"extract": {"key": "one/a"}, "sourceRef": other},
            ],
            "data": [
                one("data2", "two/a", "value"),
                {"secretKey": "data1", "remoteRef": {"key": "one/b/c", "property": "value"}, "sourceRef": other},
            ],
        });
        scene.external_secret("both", spec).await?;
        scene
            .wait_keys("both", &["data1", "data2", "one_a", "one_b_c", "two_a", "value"])
            .await?;
        scene.wait_value("both", "one_b_c", r#"{"value":"1c"}"#).await?;
        scene.wait_value("both", "data1", "1c").await?;

        scene
            .find("tags", json!({"find": {"tags": {"a": "b"}}, "sourceRef": other}))
            .await?;
        scene
            .wait_ready(
                "externalsecret",
                "tags",
                "False",
                "cannot perform find by tag operations with kv version v1",
            )
            .await
            .map(drop)
    });
}

#[test]
fn a_search_waits_for_a_sealed_vault_and_ends_after_the_unseal() {
    play(async {
        let scene = Scene::new("sealed-find").await?;
        scene.vault.put("app/db", json!({"value": "1"})).await?;
        let spec = json!({
            "refreshInterval": "1h", "target": {"deletionPolicy": "Delete"},
            "dataFrom": [{"find": {"path": "app", "tags": {"current_version": "1"}}}],
        });
        scene.external_secret("all", spec).await?;
        scene.wait_value("all", "app_db", r#"{"value":"1"}"#).await?;
        scene.vault.restart_sealed().await?;
        scene.force_sync("all").await?;
        scene
            .wait_ready("externalsecret", "all", "True", "could not be confirmed")
            .await?;
        scene.wait_keys("all", &["app_db"]).await?;
        scene.vault.unseal().await?;
        scene.vault.put("app/web", json!({"value": "1"})).await?;
        scene
            .wait_ready("externalsecret", "all", "True", "secret synced")
            .await?;
        scene.force_sync("all").await?;
        scene.wait_keys("all", &["app_db", "app_web"]).await?;
        // A dead token costs one new login, also for lists.
        scene.vault.revoke_logins().await?;
        scene.vault.put("app/last", json!({"value": "1"})).await?;
        scene.force_sync("all").await?;
        scene.wait_keys("all", &["app_db", "app_last", "app_web"]).await
    });
}

#[test]
fn a_window_keeps_back_the_periodic_refresh_and_nothing_else() {
    play(async {
        let scene = Scene::new("windows").await?;
        scene.vault.put("app", json!({"value": "1"})).await?;
        let within = |kind: &str| {
            json!({
                "refreshInterval": "1s",
                "syncWindows": {"kind": kind, "windows": [{"schedule": "* * * * *", "duration": "1h"}]},
                "data": [one("value", "app", "value")],
            })
        };
        scene.external_secret("denied", within("deny")).await?;
        scene.external_secret("allowed", within("allow")).await?;
        // The first sync waits for no window.
        scene.wait_value("denied", "value", "1").await?;
        scene.wait_value("allowed", "value", "1").await?;

        scene.vault.put("app", json!({"value": "2"})).await?;
        scene.wait_value("allowed", "value", "2").await?;
        sleep(Duration::from_secs(3)).await;
        ensure!(scene.value("denied", "value").await?.as_deref() == Some("1"));

        scene.force_sync("denied").await?;
        scene.wait_value("denied", "value", "2").await?;

        let mut bad = within("deny");
        bad["syncWindows"]["windows"][0]["schedule"] = json!("61 * * * *");
        scene.external_secret("bad", bad).await?;
        scene
            .wait_ready(
                "externalsecret",
                "bad",
                "False",
                "spec.syncWindows.windows[0].schedule",
            )
            .await
            .map(drop)
    });
}

#[test]
fn searches_through_one_folder_at_one_time_share_their_requests() {
    play(async {
        let scene = Scene::new("shared-find").await?;
        for i in 0..3 {
            scene
                .vault
                .put(&format!("app/{i}"), json!({"value": "1"}))
                .await?;
        }
        let entry = json!({"find": {"path": "app"}});
        for i in 0..10 {
            scene.find(&format!("find-{i}"), entry.clone()).await?;
        }
        for i in 0..10 {
            scene
                .wait_value(&format!("find-{i}"), "app_0", r#"{"value":"1"}"#)
                .await?;
        }
        scene.vault.put("app/0", json!({"value": "2"})).await?;
        let (mark, begun) = (scene.vault.audit_mark(), Instant::now());
        let args = [
            "annotate",
            "externalsecret",
            "--all",
            "-n",
            &scene.namespace,
            "force-sync=1",
        ];
        scene.cluster.kubectl(&args, "").await?;
        for i in 0..10 {
            scene
                .wait_value(&format!("find-{i}"), "app_0", r#"{"value":"2"}"#)
                .await?;
        }
        let requests = scene.vault.requests_since(mark)?;
        // One when they begin, and then one every 500 ms at most.
        let most = 3 + 2 * usize::try_from(begun.elapsed().as_secs())?;
        for path in ["secret/metadata/app/", "secret/data/app/0", "secret/data/app/2"] {
            let count = requests.get(path).copied().unwrap_or_default();
            ensure!(
                (1..=most).contains(&count),
                "{count} requests for {path}, {most} allowed: {requests:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn what_was_found_is_in_no_message_and_no_log() {
    play(async {
        let scene = Scene::new("quiet-find").await?;
        let canary = "canary-of-find-7f3a";
        scene
            .vault
            .put("app/db", json!({"value": canary, "other": "\u{0}"}))
            .await?;
        let extract = json!({"extract": {"key": "app/db"}, "rewrite": [{"merge": {}}]});
        scene.find("merge", extract).await?;
        let one = json!([{"regexp": {"source": ".*", "target": "one"}}]);
        scene
            .find("one", json!({"extract": {"key": "app/db"}, "rewrite": one}))
            .await?;
        scene
            .find("decode", json!({"find": {"decodingStrategy": "Base64"}}))
            .await?;
        scene.find("fine", json!({"find": {}})).await?;
        scene
            .wait_ready("externalsecret", "merge", "False", "the value of key \"other\"")
            .await?;
        scene
            .wait_ready("externalsecret", "one", "False", "both become \"one\"")
            .await?;
        scene
            .wait_ready("externalsecret", "decode", "False", "the value of key \"app_db\"")
            .await?;
        scene
            .wait_ready("externalsecret", "fine", "True", "secret synced")
            .await?;
        let args = [
            "get",
            "externalsecrets,events",
            "-n",
            &scene.namespace,
            "-o",
            "yaml",
        ];
        let told = scene.cluster.kubectl(&args, "").await?;
        ensure!(!told.contains(canary), "{told}");
        ensure!(!scene.operator().logs().contains(canary));
        Ok(())
    });
}
