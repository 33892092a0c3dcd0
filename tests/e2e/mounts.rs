//! A store whose path is no mount: people copy it from policies. Vault's 404 then says nothing of what is there.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::scene::{Scene, one, play};

/// A way to read what a store has at `team/app`.
const WAYS: [&str; 3] = ["data", "extract", "find"];

fn spec(way: &str, store: &Value, key: &str) -> Value {
    let mut spec = match way {
        "data" => json!({"data": [one("value", key, "value")]}),
        "extract" => json!({"dataFrom": [{"extract": {"key": key}}]}),
        _ => json!({"dataFrom": [{"find": {"path": key.trim_end_matches("/app")}}]}),
    };
    spec["refreshInterval"] = json!("1h");
    spec["secretStoreRef"] = store.clone();
    spec["target"] = json!({"deletionPolicy": "Delete"});
    spec
}

async fn store(scene: &Scene, name: &str, path: Option<&str>, version: &str) -> Result<Value> {
    let provider = json!({"path": path, "version": version});
    scene.store_of(name, scene.vault.address(), provider).await
}

/// Makes an ExternalSecret for each way, and waits for their Secrets.
async fn synced(scene: &Scene, name: &str, store: &Value, key: &str) -> Result<()> {
    for way in WAYS {
        scene
            .external_secret(&format!("{name}-{way}"), spec(way, store, key))
            .await?;
    }
    for way in WAYS {
        let name = format!("{name}-{way}");
        scene
            .wait_ready("externalsecret", &name, "True", "secret synced")
            .await?;
    }
    Ok(())
}

async fn force(scene: &Scene, name: &str) -> Result<()> {
    for way in WAYS {
        scene.force_sync(&format!("{name}-{way}")).await?;
    }
    Ok(())
}

/// Waits until each was refused with these words, and sees that its Secret is there.
async fn kept(scene: &Scene, name: &str, words: [&str; 3]) -> Result<()> {
    for (way, words) in WAYS.iter().zip(words) {
        let name = format!("{name}-{way}");
        scene.wait_ready("externalsecret", &name, "False", words).await?;
        let data = &scene.get("secret", &name).await?["data"];
        ensure!(
            data.as_object().is_some_and(|data| data.len() == 1),
            "{name}: the Secret is emptied"
        );
    }
    Ok(())
}

#[test]
fn a_store_whose_path_is_a_folder_of_a_mount_deletes_nothing_and_says_what_path_should_be() {
    play(async {
        let scene = Scene::new("no-mount").await?;
        scene.vault.put("team/app", json!({"value": "x"})).await?;
        // What the wrong path leads to: nothing, or a version that was deleted.
        for path in ["data/team/app", "data/data/team/app"] {
            scene.vault.put(path, json!({"value": "y"})).await?;
            scene.vault.delete(path).await?;
        }
        let wrong = [
            ("data", "secret/data"),
            ("deep", "secret/data/data"),
            ("policy", "secret/metadata"),
            ("folder", "secret/nothing"),
        ];
        for (name, _) in wrong {
            let store = store(&scene, name, Some("secret"), "v2").await?;
            synced(&scene, name, &store, "team/app").await?;
        }
        for (name, path) in wrong {
            store(&scene, name, Some(path), "v2").await?;
            force(&scene, name).await?;
        }
        let advice =
            "it lies inside mount 'secret', so nothing is taken for missing; set path: secret in the store";
        for (name, _) in &wrong[..2] {
            kept(&scene, name, [advice, advice, "could not find secrets"]).await?;
        }
        for (name, _) in &wrong[2..] {
            kept(
                &scene,
                name,
                [
                    "could not read key",
                    "could not read key",
                    "could not find secrets",
                ],
            )
            .await?;
        }
        Ok(())
    });
}

#[test]
fn a_kv_v1_store_believes_a_not_found_of_its_own_mount_only() {
    play(async {
        let scene = Scene::new("v1-mount").await?;
        let put = async |value: &str| {
            let value = json!({"value": value});
            scene.vault.api("POST", "kv1/folder/team/app", &value).await
        };
        put("x").await?;
        let folder = store(&scene, "folder", Some("kv1/folder"), "v1").await?;
        let mount = store(&scene, "mount", Some("kv1"), "v1").await?;
        let keyed = store(&scene, "keyed", None, "v1").await?;
        synced(&scene, "folder", &folder, "team/app").await?;
        synced(&scene, "mount", &mount, "folder/team/app").await?;
        synced(&scene, "keyed", &keyed, "kv1/folder/team/app").await?;
        scene
            .vault
            .api("DELETE", "kv1/folder/team/app", &Value::Null)
            .await?;
        for name in ["folder", "mount", "keyed"] {
            force(&scene, name).await?;
        }
        for (name, way) in ["mount", "keyed"]
            .iter()
            .flat_map(|name| WAYS.map(|way| (name, way)))
        {
            let name = format!("{name}-{way}");
            scene
                .wait_ready("externalsecret", &name, "True", "SecretDeleted")
                .await?;
        }
        let advice = "set path: kv1 in the store, and begin its keys with 'folder/'";
        kept(&scene, "folder", [advice; 3]).await
    });
}
