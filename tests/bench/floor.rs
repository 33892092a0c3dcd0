//! The floor: a bare client that does only the requests that cannot be avoided.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::rig::{Rig, each};

const FLOOR: &str = "floor";

/// Seconds for N objects, 32 in flight: one Vault read, one Secret create and one status patch each; and,
/// apart, the seconds that creating the ExternalSecrets takes, which is the user's part of the work.
pub async fn first_sync(rig: &Rig, objects: usize) -> Result<(f64, f64)> {
    let client = rig.cluster.client();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(FLOOR.into()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    namespaces.create(&PostParams::default(), &namespace).await?;
    let objects_api = in_floor(rig);
    // The objects whose status is patched; no operator runs yet.
    let began = Instant::now();
    each(objects, |i| {
        let api = objects_api.clone();
        async move {
            let object = serde_json::from_value(json!({
                "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": {"name": format!("app-{i}"), "namespace": FLOOR},
                "spec": {"data": [{"secretKey": "k", "remoteRef": {"key": "k"}}]},
            }))?;
            api.create(&PostParams::default(), &object).await?;
            Ok(())
        }
    })
    .await?;
    let created = began.elapsed().as_secs_f64();
    let secrets: Api<Secret> = Api::namespaced(client, FLOOR);
    let began = Instant::now();
    each(objects, |i| {
        let (secrets, objects_api) = (secrets.clone(), objects_api.clone());
        async move {
            let data = read(rig, &format!("bench/{i}")).await?;
            let secret = Secret {
                metadata: ObjectMeta { name: Some(format!("app-{i}")), ..ObjectMeta::default() },
                data: Some([("username", &data["username"]), ("password", &data["password"])].map(|(k, v)| {
                    (k.to_string(), ByteString(v.as_str().unwrap_or_default().as_bytes().to_vec()))
                }).into()),
                ..Secret::default()
            };
            secrets.create(&PostParams::default(), &secret).await?;
            let status = json!({"status": {"refreshTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Ready", "status": "True"}]}});
            objects_api.patch_status(&format!("app-{i}"), &PatchParams::default(), &Patch::Merge(status)).await?;
            Ok(())
        }
    })
    .await?;
    Ok((began.elapsed().as_secs_f64(), created))
}

/// Removes what the floor made.
pub async fn clean(rig: &Rig) -> Result<()> {
    rig.cluster
        .kubectl(
            &["delete", "namespace", FLOOR, "--wait=true", "--timeout=300s"],
            "",
        )
        .await
        .map(drop)
}

fn in_floor(rig: &Rig) -> Api<DynamicObject> {
    let kind = kube::core::GroupVersionKind::gvk("external-secrets.io", "v1", "ExternalSecret");
    Api::namespaced_with(
        rig.cluster.client(),
        FLOOR,
        &kube::core::ApiResource::from_gvk(&kind),
    )
}

async fn read(rig: &Rig, path: &str) -> Result<Value> {
    let answer = rig
        .vault
        .api("GET", &format!("secret/data/{path}"), &Value::Null)
        .await?;
    answer
        .get("data")
        .and_then(|data| data.get("data"))
        .cloned()
        .context("no such secret")
}

/// Milliseconds of one forced refresh: annotate, read Vault, patch the Secret.
pub async fn force_sync(rig: &Rig, rounds: usize) -> Result<Vec<f64>> {
    let client = rig.cluster.client();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "default");
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some("floor".into()),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    };
    secrets.create(&PostParams::default(), &secret).await?;
    let objects = crate::rig::external_secrets(client);
    let mut times = Vec::new();
    for round in 0..rounds {
        let began = Instant::now();
        let annotation = json!({"metadata": {"annotations": {"floor": round.to_string()}}});
        objects
            .patch("app-0", &PatchParams::default(), &Patch::Merge(annotation))
            .await?;
        let data = read(rig, "bench/0").await?;
        let patch = json!({"stringData": {"password": format!("{}-{round}", data["password"])}});
        secrets
            .patch("floor", &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        // The annotation is a trigger for the operator too: let it pass.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(times)
}
