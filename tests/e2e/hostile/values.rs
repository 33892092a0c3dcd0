//! Values that are too much.

use anyhow::Result;
use futures::future::try_join_all;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use serde_json::{Value, json};

use super::{Hostile, attack, stage};
use crate::scene::{Scene, one, play};

#[test]
fn values_that_are_too_much_too_deep_or_of_odd_names_are_named() {
    play(async {
        let scene = stage("hostile-values").await?;
        let vault = &scene.vault;
        let large = "x".repeat(700_000);
        for i in 0..25 {
            vault.put(&format!("large/{i}"), json!({"value": large})).await?;
        }
        let keys: serde_json::Map<String, Value> =
            (0..10_000).map(|i| (format!("key-{i}"), json!("v"))).collect();
        vault.put("keys", Value::Object(keys)).await?;
        vault.put("odd", json!({"a/b": "1", "a b": "2"})).await?;
        vault.put("odd2", json!({"ключ": "1"})).await?;
        vault
            .put("unicode", json!({"value": "\u{202e}\u{0}\u{feff}💥é"}))
            .await?;
        let nested = (0..120).fold(json!("x"), |inner, _| json!([inner]));
        vault.put("deep", json!({"value": nested})).await?;
        let entries = |count: usize| -> Value {
            (0..count).map(|i| json!({"secretKey": format!("k{i}"), "remoteRef": {"key": format!("large/{i}"), "property": "value"}})).collect()
        };
        let extract =
            |keys: &[&str]| -> Value { keys.iter().map(|key| json!({"extract": {"key": key}})).collect() };
        let collide = json!([{"extract": {"key": "keys"}, "rewrite": [{"regexp": {"source": "key-.*", "target": "same"}}]}]);
        attack(
            &scene,
            vec![
                Hostile::refused(
                    "two",
                    json!({"data": entries(2)}),
                    "a Secret holds at most 1048576",
                ),
                Hostile::refused("all", json!({"data": entries(25)}), "more than 16 MiB together"),
                Hostile::refused(
                    "found",
                    json!({"dataFrom": [{"find": {"path": "large", "name": {"regexp": ".*"}}}]}),
                    "more than 8 MiB",
                ),
                Hostile::new(
                    "keys",
                    json!({"dataFrom": extract(&["keys"])}),
                    "True",
                    "SecretSynced",
                ),
                Hostile::refused("collide", json!({"dataFrom": collide}), "same"),
                Hostile::refused(
                    "odd",
                    json!({"dataFrom": extract(&["odd"])}),
                    "secret name collision",
                ),
                Hostile::refused(
                    "odd-too",
                    json!({"dataFrom": extract(&["odd2"])}),
                    "only ASCII letters",
                ),
                Hostile::new(
                    "twice",
                    json!({"data": [one("value", "neighbour", "value"), one("value", "large/0", "value")]}),
                    "True",
                    "SecretSynced",
                ),
                Hostile::new(
                    "over",
                    json!({"dataFrom": extract(&["neighbour", "unicode"])}),
                    "True",
                    "SecretSynced",
                ),
                Hostile::new(
                    "deep",
                    json!({"data": [{"secretKey": "value", "remoteRef": {"key": "deep"}}]}),
                    "True",
                    "SecretSynced",
                ),
            ],
        )
        .await?;
        Ok(())
    });
}

/// Secrets of a megabyte that are nobody's targets.
async fn megabytes(scene: &Scene, count: usize) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    for i in 0..count {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(format!("megabyte-{i}")),
                ..ObjectMeta::default()
            },
            data: Some([("token".to_owned(), ByteString(vec![b'x'; 1_000_000]))].into()),
            ..Secret::default()
        };
        secrets.create(&PostParams::default(), &secret).await?;
    }
    Ok(())
}

#[test]
fn large_answers_and_large_secrets_of_others_share_one_budget_of_memory() {
    play(async {
        let scene = stage("hostile-memory").await?;
        megabytes(&scene, 40).await?;
        // As much as Vault takes in one piece.
        let ones = vec![vec![1; 9_000]; 9];
        scene.vault.put("ones", json!({"v": ones})).await?;
        scene
            .vault
            .put("text", json!({"v": "x".repeat(1_000_000)}))
            .await?;
        let stores = (0..40).map(async |i| {
            let token = json!({"tokenSecretRef": {"name": format!("megabyte-{i}"), "key": "token", "namespace": scene.namespace}});
            let mut store = scene.store_manifest(scene.vault.address(), &token);
            store["metadata"]["name"] = json!(format!("large-{i}"));
            scene.cluster.apply(&store.to_string()).await
        });
        try_join_all(stores).await?;
        let from = |first: usize| -> Vec<Value> {
            (first..first + 4)
                .map(|i| json!({"secret": {"name": format!("megabyte-{i}"), "items": [{"key": "token"}]}}))
                .collect()
        };
        let mut objects = Vec::new();
        for i in 0..5 {
            let read = |key: &str| json!({"refreshInterval": "1h", "dataFrom": [{"extract": {"key": key}}]});
            objects.push(Hostile::served(&format!("ones-{i}"), read("ones")));
            objects.push(Hostile::served(&format!("text-{i}"), read("text")));
            let spec = json!({
                "refreshInterval": "1h", "target": {"template": {"templateFrom": from(i)}},
                "data": [one("value", "neighbour", "value")],
            });
            objects.push(Hostile::served(&format!("sources-{i}"), spec));
        }
        attack(&scene, objects).await
    });
}
