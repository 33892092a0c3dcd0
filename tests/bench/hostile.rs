//! Peak memory under all that is large at once, and what an ordinary object waits meanwhile.

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::observer::Observer;
use crate::rig::{Rig, external_secrets};
use crate::scenarios::{LIMIT, percentile, rounded};

const LABELLED: usize = 150;
const UNLABELLED: usize = 50;
const READERS: usize = 20;
const TEMPLATES: usize = 10;
const STORES: usize = 30;
const MEGABYTE: usize = 1_000_000;
/// Forced syncs of the ordinary object.
const FORCED: usize = 20;
/// Namespaces of the attacker.
const ATTACKERS: [&str; 2] = ["attacker-a", "attacker-b"];

/// See the module.
pub async fn memory_hostile(rig: &Rig) -> Result<Value> {
    for namespace in ATTACKERS {
        rig.cluster
            .kubectl(&["create", "namespace", namespace], "")
            .await?;
    }
    secrets(rig).await?;
    values(rig).await?;
    rig.vault
        .put("bench/0", json!({"username": "user", "password": "round-0"}))
        .await?;
    rig.create_some(0..1, 1, 1, "1h").await?;
    let observer = Observer::start(&rig.cluster);
    let operator = rig.operator().await?;
    observer.secrets(1, LIMIT, |_, text| text == "round-0").await?;
    // The take-over is part of it.
    sleep(Duration::from_secs(5)).await;
    let taken_over = operator.peak_mib()?;
    attack(rig).await?;
    let mut waits = Vec::new();
    for round in 1..=FORCED {
        let value = format!("round-{round}");
        rig.vault
            .put("bench/0", json!({"username": "user", "password": value}))
            .await?;
        let began = Instant::now();
        let patch = json!({"metadata": {"annotations": {"force-sync": value}}});
        external_secrets(rig.cluster.client())
            .patch("app-0", &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        let at = observer.secrets(1, LIMIT, |_, text| text == value).await?;
        waits.push(at.saturating_duration_since(began).as_secs_f64() * 1000.0);
        sleep(Duration::from_millis(500)).await;
    }
    Ok(json!({
        "peak_mib_of_the_take_over": rounded(taken_over), "peak_mib": rounded(operator.peak_mib()?),
        "rss_mib_afterwards": rounded(operator.rss_mib()?),
        "ordinary_p50_ms": percentile(&mut waits, 0.5), "ordinary_worst_ms": percentile(&mut waits, 1.0),
    }))
}

/// Secrets of a megabyte, most of them labelled as ours.
async fn secrets(rig: &Rig) -> Result<()> {
    for i in 0..LABELLED + UNLABELLED {
        let api: Api<Secret> = Api::namespaced(rig.cluster.client(), ATTACKERS[i % 2]);
        let label = (
            "reconcile.external-secrets.io/managed".to_owned(),
            "true".to_owned(),
        );
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(format!("large-{i}")),
                labels: (i < LABELLED).then(|| [label].into()),
                ..ObjectMeta::default()
            },
            data: Some([("token".to_owned(), ByteString(vec![b'x'; MEGABYTE]))].into()),
            ..Secret::default()
        };
        api.create(&PostParams::default(), &secret).await?;
    }
    Ok(())
}

/// Answers of Vault that are much, many, wide or deep.
async fn values(rig: &Rig) -> Result<()> {
    // As much as Vault takes in one piece.
    let ones = vec![vec![1; 9_000]; 9];
    rig.vault.put("hostile/ones", json!({ "v": ones })).await?;
    let wide = (0..9_000).map(|i| (format!("k{i}"), json!("")));
    rig.vault
        .put("hostile/wide", Value::Object(wide.collect()))
        .await?;
    let text = "x".repeat(MEGABYTE);
    rig.vault.put("hostile/text", json!({ "v": text })).await
}

async fn attack(rig: &Rig) -> Result<()> {
    let mut yaml = String::new();
    let mut add = |object: Value| yaml += &format!("---\n{object}\n");
    let vault =
        |auth: Value| json!({"vault": {"server": rig.vault.address(), "path": "secret", "auth": auth}});
    for namespace in ATTACKERS {
        let of = |kind: &str, name: String, spec: Value| {
            json!({
                "apiVersion": "external-secrets.io/v1", "kind": kind,
                "metadata": {"name": name, "namespace": namespace}, "spec": spec,
            })
        };
        for i in 0..STORES {
            let token = json!({"tokenSecretRef": {"name": format!("large-{i}"), "key": "token"}});
            add(of(
                "SecretStore",
                format!("store-{i}"),
                json!({"provider": vault(token)}),
            ));
        }
        let store = json!({"kind": "ClusterSecretStore", "name": "store"});
        for i in 0..READERS {
            let key = ["hostile/ones", "hostile/wide", "hostile/text"][i % 3];
            add(of(
                "ExternalSecret",
                format!("reader-{i}"),
                json!({"refreshInterval": "1s", "secretStoreRef": store, "dataFrom": [{"extract": {"key": key}}]}),
            ));
        }
        let template =
            r#"{{ $l := list }}{{ range 33 }}{{ $l = append $l (repeat 2000000 "x") }}{{ end }}{{ len $l }}"#;
        let from: Vec<Value> = (0..4)
            .map(|i| json!({"secret": {"name": format!("large-{i}"), "items": [{"key": "token"}]}}))
            .collect();
        for i in 0..TEMPLATES {
            let target = match i % 2 {
                0 => json!({"template": {"data": {"out": template}}}),
                _ => json!({"template": {"templateFrom": from}}),
            };
            let data = json!([{"secretKey": "v", "remoteRef": {"key": "bench/0", "property": "password"}}]);
            add(of(
                "ExternalSecret",
                format!("template-{i}"),
                json!({"refreshInterval": "1s", "secretStoreRef": store, "target": target, "data": data}),
            ));
        }
    }
    rig.cluster.kubectl(&["create", "-f", "-"], &yaml).await.map(drop)
}
