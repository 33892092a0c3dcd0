//! The API server's store is restored from a backup while the operator runs.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use keyferry::api::external_secret::ExternalSecret;
use keyferry_testbed::{Cluster, Operator, OperatorOptions, Vault, wait_for};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::scene::{SOON, one};
use crate::{external, kv, play, store};

struct Stage {
    cluster: Cluster,
    externals: Api<ExternalSecret>,
    secrets: Api<Secret>,
}

impl Stage {
    async fn start() -> Result<(Self, Vault)> {
        let cluster = Cluster::start().await?;
        cluster.install_chart(&[]).await?;
        let vault = Vault::start(&cluster).await?;
        cluster.apply(&store(&kv(&vault)).to_string()).await?;
        let client = cluster.client();
        let stage = Self {
            cluster,
            externals: Api::namespaced(client.clone(), "default"),
            secrets: Api::namespaced(client, "default"),
        };
        Ok((stage, vault))
    }

    async fn external(&self, name: &str, path: &str) -> Result<()> {
        let object = external(name, &json!({"data": [one("value", path, "value")]}));
        self.cluster.apply(&object.to_string()).await.map(drop)
    }

    async fn patch(&self, name: &str, patch: Value) -> Result<()> {
        let patch = Patch::Merge(patch);
        self.externals
            .patch(name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }

    async fn holds(&self, name: &str, value: &str) -> Result<()> {
        wait_for(&format!("{value} in Secret {name}"), 2 * SOON, || async {
            let secret = self.secrets.get_opt(name).await?;
            let data = secret.and_then(|secret| secret.data).unwrap_or_default();
            Ok(data
                .get("value")
                .filter(|held| held.0 == value.as_bytes())
                .map(drop))
        })
        .await
    }
}

#[test]
fn an_operator_goes_on_by_itself_when_the_api_server_goes_back_in_time() {
    play(async {
        let (stage, vault) = Stage::start().await?;
        for path in ["a", "b", "c", "rotated"] {
            vault.put(path, json!({"value": path})).await?;
        }
        let options = OperatorOptions {
            command: vec![env!("CARGO_BIN_EXE_keyferry").into()],
            ..OperatorOptions::default()
        };
        let operator = Operator::start(&stage.cluster, options).await?;
        operator.wait_ready().await?;
        stage.external("wish", "a").await?;
        stage.external("rotated", "rotated").await?;
        stage.holds("wish", "a").await?;
        stage.holds("rotated", "rotated").await?;
        stage.cluster.back_up(false).await?;
        // What comes after the backup: wishes, a value of Vault, an object.
        for path in ["b", "a", "b", "c", "b"] {
            stage
                .patch("wish", json!({"spec": {"data": [one("value", path, "value")]}}))
                .await?;
            stage.holds("wish", path).await?;
        }
        vault.put("rotated", json!({"value": "anew"})).await?;
        stage
            .patch(
                "rotated",
                json!({"metadata": {"annotations": {"force-sync": "1"}}}),
            )
            .await?;
        stage.holds("rotated", "anew").await?;
        stage.external("future", "a").await?;
        stage.holds("future", "a").await?;
        stage.cluster.back_up(true).await?;
        stage.holds("wish", "a").await?;
        // Its restored status says that it is not due for an hour, and its restored Secret holds an older value.
        stage.holds("rotated", "anew").await?;
        // With a generation that was there already, and another wish.
        stage
            .patch("wish", json!({"spec": {"data": [one("value", "c", "value")]}}))
            .await?;
        stage.holds("wish", "c").await?;
        // What somebody does to a target is seen again.
        stage.secrets.delete("rotated", &DeleteParams::default()).await?;
        stage.holds("rotated", "anew").await?;
        ensure!(operator.runs(), "the operator ended");
        ensure!(
            operator.logs().contains("went back in time"),
            "{}",
            operator.logs()
        );
        Ok(())
    });
}
