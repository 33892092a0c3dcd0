//! The deletion brake: what makes the secrets of a store look gone deletes few of their targets.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::jiff::Timestamp;
use keyferry_testbed::wait_for;
use serde_json::{Value, json};

use crate::manifest::{FLAG, stage};
use crate::scene::{SOON, Scene, one, play};

const ANNOTATION: &str = "keyferry.dev/release-deletions";

fn spec(target: &Value, key: &str) -> Value {
    json!({"refreshInterval": "1h", "target": target, "data": [one("value", key, "value")]})
}

/// Takes the values of so many away at once, as a restored backup does.
async fn vanish(scene: &Scene, count: usize) -> Result<()> {
    let gone = (0..count).map(|i| {
        let path = format!("secret/metadata/app/{i}");
        async move { scene.vault.api("DELETE", &path, &Value::Null).await }
    });
    try_join_all(gone).await?;
    force_all(scene, count).await
}

async fn force_all(scene: &Scene, count: usize) -> Result<()> {
    for i in 0..count {
        scene.force_sync(&format!("app-{i}")).await?;
    }
    Ok(())
}

/// The names of the ExternalSecrets of which Ready has this reason.
async fn with_reason(scene: &Scene, reason: &str) -> Result<Vec<String>> {
    let objects = scene.list("externalsecrets").await?;
    let named = objects
        .iter()
        .filter(|object| object["status"]["conditions"][0]["reason"] == reason);
    Ok(named
        .filter_map(|object| Some(object["metadata"]["name"].as_str()?.to_owned()))
        .collect())
}

/// Waits until so many are deleted and so many kept, and all targets that are not deleted are there.
async fn wait_split(scene: &Scene, reason: &str, kind: &str, gone: usize, held: usize) -> Result<()> {
    wait_for(&format!("{gone} to go and {held} to be kept"), SOON, || async {
        let deleted = with_reason(scene, reason).await?;
        let kept = with_reason(scene, "DeletionHeld").await?;
        ensure!(
            deleted.len() == gone && kept.len() == held,
            "{} of {gone} went, {} of {held} are kept",
            deleted.len(),
            kept.len()
        );
        Ok(Some(()))
    })
    .await
    .with_context(|| scene.story())?;
    for name in with_reason(scene, "DeletionHeld").await? {
        let target = scene.get(kind, &name).await?;
        ensure!(!target["data"]["value"].is_null(), "{name} is empty");
    }
    Ok(())
}

async fn wait_metric(scene: &Scene, held: usize) -> Result<()> {
    let line = format!("keyferry_deletions_held {held}\n");
    wait_for(&line, SOON, || async {
        let metrics = scene.operator().metrics().await?;
        let lines = metrics.lines();
        let is: Vec<_> = lines
            .filter(|line| line.contains("deletions_held") && !line.starts_with('#'))
            .collect();
        ensure!(metrics.contains(&line), "{is:?}");
        Ok(Some(()))
    })
    .await
}

fn in_an_hour() -> Result<String> {
    let then = SystemTime::now().duration_since(UNIX_EPOCH)? + Duration::from_secs(3600);
    Ok(Timestamp::from_second(i64::try_from(then.as_secs())?)?.to_string())
}

#[test]
fn values_that_vanish_at_once_delete_few_targets_until_somebody_releases_the_rest() {
    play(async {
        const COUNT: usize = 30;
        let mut scene = Scene::without_operator("brake").await?;
        scene.store(scene.vault.address()).await?;
        scene.start_operator(&[]).await?;
        let target = json!({"deletionPolicy": "Delete"});
        for i in 0..COUNT {
            scene
                .vault
                .put(&format!("app/{i}"), json!({"value": "good"}))
                .await?;
            scene
                .external_secret(&format!("app-{i}"), spec(&target, &format!("app/{i}")))
                .await?;
        }
        scene.wait_synced(COUNT).await?;
        vanish(&scene, COUNT).await?;
        wait_split(&scene, "SecretDeleted", "secret", 10, 20).await?;
        wait_metric(&scene, 20).await?;
        let held = with_reason(&scene, "DeletionHeld").await?;
        let message = scene
            .wait_ready("externalsecret", &held[0], "False", ANNOTATION)
            .await?;
        ensure!(
            message.contains(&scene.class) && message.contains("--deletion-brake=25%,10"),
            "{message}"
        );
        let events = ["get", "events", "-n", &scene.namespace, "-o", "json"];
        wait_for("an event of a held deletion", SOON, || async {
            let events = scene.cluster.kubectl(&events, "").await?;
            Ok(events.contains("\"reason\": \"DeletionHeld\"").then_some(()))
        })
        .await?;

        // Nothing leaks out by looking again, nor by a restart.
        force_all(&scene, COUNT).await?;
        scene.operator = None;
        scene.start_operator(&[]).await?;
        wait_metric(&scene, 20).await?;
        wait_split(&scene, "SecretDeleted", "secret", 10, 20).await?;

        // What is found again is as before, and the rest stays.
        let number = held[0].trim_start_matches("app-");
        scene
            .vault
            .put(&format!("app/{number}"), json!({"value": "good"}))
            .await?;
        scene.force_sync(&held[0]).await?;
        scene
            .wait_ready("externalsecret", &held[0], "True", "secret synced")
            .await?;
        wait_split(&scene, "SecretDeleted", "secret", 10, 19).await?;
        wait_metric(&scene, 19).await?;

        // A release that does not end is none.
        scene
            .annotate(&held[1], &format!("{ANNOTATION}=9999-01-01T00:00:00Z"))
            .await?;
        scene
            .annotate(&held[2], &format!("{ANNOTATION}={}", in_an_hour()?))
            .await?;
        scene.wait_gone("secret", &held[2]).await?;
        wait_split(&scene, "SecretDeleted", "secret", 11, 18).await?;

        let released = format!("{ANNOTATION}={}", in_an_hour()?);
        let store = ["annotate", "clustersecretstore", &scene.class, &released];
        scene.cluster.kubectl(&store, "").await?;
        wait_split(&scene, "SecretDeleted", "secret", COUNT - 1, 0).await?;
        wait_metric(&scene, 0).await?;
        scene.wait_value(&held[0], "value", "good").await
    });
}

#[test]
fn generic_targets_are_kept_too_by_a_brake_of_its_own_setting() {
    play(async {
        const COUNT: usize = 4;
        let scene = stage("brake-manifest", &[FLAG, "--deletion-brake=30%,1"]).await?;
        let target =
            json!({"deletionPolicy": "Delete", "manifest": {"apiVersion": "v1", "kind": "ConfigMap"}});
        for i in 0..COUNT {
            scene
                .vault
                .put(&format!("app/{i}"), json!({"value": "good"}))
                .await?;
            scene
                .external_secret(&format!("app-{i}"), spec(&target, &format!("app/{i}")))
                .await?;
        }
        scene.wait_synced(COUNT).await?;
        vanish(&scene, COUNT).await?;
        wait_split(&scene, "ResourceDeleted", "configmap", 1, 3).await?;
        let held = with_reason(&scene, "DeletionHeld").await?;
        scene
            .annotate(&held[0], &format!("{ANNOTATION}={}", in_an_hour()?))
            .await?;
        scene.wait_gone("configmap", &held[0]).await?;
        wait_split(&scene, "ResourceDeleted", "configmap", 2, 2).await
    });
}
