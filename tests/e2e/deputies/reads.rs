//! What an ExternalSecret of the tenant's own may not read, by any of its keys and references.

use anyhow::{bail, ensure};
use serde_json::json;

use super::FOREIGN;
use crate::scene::{Scene, login, one, play};

/// Keys that try to leave the mount `secret` of a store whose role may read the mount `kv1` too, and what is said.
const KEYS: &[(&str, &str)] = &[
    ("../kv1/victim", "has a `..` segment"),
    ("a/../../kv1/victim", "has a `..` segment"),
    ("secret/../kv1/victim", "has a `..` segment"),
    ("secret/data/../../kv1/victim", "has a `..` segment"),
    ("./victim", "'.' or '..' segment"),
    ("%2e%2e/kv1/victim", "Secret does not exist"),
    (".%2E/kv1/victim", "Secret does not exist"),
    ("..%2fkv1%2fvictim", "Secret does not exist"),
    ("..;/kv1/victim", "Secret does not exist"),
    ("..\\kv1\\victim", "Secret does not exist"),
    ("\u{ff0e}\u{ff0e}/kv1/victim", "Secret does not exist"),
    ("kv1/victim", "Secret does not exist"),
    ("/kv1/victim", "Secret does not exist"),
    ("//kv1//victim", "Secret does not exist"),
    ("victim?version=1", "Secret does not exist"),
    ("victim#", "Secret does not exist"),
    ("victim%00", "Secret does not exist"),
    ("sys/policies/acl/eso-reader", "Secret does not exist"),
    ("/sys/mounts", "Secret does not exist"),
    ("auth/token/lookup-self", "Secret does not exist"),
    ("a\r\nX-Vault-Namespace: b", "has a control character"),
    ("a\u{0}b", "has a control character"),
];

#[test]
fn no_key_leaves_its_mount_however_it_is_written() {
    play(async {
        let scene = Scene::new("deputy-keys").await?;
        scene
            .vault
            .put("victim", json!({"value": "in the mount"}))
            .await?;
        scene
            .vault
            .api("POST", "kv1/victim", &json!({"value": "beyond"}))
            .await?;
        scene.wait_store("True", "Valid").await?;
        let mark = scene.vault.audit_mark();
        let mut yaml = String::new();
        for (i, (key, _)) in KEYS.iter().enumerate() {
            let (data, find) = (
                json!({"data": [{"secretKey": "v", "remoteRef": {"key": key}}]}),
                json!({"dataFrom": [{"find": {"path": key, "name": {"regexp": ".*"}}}]}),
            );
            for (kind, spec) in [("data", data), ("find", find)] {
                yaml += &format!(
                    "---\n{}\n",
                    scene.external_secret_manifest(&format!("{kind}-{i}"), spec)
                );
            }
        }
        scene.cluster.apply(&yaml).await?;
        for (i, (key, why)) in KEYS.iter().enumerate() {
            let message = scene
                .wait_ready("externalsecret", &format!("data-{i}"), "False", why)
                .await?;
            ensure!(
                message.contains("key") && message.contains(';') || message.contains("mount"),
                "{key:?}: {message}"
            );
            let message = scene
                .wait_ready(
                    "externalsecret",
                    &format!("find-{i}"),
                    "False",
                    "SecretSyncedError",
                )
                .await?;
            ensure!(message.contains("find"), "{key:?}: {message}");
        }
        ensure!(scene.list("secrets").await?.is_empty(), "a Secret was made");
        for path in scene.vault.requests_since(mark)?.keys() {
            let within = path.starts_with("secret/")
                || path == "sys/internal/ui/mounts/secret"
                || path.starts_with("auth/kubernetes/login");
            ensure!(
                within && !path.split('/').any(|part| part == ".."),
                "Vault was asked for {path}"
            );
        }
        Ok(())
    });
}

#[test]
fn no_reference_uses_a_store_that_the_namespace_may_not() {
    play(async {
        let mut scene = Scene::without_operator("deputy-refs").await?;
        scene.vault.put("app", json!({"value": "x"})).await?;
        let conditions = [
            ("named", json!([{"namespaces": [FOREIGN]}])),
            (
                "regex",
                json!([{"namespaceRegexes": ["^kube-.*$", "^deputy-refs$"]}]),
            ),
            (
                "labels",
                json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": FOREIGN}}}]),
            ),
            (
                "none",
                json!([{"namespaceSelector": {"matchExpressions": [{"key": "absent", "operator": "Exists"}]}}]),
            ),
        ];
        for (name, conditions) in &conditions {
            let mut store = scene.store_manifest(scene.vault.address(), &login());
            store["metadata"]["name"] = json!(format!("{}-{name}", scene.class));
            store["spec"]["conditions"] = conditions.clone();
            scene.cluster.apply(&store.to_string()).await?;
        }
        scene.store(scene.vault.address()).await?;
        scene.start_operator(&[]).await?;
        scene.wait_store("True", "Valid").await?;
        let mark = scene.vault.audit_mark();
        let denied = "denied by spec.condition";
        let mut rows = Vec::new();
        for (name, _) in &conditions {
            let store = json!({"kind": "ClusterSecretStore", "name": format!("{}-{name}", scene.class)});
            let source = json!({"storeRef": store});
            let mut entry = one("v", "app", "value");
            entry["sourceRef"] = source.clone();
            rows.extend([
                (
                    format!("{name}-store"),
                    json!({"secretStoreRef": store, "data": [one("v", "app", "value")]}),
                    denied,
                ),
                (
                    format!("{name}-data"),
                    json!({"data": [one("w", "app", "value"), entry]}),
                    denied,
                ),
                (
                    format!("{name}-extract"),
                    json!({"dataFrom": [{"sourceRef": source, "extract": {"key": "app"}}]}),
                    denied,
                ),
                (
                    format!("{name}-find"),
                    json!({"dataFrom": [{"sourceRef": source, "find": {"name": {"regexp": "."}}}]}),
                    denied,
                ),
            ]);
        }
        let generator = json!({"sourceRef": {"generatorRef": {"apiVersion": "generators.external-secrets.io/v1alpha1",
            "kind": "VaultDynamicSecret", "name": "x"}}});
        rows.extend([
            ("kind".into(), json!({"secretStoreRef": {"kind": "SecretStore", "name": scene.class}, "data": [one("v", "app", "value")]}),
                "does not exist; create it"),
            ("generator".into(), json!({"dataFrom": [generator]}), "sourceRef.generatorRef: is not served"),
        ]);
        let yaml: String = rows
            .iter()
            .map(|(name, spec, _)| format!("---\n{}\n", scene.external_secret_manifest(name, spec.clone())))
            .collect();
        scene.cluster.apply(&yaml).await?;
        for (name, _, why) in &rows {
            scene.wait_ready("externalsecret", name, "False", why).await?;
        }
        ensure!(scene.list("secrets").await?.is_empty(), "a Secret was made");
        let asked = scene.vault.requests_since(mark)?;
        let read: Vec<&String> = asked.keys().filter(|path| path.starts_with("secret/")).collect();
        ensure!(read.is_empty(), "Vault was asked for {read:?}");
        // What the definitions themselves refuse.
        for (field, spec) in [
            (
                "spec.secretStoreRef.name",
                json!({"secretStoreRef": {"name": "other/own"}}),
            ),
            (
                "spec.secretStoreRef.kind",
                json!({"secretStoreRef": {"kind": "Secret", "name": "own"}}),
            ),
            (
                "spec.data[0].sourceRef.storeRef.name",
                json!({"data": [{"secretKey": "v", "remoteRef": {"key": "app"},
                "sourceRef": {"storeRef": {"name": "../own"}}}]}),
            ),
            (
                "spec.target.name",
                json!({"target": {"name": "../../kube-system/secrets/victim"}}),
            ),
            ("spec.target.name", json!({"target": {"name": "victim\r\n"}})),
            (
                "spec.target.template",
                json!({"target": {"template": {"type": "bootstrap.kubernetes.io/token"}}}),
            ),
            (
                "templateFrom[0].secret.name",
                json!({"target": {"template": {"templateFrom": [
                {"secret": {"name": "../../kube-system/secrets/victim", "items": [{"key": "k"}]}}]}}}),
            ),
            (
                "templateFrom[0].configMap.name",
                json!({"target": {"template": {"templateFrom": [
                {"configMap": {"name": "a?b", "items": [{"key": "k"}]}}]}}}),
            ),
        ] {
            let mut whole = json!({"data": [one("v", "app", "value")]});
            if let (Some(whole), Some(spec)) = (whole.as_object_mut(), spec.as_object()) {
                whole.extend(spec.clone());
            }
            let Err(error) = scene.external_secret("refused", whole).await else {
                bail!("{field} was taken");
            };
            ensure!(format!("{error:#}").contains(field), "{field}: {error:#}");
        }
        Ok(())
    });
}
