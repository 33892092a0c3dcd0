//! The main job: sync, rotate, policies, ownership.

use anyhow::Result;
use keyferry_testbed::{homelab, wait_for};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::scene::{SOON, Scene, one, play};

fn spec(further: &Value) -> Value {
    let mut spec = json!({"refreshInterval": "1h", "data": [one("username", "app", "username"), one("password", "app", "password")]});
    if let (Some(spec), Some(further)) = (spec.as_object_mut(), further.as_object()) {
        spec.extend(further.clone());
    }
    spec
}

async fn with_app(name: &str) -> Result<Scene> {
    let scene = Scene::new(name).await?;
    scene
        .vault
        .put("app", json!({"username": "app", "password": "one"}))
        .await?;
    Ok(scene)
}

#[test]
fn the_homelab_rotates_a_password_by_patch_and_annotate() {
    play(async {
        let scene = Scene::new("homelab").await?;
        scene
            .vault
            .put(
                "postgres-secret",
                json!({"POSTGRES_USER": "postgres", "POSTGRES_PASSWORD": "one"}),
            )
            .await?;
        // The very manifest, but for the names that keep tests apart.
        let manifest = homelab::manifest("postgres.yaml", scene.vault.address())?
            .replace("name: k8s-secrets", &format!("name: {}", scene.class))
            .replace("namespace: db", &format!("namespace: {}", scene.namespace))
            .replace("name: db", &format!("name: {}", scene.namespace));
        scene.cluster.apply(&manifest).await?;
        scene
            .wait_value("postgres-secret", "POSTGRES_PASSWORD", "one")
            .await?;
        scene
            .wait_ready("externalsecret", "postgres-secret", "True", "SecretSynced")
            .await?;
        let object = scene.get("externalsecret", "postgres-secret").await?;
        assert_eq!(object["status"]["binding"]["name"], "postgres-secret");
        assert!(
            object["status"]["refreshTime"].is_string()
                && object["status"]["syncedResourceVersion"].is_string()
        );
        scene
            .vault
            .patch("postgres-secret", json!({"POSTGRES_PASSWORD": "two"}))
            .await?;
        scene.force_sync("postgres-secret").await?;
        scene
            .wait_value("postgres-secret", "POSTGRES_PASSWORD", "two")
            .await?;
        assert_eq!(
            scene.value("postgres-secret", "POSTGRES_USER").await?.as_deref(),
            Some("postgres")
        );
        // The column that people read.
        let row = scene
            .cluster
            .kubectl(&["get", "es", "postgres-secret", "-n", &scene.namespace], "")
            .await?;
        assert!(row.contains("SecretSynced") && row.contains("True"), "{row}");
        Ok(())
    });
}

#[test]
fn a_target_that_is_edited_or_deleted_by_hand_comes_back_at_once() {
    play(async {
        let scene = with_app("repair").await?;
        scene.external_secret("app", spec(&json!({}))).await?;
        scene.wait_value("app", "password", "one").await?;
        let patch = r#"{"stringData": {"password": "by hand", "added": "x"}}"#;
        scene
            .cluster
            .kubectl(
                &["patch", "secret", "app", "-n", &scene.namespace, "-p", patch],
                "",
            )
            .await?;
        scene.wait_value("app", "password", "one").await?;
        assert_eq!(scene.value("app", "added").await?, None);
        scene
            .cluster
            .kubectl(&["delete", "secret", "app", "-n", &scene.namespace], "")
            .await?;
        scene.wait_value("app", "password", "one").await?;
        let label = "reconcile.external-secrets.io/managed-";
        scene
            .cluster
            .kubectl(&["label", "secret", "app", "-n", &scene.namespace, label], "")
            .await?;
        wait_for("the label", SOON, || async {
            let secret = scene.get("secret", "app").await?;
            Ok(
                (secret["metadata"]["labels"]["reconcile.external-secrets.io/managed"] == "true")
                    .then_some(()),
            )
        })
        .await
    });
}

#[test]
fn a_renamed_target_leaves_no_orphan_and_its_owner_takes_it_along() {
    play(async {
        let scene = with_app("rename").await?;
        scene
            .external_secret("app", spec(&json!({"target": {"name": "first"}})))
            .await?;
        scene.wait_value("first", "password", "one").await?;
        scene
            .external_secret("app", spec(&json!({"target": {"name": "second"}})))
            .await?;
        scene.wait_value("second", "password", "one").await?;
        scene.wait_gone("secret", "first").await?;
        scene
            .cluster
            .kubectl(&["delete", "externalsecret", "app", "-n", &scene.namespace], "")
            .await?;
        scene.wait_gone("secret", "second").await
    });
}

#[test]
fn an_external_secret_with_esos_finalizer_can_be_deleted() {
    play(async {
        let scene = with_app("finalizer").await?;
        let mut manifest = scene.external_secret_manifest("app", spec(&json!({})));
        manifest["metadata"]["finalizers"] =
            json!(["externalsecrets.external-secrets.io/externalsecret-cleanup"]);
        scene.cluster.apply(&manifest.to_string()).await?;
        scene.wait_value("app", "password", "one").await?;
        scene
            .cluster
            .kubectl(
                &[
                    "delete",
                    "externalsecret",
                    "app",
                    "-n",
                    &scene.namespace,
                    "--timeout=30s",
                ],
                "",
            )
            .await?;
        scene.wait_gone("secret", "app").await
    });
}

#[test]
fn foreign_objects_are_refused_and_never_overwritten() {
    play(async {
        let scene = with_app("foreign").await?;
        scene
            .external_secret("first", spec(&json!({"target": {"name": "shared"}})))
            .await?;
        scene.wait_value("shared", "password", "one").await?;
        scene
            .external_secret("second", spec(&json!({"target": {"name": "shared"}})))
            .await?;
        scene
            .wait_ready(
                "externalsecret",
                "second",
                "False",
                "owned by another ExternalSecret",
            )
            .await?;
        let token = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {"name": "token", "namespace": scene.namespace, "annotations": {"kubernetes.io/service-account.name": "default"}},
        });
        scene.cluster.apply(&token.to_string()).await?;
        scene
            .external_secret(
                "third",
                spec(&json!({"target": {"name": "token", "creationPolicy": "Merge"}})),
            )
            .await?;
        scene
            .wait_ready("externalsecret", "third", "False", "never written")
            .await?;
        Ok(())
    });
}

#[test]
fn merge_orphan_create_or_merge_and_none_do_what_they_say() {
    play(async {
        let scene = with_app("policies").await?;
        scene
            .external_secret(
                "merge",
                spec(&json!({"refreshInterval": "1s", "target": {"creationPolicy": "Merge"}})),
            )
            .await?;
        scene
            .wait_ready("externalsecret", "merge", "True", "SecretMissing")
            .await?;
        let foreign = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "merge", "namespace": scene.namespace},
            "stringData": {"theirs": "kept", "password": "theirs"},
        });
        scene.cluster.apply(&foreign.to_string()).await?;
        scene.wait_value("merge", "password", "one").await?;
        assert_eq!(scene.value("merge", "theirs").await?.as_deref(), Some("kept"));
        scene
            .external_secret("orphan", spec(&json!({"target": {"creationPolicy": "Orphan"}})))
            .await?;
        scene.wait_value("orphan", "password", "one").await?;
        assert!(scene.get("secret", "orphan").await?["metadata"]["ownerReferences"].is_null());
        scene
            .cluster
            .kubectl(
                &["delete", "externalsecret", "orphan", "-n", &scene.namespace],
                "",
            )
            .await?;
        scene
            .external_secret(
                "com",
                spec(&json!({"target": {"creationPolicy": "CreateOrMerge"}})),
            )
            .await?;
        scene.wait_value("com", "password", "one").await?;
        scene
            .external_secret("none", spec(&json!({"target": {"creationPolicy": "None"}})))
            .await?;
        scene
            .wait_ready("externalsecret", "none", "True", "SecretSynced")
            .await?;
        assert_eq!(scene.value("none", "password").await?, None);
        assert_eq!(scene.value("orphan", "password").await?.as_deref(), Some("one"));
        Ok(())
    });
}

#[test]
fn only_a_clean_not_found_with_deletion_policy_delete_removes_a_secret() {
    play(async {
        let scene = with_app("deletion").await?;
        for policy in ["Delete", "Retain"] {
            let target = json!({"refreshInterval": "1s", "target": {"deletionPolicy": policy}});
            scene
                .external_secret(&policy.to_lowercase(), spec(&target))
                .await?;
            scene
                .wait_value(&policy.to_lowercase(), "password", "one")
                .await?;
        }
        scene.vault.delete("app").await?;
        scene.wait_gone("secret", "delete").await?;
        scene
            .wait_ready("externalsecret", "delete", "True", "SecretDeleted")
            .await?;
        scene
            .wait_ready("externalsecret", "retain", "False", "Secret does not exist")
            .await?;
        assert_eq!(scene.value("retain", "password").await?.as_deref(), Some("one"));
        scene
            .vault
            .put("app", json!({"username": "app", "password": "again"}))
            .await?;
        scene.wait_value("delete", "password", "again").await?;
        scene.wait_value("retain", "password", "again").await
    });
}

#[test]
fn refresh_policies_are_honoured() {
    play(async {
        let scene = with_app("refresh").await?;
        scene
            .external_secret("periodic", spec(&json!({"refreshInterval": "1s"})))
            .await?;
        scene
            .external_secret("zero", spec(&json!({"refreshInterval": "0"})))
            .await?;
        scene
            .external_secret(
                "once",
                spec(&json!({"refreshInterval": "1s", "refreshPolicy": "CreatedOnce"})),
            )
            .await?;
        scene
            .external_secret(
                "change",
                spec(&json!({"refreshInterval": "1s", "refreshPolicy": "OnChange"})),
            )
            .await?;
        for name in ["periodic", "zero", "once", "change"] {
            scene.wait_value(name, "password", "one").await?;
            scene
                .wait_ready("externalsecret", name, "True", "SecretSynced")
                .await?;
        }
        scene.vault.patch("app", json!({"password": "two"})).await?;
        scene.wait_value("periodic", "password", "two").await?;
        for name in ["zero", "once", "change"] {
            assert_eq!(
                scene.value(name, "password").await?.as_deref(),
                Some("one"),
                "{name}"
            );
            scene.force_sync(name).await?;
        }
        scene.wait_value("zero", "password", "two").await?;
        scene.wait_value("change", "password", "two").await?;
        assert_eq!(scene.value("once", "password").await?.as_deref(), Some("one"));
        Ok(())
    });
}

#[test]
fn an_immutable_target_is_sealed_and_keeps_its_data() {
    play(async {
        let scene = with_app("immutable").await?;
        scene
            .external_secret("app", spec(&json!({"target": {"immutable": true}})))
            .await?;
        scene.wait_value("app", "password", "one").await?;
        assert_eq!(scene.get("secret", "app").await?["immutable"], true);
        scene.vault.patch("app", json!({"password": "two"})).await?;
        scene.force_sync("app").await?;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(scene.value("app", "password").await?.as_deref(), Some("one"));
        scene
            .wait_ready("externalsecret", "app", "True", "SecretSynced")
            .await?;
        Ok(())
    });
}

#[test]
fn extract_versions_paths_and_kv_v1_are_read() {
    play(async {
        let scene = with_app("reads").await?;
        scene
            .vault
            .patch(
                "app",
                json!({"password": "two", "nested": {"list": [{"name": "deep"}]}, "n": 1.5}),
            )
            .await?;
        let data = json!([
            {"secretKey": "old", "remoteRef": {"key": "secret/data/app", "property": "password", "version": "1"}},
            {"secretKey": "new", "remoteRef": {"key": "/app", "property": "password"}},
            {"secretKey": "deep", "remoteRef": {"key": "secret/app", "property": "nested.list.0.name"}},
            {"secretKey": "whole", "remoteRef": {"key": "app"}},
        ]);
        scene
            .external_secret(
                "app",
                json!({"data": data, "dataFrom": [{"extract": {"key": "app"}}]}),
            )
            .await?;
        for (key, value) in [
            ("old", "one"),
            ("new", "two"),
            ("deep", "deep"),
            ("username", "app"),
            ("n", "1.5"),
        ] {
            scene.wait_value("app", key, value).await?;
        }
        let whole = r#"{"n":1.5,"nested":{"list":[{"name":"deep"}]},"password":"two","username":"app"}"#;
        scene.wait_value("app", "whole", whole).await?;
        scene
            .vault
            .api("POST", "kv1/app", &json!({"password": "v1"}))
            .await?;
        let mut store = scene.store_manifest(scene.vault.address(), &json!({}));
        store["kind"] = json!("SecretStore");
        store["metadata"] = json!({"name": "v1", "namespace": scene.namespace});
        store["spec"]["provider"]["vault"]["path"] = json!("kv1");
        store["spec"]["provider"]["vault"]["version"] = json!("v1");
        scene
            .cluster
            .kubectl(
                &["create", "serviceaccount", "reader", "-n", &scene.namespace],
                "",
            )
            .await?;
        scene
            .vault
            .write_role("own", "reader", &scene.namespace, &json!({}))
            .await?;
        store["spec"]["provider"]["vault"]["auth"] =
            json!({"kubernetes": {"role": "own", "serviceAccountRef": {"name": "reader"}}});
        scene.cluster.apply(&store.to_string()).await?;
        let spec = json!({"secretStoreRef": {"name": "v1"}, "data": [one("password", "app", "password")]});
        scene.external_secret("v1", spec).await?;
        scene.wait_value("v1", "password", "v1").await
    });
}

#[test]
fn many_triggers_on_one_path_cost_few_requests_and_none_is_stale() {
    play(async {
        let scene = with_app("shared").await?;
        for i in 0..40 {
            scene
                .external_secret(&format!("app-{i}"), spec(&json!({})))
                .await?;
        }
        for i in 0..40 {
            scene.wait_value(&format!("app-{i}"), "password", "one").await?;
        }
        scene.vault.patch("app", json!({"password": "two"})).await?;
        let (mark, began) = (scene.vault.audit_mark(), Instant::now());
        let args = [
            "annotate",
            "externalsecret",
            "--all",
            "-n",
            &scene.namespace,
            "force-sync=1",
            "--overwrite",
        ];
        scene.cluster.kubectl(&args, "").await?;
        for i in 0..40 {
            scene.wait_value(&format!("app-{i}"), "password", "two").await?;
        }
        let reads = scene
            .vault
            .requests_since(mark)?
            .remove("secret/data/app")
            .unwrap_or(0);
        // One when they begin, and then one every 500 ms at most.
        let took = began.elapsed();
        let most = 2 + 2 * usize::try_from(took.as_secs())?;
        assert!((1..=most).contains(&reads), "{reads} reads in {took:?}");
        Ok(())
    });
}

#[test]
fn ten_entries_on_one_path_cost_one_read() {
    play(async {
        let scene = with_app("ten").await?;
        let data: Vec<_> = (0..10)
            .map(|i| one(&format!("k{i}"), "app", "password"))
            .collect();
        let mark = scene.vault.audit_mark();
        scene.external_secret("app", json!({"data": data})).await?;
        scene.wait_value("app", "k9", "one").await?;
        assert_eq!(
            scene.vault.requests_since(mark)?.remove("secret/data/app"),
            Some(1)
        );
        Ok(())
    });
}

#[test]
fn a_new_external_secret_costs_two_writes_and_a_refresh_that_changes_nothing_none() {
    play(async {
        let scene = with_app("writes").await?;
        let mark = scene.cluster.audit_mark();
        scene
            .external_secret("app", spec(&json!({"refreshInterval": "1s"})))
            .await?;
        scene.wait_value("app", "password", "one").await?;
        scene
            .wait_ready("externalsecret", "app", "True", "SecretSynced")
            .await?;
        let (vault, before) = (scene.vault.audit_mark(), scene.cluster.audit_mark());
        wait_for("five refreshes", SOON, || async {
            Ok((scene
                .vault
                .requests_since(vault)?
                .remove("secret/data/app")
                .unwrap_or(0)
                >= 5)
                .then_some(()))
        })
        .await?;
        let writes = |mark: u64| -> Result<Vec<String>> {
            let events = scene.cluster.audit_since(mark)?;
            let ours = events.iter().filter(|e| e.is_operators());
            let here = ours.filter(|e| e.object().0 == scene.namespace && e.resource() != "events");
            Ok(here
                .filter(|e| !e.reads())
                .map(|e| format!("{} {}", e.verb, e.resource()))
                .collect())
        };
        assert_eq!(writes(before)?, Vec::<String>::new());
        assert_eq!(writes(mark)?, ["create secrets", "patch externalsecrets/status"]);
        Ok(())
    });
}
