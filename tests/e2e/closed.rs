//! What may no longer be read serves nobody, from that moment on.

use std::time::Duration;

use anyhow::ensure;
use keyferry_testbed::{Cluster, Mode, Operator, OperatorOptions, Proxy, wait_for};
use serde_json::json;
use tokio::time::sleep;

use crate::scene::{SOON, Scene, login, one, play};

#[test]
fn a_store_that_becomes_malformed_or_is_deleted_serves_nobody_and_serves_again_when_it_is_mended() {
    play(async {
        let scene = Scene::new("closed").await?;
        scene.vault.put("app", json!({"k": "old"})).await?;
        let interval = json!({"refreshInterval": "1h", "data": [one("k", "app", "k")]});
        scene.external_secret("app", interval).await?;
        scene.wait_value("app", "k", "old").await?;
        scene.wait_ready("externalsecret", "app", "True", "").await?;
        // One edit: the namespace is left out, and a number is beyond what can be read.
        let fine = scene.store_manifest(scene.vault.address(), &login());
        let mut narrowed = fine.clone();
        narrowed["spec"]["conditions"] = json!([{"namespaces": ["elsewhere"]}]);
        narrowed["spec"]["refreshInterval"] = json!(99_999_999_999_i64);
        scene.cluster.apply(&narrowed.to_string()).await?;
        scene.wait_store("False", "spec.refreshInterval").await?;
        scene
            .wait_ready("externalsecret", "app", "False", "cannot be read")
            .await?;
        scene.vault.put("app", json!({"k": "new"})).await?;
        scene.force_sync("app").await?;
        sleep(Duration::from_secs(3)).await;
        assert_eq!(scene.value("app", "k").await?.as_deref(), Some("old"));
        let mut mended = fine.clone();
        mended["spec"]["refreshInterval"] = json!(300);
        scene.cluster.apply(&mended.to_string()).await?;
        scene.wait_store("True", "Valid").await?;
        scene.wait_value("app", "k", "new").await?;
        scene.wait_ready("externalsecret", "app", "True", "").await?;
        // It is not due for an hour, and told all the same.
        let name = fine["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        scene
            .cluster
            .kubectl(&["delete", "clustersecretstore", &name], "")
            .await?;
        scene
            .wait_ready("externalsecret", "app", "False", "does not exist")
            .await?;
        assert_eq!(scene.value("app", "k").await?.as_deref(), Some("new"));
        scene.cluster.apply(&fine.to_string()).await?;
        scene
            .wait_ready("externalsecret", "app", "True", "")
            .await
            .map(drop)
    });
}

#[test]
fn what_a_store_denies_while_it_is_read_is_not_written() {
    play(async {
        let scene = Scene::new("denied-midway").await?;
        let address = scene
            .vault
            .address()
            .split("//")
            .nth(1)
            .unwrap_or_default()
            .parse()?;
        let proxy = Proxy::start(address).await?;
        let mut store = scene.store_manifest(&format!("http://{}", proxy.address()), &login());
        scene.cluster.apply(&store.to_string()).await?;
        scene.vault.put("app", json!({"k": "old"})).await?;
        let spec = json!({"refreshInterval": "1h", "data": [one("k", "app", "k")]});
        scene.external_secret("app", spec).await?;
        scene.wait_value("app", "k", "old").await?;
        scene.vault.put("app", json!({"k": "new"})).await?;
        let mark = scene.vault.audit_mark();
        proxy.set(Mode::Delay(Duration::from_secs(4)));
        scene.force_sync("app").await?;
        // Vault has answered, and the answer is on its way.
        for _ in 0..40 {
            if scene.vault.requests_since(mark)?.contains_key("secret/data/app") {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        store["spec"]["conditions"] = json!([{"namespaces": ["elsewhere"]}]);
        scene.cluster.apply(&store.to_string()).await?;
        sleep(Duration::from_secs(5)).await;
        proxy.set(Mode::Pass);
        scene
            .wait_ready("externalsecret", "app", "False", "denied by spec.condition")
            .await?;
        assert_eq!(scene.value("app", "k").await?.as_deref(), Some("old"));
        Ok(())
    });
}

#[test]
fn a_namespace_that_may_not_be_listed_keeps_no_other_unserved_and_is_served_as_soon_as_it_may_be() {
    play(async {
        // The chart's Roles are for one installation.
        let cluster = Cluster::start().await?;
        cluster.kubectl(&["create", "namespace", "other"], "").await?;
        let scoped = [
            "--set",
            "scopedRBAC=true",
            "--set",
            "scopedNamespaces={default,other,gone}",
        ];
        cluster.kubectl(&["create", "namespace", "gone"], "").await?;
        cluster.install_chart(&scoped).await?;
        cluster.kubectl(&["delete", "namespace", "gone"], "").await?;
        let bindings = cluster
            .kubectl(&["get", "rolebindings", "-n", "other", "-o", "json"], "")
            .await?;
        let mut bindings: serde_json::Value = serde_json::from_str(&bindings)?;
        let mut binding = bindings["items"][0].take();
        let name = binding["metadata"]["name"].take();
        binding["metadata"] = json!({"name": name, "namespace": "other"});
        cluster
            .kubectl(&["delete", "rolebinding", "--all", "-n", "other"], "")
            .await?;
        for namespace in ["default", "other"] {
            let store = json!({
                "apiVersion": "external-secrets.io/v1", "kind": "SecretStore",
                "metadata": {"name": "fake", "namespace": namespace},
                "spec": {"provider": {"fake": {"data": [{"key": "k", "value": "v"}]}}},
            });
            let object = json!({
                "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
                "metadata": {"name": "app", "namespace": namespace},
                "spec": {"secretStoreRef": {"name": "fake"}, "data": [{"secretKey": "k", "remoteRef": {"key": "k"}}]},
            });
            cluster.apply(&format!("{store}\n---\n{object}")).await?;
        }
        let options = OperatorOptions {
            command: vec![env!("CARGO_BIN_EXE_keyferry").into()],
            ..OperatorOptions::default()
        };
        let operator = Operator::start(&cluster, options).await?;
        operator.wait_ready().await?;
        let has = async |namespace: &'static str| {
            wait_for(&format!("Secret {namespace}/app"), SOON, || async {
                let shown = cluster
                    .kubectl(&["get", "secret", "app", "-n", namespace], "")
                    .await;
                Ok(shown.ok().map(drop))
            })
            .await
        };
        has("default").await?;
        let unserved = async |namespace: &str| {
            let series = format!("keyferry_namespace_unserved{{namespace=\"{namespace}\"}} 1");
            anyhow::Ok(operator.metrics().await?.contains(&series))
        };
        ensure!(unserved("other").await? && unserved("gone").await? && !unserved("default").await?);
        ensure!(operator.logs().contains("namespace other is not served"));
        let events = [
            "get",
            "events",
            "-n",
            "security",
            "-o",
            "jsonpath={.items[*].reason}",
        ];
        wait_for("the event", SOON, || async {
            let reasons = cluster.kubectl(&events, "").await?;
            Ok(reasons.contains("NamespaceNotServed").then_some(()))
        })
        .await?;
        cluster.apply(&binding.to_string()).await?;
        has("other").await?;
        ensure!(!unserved("other").await? && unserved("gone").await?);
        Ok(())
    });
}
