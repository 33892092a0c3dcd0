//! The installation's key: lost, rotated, restored. In each scene the operator's namespace is the scene's own.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use keyferry_testbed::wait_for;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::scene::{SOON, Scene, one, play};

const KEY: &str = "keyferry-installation-key";
const HASH: &str = "reconcile.external-secrets.io/data-hash";

async fn scene(name: &str) -> Result<Scene> {
    let mut scene = Scene::without_operator(name).await?;
    scene.store(scene.vault.address()).await?;
    scene
        .vault
        .put("app", json!({"user": "admin", "password": "hunter2"}))
        .await?;
    start(&mut scene).await?;
    Ok(scene)
}

async fn start(scene: &mut Scene) -> Result<()> {
    let home = format!("--operator-namespace={}", scene.namespace);
    scene.start_operator(&[&home]).await
}

/// Templates that make something up, however they are refreshed.
const KINDS: [&str; 4] = ["hourly", "once", "frozen", "created"];

async fn make(scene: &Scene) -> Result<()> {
    for kind in KINDS {
        let mut spec = json!({
            "refreshInterval": "1h", "target": {"template": {"data": {
                "user": "{{ .user }}", "password": "{{ randAlphaNum 24 }}", "auth": "{{ .user }}:{{ randAlphaNum 8 }}",
            }}},
            "data": [one("user", "app", "user")],
        });
        match kind {
            "once" => spec["refreshInterval"] = json!("0"),
            "created" => spec["refreshPolicy"] = json!("CreatedOnce"),
            "frozen" => spec["target"]["immutable"] = json!(true),
            _ => {}
        }
        scene.external_secret(kind, spec).await?;
    }
    for kind in KINDS {
        scene.wait_value(kind, "user", "admin").await?;
        scene
            .wait_ready("externalsecret", kind, "True", "SecretSynced")
            .await?;
    }
    Ok(())
}

async fn data(scene: &Scene) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for kind in KINDS {
        all.push(scene.get("secret", kind).await?["data"].clone());
    }
    Ok(all)
}

async fn delete_key(scene: &Scene) -> Result<()> {
    let args = ["delete", "secret", KEY, "-n", &scene.namespace];
    scene.cluster.kubectl(&args, "").await.map(drop)
}

async fn key(scene: &Scene) -> Result<Value> {
    wait_for("the installation's key", SOON, || async {
        Ok(scene.get("secret", KEY).await.ok())
    })
    .await
}

/// Has all of them synced, as far as they ever are, and waits until that is told.
async fn force_all(scene: &Scene) -> Result<()> {
    for kind in KINDS.iter().filter(|kind| **kind != "created") {
        let before = scene.get("externalsecret", kind).await?["status"]["syncedResourceVersion"].clone();
        scene.force_sync(kind).await?;
        wait_for("the forced sync", SOON, || async {
            let object = scene.get("externalsecret", kind).await?;
            Ok((object["status"]["syncedResourceVersion"] != before).then_some(()))
        })
        .await
        .with_context(|| scene.story())?;
    }
    Ok(())
}

/// By hand: the Secret is immutable, so it is deleted and made anew. Who is too slow finds the old key written again.
async fn rotate(scene: &Scene) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    let other: Secret = serde_json::from_value(json!({
        "metadata": {"name": KEY}, "stringData": {"key": "r".repeat(32)},
    }))?;
    wait_for("another key", SOON, || async {
        secrets.delete(KEY, &DeleteParams::default()).await?;
        let made = secrets.create(&PostParams::default(), &other).await;
        Ok(made.is_ok().then_some(()))
    })
    .await
}

fn hash(secret: &Value) -> String {
    secret["metadata"]["annotations"][HASH]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Waits until a Secret has a hash that is another than this.
async fn wait_signed(scene: &Scene, name: &str, before: &str) -> Result<Value> {
    wait_for(&format!("another hash of {name}"), SOON, || async {
        let secret = scene.get("secret", name).await?;
        Ok((hash(&secret) != before).then_some(secret))
    })
    .await
    .with_context(|| scene.story())
}

#[test]
fn what_a_template_made_up_outlives_a_key_that_is_lost_or_rotated_while_nobody_runs() {
    play(async {
        let mut scene = scene("key-lost").await?;
        make(&scene).await?;
        let first = data(&scene).await?;
        for turn in ["lost", "rotated"] {
            scene.operator = None;
            delete_key(&scene).await?;
            if turn == "rotated" {
                let other = "k".repeat(32);
                scene
                    .write_secret(&scene.namespace, KEY, json!({"key": other}))
                    .await?;
            }
            let before = hash(&scene.get("secret", "once").await?);
            start(&mut scene).await?;
            // What is never refreshed is signed again by itself; all else when it is synced.
            wait_signed(&scene, "once", &before).await?;
            ensure!(data(&scene).await? == first, "{turn}: data changed at the start");
            force_all(&scene).await?;
            ensure!(data(&scene).await? == first, "{turn}: data changed by a sync");
            let made = scene.get("secret", "hourly").await?["metadata"]["resourceVersion"].clone();
            force_all(&scene).await?;
            let still = scene.get("secret", "hourly").await?["metadata"]["resourceVersion"].clone();
            ensure!(made == still, "{turn}: written though it is signed");
        }
        // A value that changed while the key was lost reaches the target, and what was made up stays.
        scene.operator = None;
        delete_key(&scene).await?;
        scene.vault.patch("app", json!({"user": "root"})).await?;
        start(&mut scene).await?;
        scene.force_sync("hourly").await?;
        scene.wait_value("hourly", "user", "root").await?;
        let hourly = scene.get("secret", "hourly").await?["data"].clone();
        ensure!(hourly["password"] == first[0]["password"], "made anew");
        // Under a key that is known, a value that changes makes it anew, as ever.
        scene.vault.patch("app", json!({"user": "boss"})).await?;
        scene.force_sync("hourly").await?;
        scene.wait_value("hourly", "user", "boss").await?;
        let anew = scene.get("secret", "hourly").await?["data"].clone();
        ensure!(anew["password"] != first[0]["password"], "not made anew");
        Ok(())
    });
}

#[test]
fn a_key_that_is_lost_while_the_operator_runs_is_written_again_and_one_that_is_rotated_is_followed() {
    play(async {
        let mut scene = scene("key-again").await?;
        make(&scene).await?;
        let (first, secret) = (data(&scene).await?, scene.get("secret", "hourly").await?);
        let old = key(&scene).await?;
        delete_key(&scene).await?;
        let again = key(&scene).await?;
        ensure!(again["data"]["key"] == old["data"]["key"], "another key was made");
        force_all(&scene).await?;
        let still = scene.get("secret", "hourly").await?;
        ensure!(
            still["metadata"]["resourceVersion"] == secret["metadata"]["resourceVersion"],
            "written though the key is the same"
        );
        // It is the same for a process that never knew the old one.
        scene.operator = None;
        start(&mut scene).await?;
        force_all(&scene).await?;
        let still = scene.get("secret", "hourly").await?;
        ensure!(hash(&still) == hash(&secret), "another hash");
        rotate(&scene).await?;
        wait_for("a hash under the rotated key", 2 * SOON, || async {
            force_all(&scene).await?;
            let now = scene.get("secret", "hourly").await?;
            Ok((hash(&now) != hash(&secret)).then_some(()))
        })
        .await
        .with_context(|| scene.story())?;
        ensure!(data(&scene).await? == first, "data changed");
        Ok(())
    });
}

#[test]
fn a_hash_that_eso_left_is_replaced_once_and_the_data_is_not_touched() {
    play(async {
        let mut scene = scene("key-bare").await?;
        // With a template, the annotations of the ExternalSecret are not the target's.
        let spec = json!({
            "refreshInterval": "1h", "target": {"template": {}}, "data": [one("password", "app", "password")],
        });
        scene.external_secret("app", spec).await?;
        scene.wait_value("app", "password", "hunter2").await?;
        scene
            .wait_ready("externalsecret", "app", "True", "SecretSynced")
            .await?;
        scene.operator = None;
        let ours = hash(&scene.get("secret", "app").await?);
        // As ESO would have left it.
        let data = [("password".to_owned(), b"hunter2".to_vec())];
        let bare =
            keyferry::target::names::eso_data_hash(data.iter().map(|(key, value)| (key, value.as_slice())));
        let annotation = format!("{HASH}={bare}");
        let args = [
            "annotate",
            "--overwrite",
            "secret",
            "app",
            &annotation,
            "-n",
            &scene.namespace,
        ];
        scene.cluster.kubectl(&args, "").await?;
        let mark = scene.cluster.audit_mark();
        start(&mut scene).await?;
        let secret = wait_signed(&scene, "app", &bare).await?;
        ensure!(hash(&secret) == ours, "another hash");
        ensure!(
            secret["data"] == json!({"password": "aHVudGVyMg=="}),
            "other data"
        );
        force_synced(&scene).await?;
        let events = scene.cluster.audit_since(mark)?;
        let writes = events.iter().filter(|event| {
            event.is_operators()
                && !event.reads()
                && event.resource() == "secrets"
                && event.object() == (scene.namespace.clone(), "app".to_owned())
        });
        assert_eq!(writes.count(), 1);
        Ok(())
    });
}

async fn force_synced(scene: &Scene) -> Result<()> {
    let before = scene.get("externalsecret", "app").await?["status"]["syncedResourceVersion"].clone();
    scene.force_sync("app").await?;
    wait_for("the forced sync", SOON, || async {
        let object = scene.get("externalsecret", "app").await?;
        Ok((object["status"]["syncedResourceVersion"] != before).then_some(()))
    })
    .await
}

#[test]
fn neither_the_key_nor_what_a_store_logs_in_with_is_a_target_in_the_operators_namespace() {
    play(async {
        let mut scene = scene("key-target").await?;
        let token = scene.vault.root_token();
        scene
            .write_secret(&scene.namespace, "token", json!({"token": token}))
            .await?;
        scene
            .further_store(
                "token",
                &json!({"tokenSecretRef": {
                    "name": "token", "namespace": scene.namespace, "key": "token",
                }}),
            )
            .await?;
        scene
            .write_secret(&scene.namespace, "mine", json!({"kept": "yes"}))
            .await?;
        let args = [
            "label",
            "secret",
            "mine",
            "keyferry.dev/reserved=true",
            "-n",
            &scene.namespace,
        ];
        scene.cluster.kubectl(&args, "").await?;
        let further = format!("{}-token", scene.class);
        scene
            .wait_ready("clustersecretstore", &further, "True", "")
            .await?;
        let own = key(&scene).await?;
        let secret = async |name: &str| scene.get("secret", name).await;
        let before = [secret("token").await?, secret("mine").await?];
        for policy in ["Owner", "Orphan", "Merge", "CreateOrMerge"] {
            for (target, words) in [
                (KEY, "is the operator's own"),
                ("mine", "is the operator's own"),
                ("token", "logs in with"),
            ] {
                let name = format!("{}-{target}", policy.to_lowercase());
                let spec = json!({
                    "target": {"name": target, "creationPolicy": policy, "immutable": policy == "Owner"},
                    "data": [one("token", "app", "user"), one("key", "app", "user")],
                });
                scene.external_secret(&name, spec).await?;
                scene.wait_ready("externalsecret", &name, "False", words).await?;
            }
        }
        ensure!(
            [secret("token").await?, secret("mine").await?] == before,
            "it was written"
        );
        ensure!(key(&scene).await? == own, "the key was written");
        // Also where there is no key yet, and nobody who would write it again.
        scene.operator = None;
        delete_key(&scene).await?;
        start(&mut scene).await?;
        let made = key(&scene).await?;
        ensure!(
            made["metadata"]["labels"]["keyferry.dev/reserved"] == "true",
            "{made}"
        );
        ensure!(made["metadata"].get("ownerReferences").is_none(), "it is owned");
        // One store's ExternalSecret may make what another logs in with, and renew it.
        scene
            .further_store(
                "born",
                &json!({"tokenSecretRef": {
                    "name": "born", "namespace": scene.namespace, "key": "token",
                }}),
            )
            .await?;
        let spec = json!({"refreshInterval": "1h", "data": [one("token", "app", "user")]});
        scene.external_secret("born", spec).await?;
        scene.wait_value("born", "token", "admin").await?;
        scene.vault.patch("app", json!({"user": "renewed"})).await?;
        scene.force_sync("born").await?;
        scene.wait_value("born", "token", "renewed").await
    });
}
