//! What becomes of the Secret of an older name when a target is renamed.

use anyhow::{Result, ensure};
use keyferry_testbed::wait_for;
use serde_json::{Value, json};

use crate::scene::{SOON, Scene, one, play};

/// A way in which a source may give nothing.
struct Way {
    name: &'static str,
    deletion: &'static str,
    /// What has to be read.
    read: fn() -> Value,
    /// The key of the target.
    key: &'static str,
    /// What is said of the renamed target.
    reason: &'static str,
}

const WAYS: [Way; 5] = [
    Way {
        name: "find-retain",
        deletion: "Retain",
        read: find,
        key: "team_app",
        reason: "retained",
    },
    Way {
        name: "find-delete",
        deletion: "Delete",
        read: find,
        key: "team_app",
        reason: "SecretDeleted",
    },
    Way {
        name: "find-merge",
        deletion: "Merge",
        read: find,
        key: "team_app",
        reason: "SecretSynced",
    },
    Way {
        name: "extract-delete",
        deletion: "Delete",
        read: || json!({"dataFrom": [{"extract": {"key": "empty"}}]}),
        key: "value",
        reason: "retained",
    },
    Way {
        name: "data-delete",
        deletion: "Delete",
        read: || json!({"data": [one("value", "gone", "value")]}),
        key: "value",
        reason: "SecretDeleted",
    },
];

fn find() -> Value {
    json!({"dataFrom": [{"find": {"path": "team", "name": {"regexp": "app$"}}}]})
}

fn spec(way: &Way, target: &str) -> Value {
    let mut spec = (way.read)();
    spec["refreshInterval"] = json!("1h");
    spec["target"] = json!({"name": target, "deletionPolicy": way.deletion});
    spec
}

/// Waits until the object was synced as it is now, whatever came of it.
async fn wait_told(scene: &Scene, name: &str, word: &str) -> Result<()> {
    wait_for(&format!("a sync of the new {name}"), SOON, || async {
        let object = scene.get("externalsecret", name).await?;
        let generation = format!("{}-", object["metadata"]["generation"]);
        let version = object["status"]["syncedResourceVersion"]
            .as_str()
            .unwrap_or_default();
        ensure!(version.starts_with(&generation), "{version}");
        Ok(Some(()))
    })
    .await?;
    scene
        .wait_ready("externalsecret", name, "True", word)
        .await
        .map(drop)
}

#[test]
fn a_secret_of_an_older_name_goes_only_after_the_new_one_holds_its_data() {
    play(async {
        let scene = Scene::new("renames").await?;
        let put = async |path: &str| scene.vault.put(path, json!({"value": "one"})).await;
        for path in ["team/app", "team/other", "empty", "gone"] {
            put(path).await?;
        }
        for way in &WAYS {
            scene.external_secret(way.name, spec(way, &old(way))).await?;
        }
        let held = |way: &Way| match way.key {
            "value" => "one",
            _ => r#"{"value":"one"}"#,
        };
        for way in &WAYS {
            scene.wait_value(&old(way), way.key, held(way)).await?;
        }
        scene
            .vault
            .api("DELETE", "secret/metadata/team/app", &Value::Null)
            .await?;
        scene
            .vault
            .api("DELETE", "secret/metadata/gone", &Value::Null)
            .await?;
        scene.vault.put("empty", json!({})).await?;
        for way in &WAYS {
            scene.external_secret(way.name, spec(way, &new(way))).await?;
        }
        for way in &WAYS {
            wait_told(&scene, way.name, way.reason).await?;
            let kept = scene.value(&old(way), way.key).await?;
            ensure!(
                kept.as_deref() == Some(held(way)),
                "{}: the last good Secret is gone",
                way.name
            );
        }
        for path in ["team/app", "empty", "gone"] {
            put(path).await?;
        }
        for way in &WAYS {
            scene.force_sync(way.name).await?;
        }
        for way in &WAYS {
            scene.wait_value(&new(way), way.key, held(way)).await?;
            scene.wait_gone("secret", &old(way)).await?;
        }
        Ok(())
    });
}

fn old(way: &Way) -> String {
    format!("{}-old", way.name)
}

fn new(way: &Way) -> String {
    format!("{}-new", way.name)
}
