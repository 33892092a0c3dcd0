//! What an ExternalSecret of the tenant's own may not write.

use anyhow::{Context as _, ensure};
use keyferry_testbed::wait_for;
use serde_json::{Value, json};

use super::{FOREIGN, ensure_none_strayed};
use crate::manifest;
use crate::scene::{SOON, Scene, one, play};

/// Secrets of others in the tenant's own namespace, which it may not have us write: name, manifest, what is said.
fn secrets_of_others(namespace: &str, owner_uid: &str) -> Vec<(&'static str, Value, &'static str)> {
    let secret = |name: &str, type_: &str, owner: Value| {
        json!({"apiVersion": "v1", "kind": "Secret", "type": type_, "stringData": {"kept": "yes", "value": "theirs"},
            "metadata": {"name": name, "namespace": namespace, "ownerReferences": owner,
                "annotations": {"kubernetes.io/service-account.name": "default"}}})
    };
    let owner = |api: &str, kind: &str| {
        json!([{"apiVersion": api, "kind": kind, "name": "theirs", "uid": owner_uid,
            "controller": true}])
    };
    vec![
        (
            "token",
            secret("token", "kubernetes.io/service-account-token", json!([])),
            "which is never written; choose another",
        ),
        (
            "bootstrap",
            secret("bootstrap", "bootstrap.kubernetes.io/token", json!([])),
            "which is never written; choose another",
        ),
        (
            "release",
            secret("release", "helm.sh/release.v1", json!([])),
            "which is never written; choose another",
        ),
        (
            "sealed",
            secret("sealed", "Opaque", owner("bitnami.com/v1alpha1", "SealedSecret")),
            "is controlled by SealedSecret theirs; choose",
        ),
        (
            "another",
            secret(
                "another",
                "Opaque",
                owner("external-secrets.io/v1", "ExternalSecret"),
            ),
            "is controlled by ExternalSecret theirs; choose",
        ),
    ]
}

#[test]
fn secrets_that_are_not_the_tenants_to_write_stay_as_they_are() {
    play(async {
        let scene = Scene::new("deputy-targets").await?;
        scene.vault.put("app", json!({"value": "evil"})).await?;
        // The owner exists, or the Secret would be collected as garbage.
        let spec = json!({"target": {"creationPolicy": "None"}, "data": [one("value", "app", "value")]});
        scene.external_secret("theirs", spec).await?;
        let theirs = scene.get("externalsecret", "theirs").await?;
        let uid = theirs["metadata"]["uid"].as_str().context("no uid")?;
        let rows = secrets_of_others(&scene.namespace, uid);
        for (name, manifest, why) in &rows {
            scene.cluster.apply(&manifest.to_string()).await?;
            if *name == "token" {
                // Kubernetes fills it in a moment later.
                wait_for("the token", SOON, || async {
                    Ok(scene.value("token", "token").await?.map(drop))
                })
                .await?;
            }
            let before = scene.get("secret", name).await?;
            let spec = |policy: &str| json!({"target": {"name": name, "creationPolicy": policy}, "data": [one("value", "app", "value")]});
            let policies: &[&str] = match *name {
                "sealed" => &["Owner"],
                _ => &["Owner", "Orphan", "Merge", "CreateOrMerge"],
            };
            for policy in policies {
                let object = format!("{name}-{}", policy.to_lowercase());
                scene.external_secret(&object, spec(policy)).await?;
                scene.wait_ready("externalsecret", &object, "False", why).await?;
            }
            let after = scene.get("secret", name).await?;
            ensure!(before["data"] == after["data"], "{name} was written");
        }
        for (name, type_) in [
            ("new-token", "kubernetes.io/service-account-token"),
            ("new-release", "helm.sh/release.v1"),
        ] {
            let template = json!({"type": type_, "data": {"a": "b"}, "templateFrom": [
                {"target": "Annotations", "literal": "kubernetes.io/service-account.name: default"}]});
            let spec = json!({"target": {"template": template}, "data": [one("value", "app", "value")]});
            scene.external_secret(name, spec).await?;
            scene
                .wait_ready("externalsecret", name, "False", "spec.target.template.type")
                .await?;
            ensure!(scene.get("secret", name).await.is_err(), "{name} was made");
        }
        // There is no field for a namespace: the template is looked for in the tenant's own.
        let mark = scene.cluster.audit_mark();
        for kind in ["secret", "configMap"] {
            let from = json!([{kind: {"name": "extension-apiserver-authentication", "namespace": FOREIGN, "items": [{"key": "client-ca-file"}]}}]);
            let spec = json!({"target": {"template": {"templateFrom": from}}, "data": [one("value", "app", "value")]});
            let name = format!("from-{}", kind.to_lowercase());
            let object = scene.external_secret_manifest(&name, spec);
            let args = ["apply", "--validate=false", "-f", "-"];
            scene.cluster.kubectl(&args, &object.to_string()).await?;
            scene
                .wait_ready(
                    "externalsecret",
                    &name,
                    "False",
                    "extension-apiserver-authentication",
                )
                .await?;
        }
        ensure_none_strayed(&scene, mark)?;
        Ok(())
    });
}

#[test]
fn a_generic_target_is_no_way_to_rights_however_its_kind_is_written() {
    play(async {
        let scene = manifest::stage("deputy-manifest", &[manifest::FLAG]).await?;
        let rows = [
            ("secret", "v1", "Secret", "a Secret is what is written without"),
            ("account", "v1", "ServiceAccount", "gives rights"),
            (
                "role",
                "rbac.authorization.k8s.io/v1",
                "RoleBinding",
                "gives rights",
            ),
            (
                "store",
                "external-secrets.io/v1",
                "SecretStore",
                "is never written",
            ),
            (
                "csr",
                "certificates.k8s.io/v1",
                "CertificateSigningRequest",
                "gives rights",
            ),
            (
                "escaped",
                "%72bac.authorization.k8s.io/v1",
                "RoleBinding",
                "is no kind of an API",
            ),
            ("dots", "../api/v1", "Secret", "is no kind of an API"),
            ("deep", "apps/../../api/v1", "Secret", "is no kind of an API"),
            ("slash", "/v1", "Secret", "is no kind of an API"),
            ("query", "v1?x=", "Secret", "is no kind of an API"),
            ("fragment", "v1#", "ServiceAccount", "is no kind of an API"),
            (
                "upper",
                "RBAC.authorization.k8s.io/v1",
                "RoleBinding",
                "is no kind of an API",
            ),
            ("path", "v1", "Secret/../..", "is no kind of an API"),
            ("lines", "v1\r\nx", "ConfigMap", "is no kind of an API"),
            ("cluster", "v1", "Namespace", "belongs to no namespace"),
        ];
        let mark = scene.cluster.audit_mark();
        for (name, api, kind, why) in rows {
            scene
                .external_secret(name, manifest::spec((api, kind), &json!({})))
                .await?;
            let message = scene.wait_ready("externalsecret", name, "False", why).await?;
            ensure!(message.contains("invalid generic target"), "{name}: {message}");
        }
        for (i, path) in [
            "metadata.namespace",
            "metadata.ownerReferences",
            "metadata",
            "kind",
            "apiVersion",
            "status.x",
        ]
        .iter()
        .enumerate()
        {
            let template = json!({"templateFrom": [{"target": path, "literal": FOREIGN}]});
            let spec = manifest::spec(("v1", "ConfigMap"), &json!({"template": template}));
            scene.external_secret(&format!("place-{i}"), spec).await?;
            scene
                .wait_ready(
                    "externalsecret",
                    &format!("place-{i}"),
                    "False",
                    "which no template sets; choose a place",
                )
                .await?;
        }
        ensure_none_strayed(&scene, mark)?;
        Ok(())
    });
}
