//! The chart and the definitions, on a real API server, with real helm and kubectl.

use anyhow::Result;
use keyferry_testbed::{Cluster, repository};
use serde_json::json;

use crate::scene::{Scene, one, play};

#[test]
fn the_chart_installs_upgrades_and_uninstalls_and_keeps_everybodys_secrets() {
    play(async {
        let cluster = Cluster::start().await?;
        let chart = repository().join("deploy/chart").display().to_string();
        cluster.helm(&["lint", "--strict", &chart]).await?;
        cluster.install_chart(&[]).await?;
        let upgraded = cluster
            .install_chart(&[
                "--set",
                "replicaCount=2",
                "--set",
                "podDisruptionBudget.enabled=true",
            ])
            .await?;
        assert!(upgraded.contains("REVISION: 2"), "{upgraded}");
        let object = json!({
            "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": {"name": "app", "namespace": "default"},
            "spec": {"secretStoreRef": {"name": "s"}, "data": [one("value", "app", "value")]},
        });
        cluster.apply(&object.to_string()).await?;
        cluster.helm(&["uninstall", "keyferry", "-n", "security"]).await?;
        cluster
            .kubectl(&["get", "externalsecret", "app", "-n", "default"], "")
            .await?;
        assert!(
            cluster
                .kubectl(&["get", "deployment", "keyferry", "-n", "security"], "")
                .await
                .is_err()
        );
        Ok(())
    });
}

#[test]
fn the_definitions_apply_client_side_and_in_any_order_with_the_first_external_secret() {
    play(async {
        let cluster = Cluster::start().await?;
        let crds = repository().join("crds").display().to_string();
        cluster.kubectl(&["apply", "-f", &crds], "").await?;
        cluster.kubectl(&["apply", "-f", &crds], "").await?;
        let args = [
            "wait",
            "--for=condition=Established",
            "crd",
            "--all",
            "--timeout=30s",
        ];
        cluster.kubectl(&args, "").await?;
        // An old cluster that once stored v1beta1 accepts them as well.
        let versions = [
            "get",
            "crd",
            "externalsecrets.external-secrets.io",
            "-o",
            "jsonpath={.spec.versions[*].name}",
        ];
        assert_eq!(cluster.kubectl(&versions, "").await?, "v1 v1beta1");
        Ok(())
    });
}

#[test]
fn install_store_and_external_secret_in_one_go_converge() {
    play(async {
        let mut scene = Scene::without_operator("onego").await?;
        scene.vault.put("app", json!({"value": "x"})).await?;
        let object = scene.external_secret_manifest("app", json!({"data": [one("value", "app", "value")]}));
        let store = scene.store_manifest(scene.vault.address(), &json!({"kubernetes": {
            "role": "eso-reader", "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"},
        }}));
        let (start, apply) = (scene.options(&[]), format!("---\n{object}\n---\n{store}"));
        let (operator, applied) = tokio::join!(
            keyferry_testbed::Operator::start(scene.cluster, start),
            scene.cluster.apply(&apply),
        );
        applied?;
        scene.operator = Some(operator?);
        scene.wait_value("app", "value", "x").await
    });
}

#[test]
fn the_chart_gives_no_more_rights_than_it_says() {
    play(async {
        let cluster = Cluster::start().await?;
        cluster.install_chart(&[]).await?;
        let can = async |verb: &str, resource: &str, namespace: &str| -> Result<bool> {
            let account = "--as=system:serviceaccount:security:keyferry";
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let subresource = format!("--subresource={subresource}");
            let args = [
                "auth",
                "can-i",
                verb,
                resource,
                &subresource,
                "-n",
                namespace,
                account,
            ];
            Ok(cluster
                .kubectl(&args, "")
                .await
                .is_ok_and(|answer| answer.trim() == "yes"))
        };
        assert!(can("create", "secrets", "default").await?);
        assert!(can("create", "serviceaccounts/token", "security").await?);
        for (verb, resource) in [
            ("deletecollection", "secrets"),
            ("create", "pods"),
            ("get", "nodes"),
            ("update", "namespaces"),
            ("delete", "externalsecrets"),
        ] {
            assert!(!can(verb, resource, "default").await?, "{verb} {resource}");
        }
        cluster
            .install_chart(&["--set", "scopedRBAC=true", "--set", "scopedNamespaces={default}"])
            .await?;
        assert!(can("create", "secrets", "default").await?);
        assert!(!can("get", "secrets", "kube-system").await?);
        Ok(())
    });
}
