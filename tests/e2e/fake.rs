//! The `fake` provider: manifests tried without a Vault.

use std::fs;

use anyhow::{Context as _, Result};
use keyferry_testbed::repository;
use serde_json::{Value, json};

use crate::scene::{Scene, play};

/// The example, in the namespace of a scene.
fn example(scene: &Scene) -> Result<String> {
    let path = repository().join("deploy/examples/fake/store.yaml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text
        .replace("namespace: default", &format!("namespace: {}", scene.namespace))
        .replace(
            "spec:\n  provider:",
            &format!("spec:\n  controller: {}\n  provider:", scene.class),
        ))
}

#[test]
fn templates_are_tried_without_a_vault_on_values_that_stand_in_the_store() {
    play(async {
        let mut scene = Scene::without_operator("fake").await?;
        scene.start_operator(&[]).await?;
        scene.cluster.apply(&example(&scene)?).await?;
        scene
            .wait_value("trial", "url", "postgres://app:not+a+secret@db/app")
            .await?;
        let whole = r#"{"user": "app", "password": "not a secret"}"#;
        for (key, value) in [("whole", whole), ("old", "Hello"), ("app_motd", "Hello again")] {
            assert_eq!(scene.value("trial", key).await?.as_deref(), Some(value), "{key}");
        }
        let (status, reason, _) = scene.ready("secretstore", "fake").await?;
        assert_eq!((status.as_str(), reason.as_str()), ("True", "Valid"));
        // A value that is changed in the store is synced at once: the store is new.
        let changed = example(&scene)?.replace("not a secret", "another");
        scene.cluster.apply(&changed).await?;
        scene.wait_value("trial", "password", "another").await
    });
}

#[test]
fn what_a_fake_store_lacks_is_named() {
    play(async {
        let mut scene = Scene::without_operator("fake-lacks").await?;
        scene.start_operator(&[]).await?;
        scene.cluster.apply(&example(&scene)?).await?;
        let reads = |remote: Value| {
            json!({"secretStoreRef": {"kind": "SecretStore", "name": "fake"},
                   "data": [{"secretKey": "a", "remoteRef": remote}]})
        };
        for (name, remote, word) in [
            ("gone", json!({"key": "nothing"}), "Secret does not exist"),
            ("version", json!({"key": "app/motd"}), "Secret does not exist"),
            (
                "text",
                json!({"key": "app/motd", "version": "v1", "property": "a"}),
                "not a JSON object",
            ),
            (
                "property",
                json!({"key": "app/database", "property": "x"}),
                "has no such property",
            ),
        ] {
            scene.external_secret(name, reads(remote)).await?;
            scene.wait_ready("externalsecret", name, "False", word).await?;
        }
        let invalid = json!({
            "apiVersion": "external-secrets.io/v1", "kind": "SecretStore",
            "metadata": {"name": "invalid", "namespace": scene.namespace},
            "spec": {"controller": scene.class, "provider": {"fake": {"data": [], "validationResult": 2}}},
        });
        scene.cluster.apply(&invalid.to_string()).await?;
        scene
            .wait_ready("secretstore", "invalid", "False", "InvalidProviderConfig")
            .await
            .map(drop)
    });
}
