//! What is deleted leaves nothing behind: not in the metrics, and not in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use keyferry_testbed::{Cluster, Operator, OperatorOptions, Vault, wait_for};
use serde_json::{Value, json};

use crate::scene::{SOON, login, one, play};

const NAMESPACE: &str = "passing";

/// How much is kept in memory, by what keeps it.
async fn entries(operator: &Operator) -> Result<BTreeMap<String, String>> {
    let text = operator.metrics().await?;
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("keyferry_entries{of="));
    Ok(lines
        .filter_map(|line| line.split_once("} "))
        .map(|(of, count)| (of.to_string(), count.to_string()))
        .collect())
}

fn store(kind: &str, name: &str, vault: &Vault, auth: &Value) -> Value {
    json!({
        "apiVersion": "external-secrets.io/v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"provider": {"vault": {"server": vault.address(), "path": "secret", "auth": auth}}},
    })
}

/// Stores of each kind, and ExternalSecrets that are synced, rendered, or cannot be synced.
fn manifests(vault: &Vault) -> String {
    let given = json!({"tokenSecretRef": {"name": "token", "key": "token"}});
    let mut passing_login = store("ClusterSecretStore", "passing-login", vault, &login());
    let mut referent = store("ClusterSecretStore", "passing-referent", vault, &given);
    for store in [&mut passing_login, &mut referent] {
        store["metadata"] = json!({"name": store["metadata"]["name"]});
    }
    let mut all = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token", "namespace": NAMESPACE},
            "stringData": {"token": vault.root_token()}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "template", "namespace": NAMESPACE},
            "data": {"text": "{{ .value }}!"}}),
        passing_login,
        referent,
        store("SecretStore", "own", vault, &given),
    ];
    for (name, kind, store, key) in [
        ("by-login", "ClusterSecretStore", "passing-login", "app"),
        ("by-referent", "ClusterSecretStore", "passing-referent", "app"),
        ("by-own", "SecretStore", "own", "app"),
        ("rendered", "SecretStore", "own", "app"),
        ("no-value", "SecretStore", "own", "missing"),
        ("no-store", "SecretStore", "missing", "app"),
    ] {
        let mut spec = json!({
            "refreshInterval": "1s", "secretStoreRef": {"kind": kind, "name": store},
            "data": [one("value", key, "value")],
        });
        if name == "rendered" {
            spec["target"] = json!({"template": {
                "templateFrom": [{"configMap": {"name": "template", "items": [{"key": "text"}]}}],
            }});
        }
        all.push(json!({
            "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
        }));
    }
    all.iter().map(|object| format!("---\n{object}\n")).collect()
}

#[test]
fn what_is_deleted_is_in_no_metric_and_in_no_map_any_more() {
    play(async {
        // A cluster of its own: the operator sees all of it.
        let cluster = Cluster::start().await?;
        cluster.install_chart(&[]).await?;
        let vault = Vault::start(&cluster).await?;
        vault.put("app", json!({"value": "one"})).await?;
        let options = OperatorOptions {
            command: vec![env!("CARGO_BIN_EXE_keyferry").into()],
            ..OperatorOptions::default()
        };
        let operator = Operator::start(&cluster, options).await?;
        operator.wait_ready().await?;
        wait_for("the lead", SOON, || async {
            Ok(operator
                .metrics()
                .await?
                .contains("keyferry_leader 1")
                .then_some(()))
        })
        .await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = entries(&operator).await?;
        ensure!(before.len() >= 10, "{before:?}");
        for round in 0..2 {
            cluster.apply(&manifests(&vault)).await?;
            wait_for("four Secrets and two failures", SOON, || async {
                let text = operator.metrics().await?;
                let of = |ready: &str| {
                    let condition = format!("condition=\"Ready\",status=\"{ready}\"}} 1");
                    let lines = text.lines().filter(|line| {
                        line.starts_with("externalsecret_status_condition") && line.ends_with(&condition)
                    });
                    lines.count()
                };
                ensure!((of("True"), of("False")) == (4, 2), "{text}");
                Ok(Some(()))
            })
            .await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            let full = entries(&operator).await?;
            // What computes is done in a moment, and nothing here is leased, or deleted by its policy.
            let unused = ["computing", "leases", "brake"];
            let used = |of: &str| !unused.iter().any(|unused| of.contains(unused));
            for (of, count) in before.iter().filter(|(of, _)| used(of)) {
                ensure!(full[of] != *count, "{of} does not grow: {full:?}");
            }
            // In the middle of the work: refreshes come every second.
            let stores = [
                "delete",
                "clustersecretstore",
                "passing-login",
                "passing-referent",
            ];
            let namespace = ["delete", "namespace", NAMESPACE];
            let (first, second): (&[&str], &[&str]) = if round == 0 {
                (&stores, &namespace)
            } else {
                (&namespace, &stores)
            };
            cluster.kubectl(first, "").await?;
            cluster.kubectl(second, "").await?;
            wait_for("nothing that is left", SOON, || async {
                let text = operator.metrics().await?;
                let named = text.lines().find(|line| line.contains("passing"));
                ensure!(named.is_none(), "{named:?}");
                let after = entries(&operator).await?;
                ensure!(after == before, "before {before:?}, after {after:?}");
                Ok(Some(()))
            })
            .await?;
        }
        Ok(())
    });
}
