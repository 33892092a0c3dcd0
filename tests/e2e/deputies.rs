//! Confused deputies: what a tenant with rights in a namespace of its own tries to have the operator read or write
//! elsewhere, field by field. Each is refused with words that say what, where and what to do, and the audit logs of
//! the API server and of Vault show that the operator did not try.

use anyhow::{Context as _, Result, bail, ensure};
use keyferry_testbed::cluster::AuditEvent;
use serde_json::{Value, json};

use crate::manifest;
use crate::scene::{Scene, login, one, play};

/// Where a tenant has no rights.
const FOREIGN: &str = "kube-system";
const OPERATOR: &str = "system:serviceaccount:security:keyferry";

/// What the operator asked of the API server in the foreign namespace, or by a path that leaves its place.
fn strayed(scene: &Scene, mark: u64) -> Result<Vec<String>> {
    let strays = |event: &AuditEvent| {
        let path = event.uri.split('?').next().unwrap_or_default();
        path.contains(FOREIGN) || path.contains("..") || path.contains('%')
    };
    // Operators of other tests ask this API server, too.
    let mut events = scene.cluster.audit_since(mark)?;
    events.retain(|event| {
        event.user() == OPERATOR && event.credential() == Some(scene.operator().credential())
    });
    ensure!(!events.is_empty(), "the audit log shows no operator");
    let strays = events.iter().filter(|event| strays(event));
    Ok(strays
        .map(|event| format!("{} {}", event.verb, event.uri))
        .collect())
}

/// A SecretStore in the tenant's namespace with these fields of its provider.
fn tenants_store(scene: &Scene, name: &str, provider: &str, fields: &Value) -> Value {
    let mut spec = json!({"server": scene.vault.address(), "path": "secret"});
    if let (Some(spec), Some(fields)) = (spec.as_object_mut(), fields.as_object()) {
        spec.extend(fields.clone());
    }
    json!({
        "apiVersion": "external-secrets.io/v1", "kind": "SecretStore",
        "metadata": {"name": name, "namespace": scene.namespace},
        "spec": {"controller": scene.class, "provider": {provider: spec}},
    })
}

/// Every field of a SecretStore that names an object, with the name of the field.
fn references(secret: &Value, account: &Value) -> Vec<(&'static str, Value)> {
    let whole = json!({"name": "own", "key": "k"});
    let jwt = |auth: Value| json!({"auth": {"jwt": auth}});
    let iam = |id: &Value, key: &Value, session: &Value| {
        json!({"auth": {"iam": {"vaultRole": "r", "secretRef": {"accessKeyIDSecretRef": id, "secretAccessKeySecretRef": key,
            "sessionTokenSecretRef": session}}}})
    };
    let with_token = |further: Value| {
        let mut fields = json!({"auth": {"tokenSecretRef": whole}});
        if let (Some(fields), Some(further)) = (fields.as_object_mut(), further.as_object()) {
            fields.extend(further.clone());
        }
        fields
    };
    vec![
        ("auth.tokenSecretRef", json!({"auth": {"tokenSecretRef": secret}})),
        (
            "auth.appRole.secretRef",
            json!({"auth": {"appRole": {"roleId": "r", "secretRef": secret}}}),
        ),
        (
            "auth.appRole.roleRef",
            json!({"auth": {"appRole": {"roleRef": secret, "secretRef": whole}}}),
        ),
        (
            "auth.kubernetes.serviceAccountRef",
            json!({"auth": {"kubernetes": {"role": "r", "serviceAccountRef": account}}}),
        ),
        (
            "auth.kubernetes.secretRef",
            json!({"auth": {"kubernetes": {"role": "r", "secretRef": secret}}}),
        ),
        (
            "auth.ldap.secretRef",
            json!({"auth": {"ldap": {"username": "u", "secretRef": secret}}}),
        ),
        (
            "auth.userPass.secretRef",
            json!({"auth": {"userPass": {"username": "u", "secretRef": secret}}}),
        ),
        (
            "auth.jwt.secretRef",
            jwt(json!({"role": "r", "secretRef": secret})),
        ),
        (
            "auth.jwt.kubernetesServiceAccountToken.serviceAccountRef",
            jwt(json!({"role": "r", "kubernetesServiceAccountToken": {"serviceAccountRef": account}})),
        ),
        (
            "auth.cert.clientCert",
            json!({"auth": {"cert": {"clientCert": secret, "secretRef": whole}}}),
        ),
        (
            "auth.cert.secretRef",
            json!({"auth": {"cert": {"clientCert": whole, "secretRef": secret}}}),
        ),
        (
            "auth.iam.secretRef.accessKeyIDSecretRef",
            iam(secret, &whole, &whole),
        ),
        (
            "auth.iam.secretRef.secretAccessKeySecretRef",
            iam(&whole, secret, &whole),
        ),
        (
            "auth.iam.secretRef.sessionTokenSecretRef",
            iam(&whole, &whole, secret),
        ),
        (
            "auth.iam.jwt.serviceAccountRef",
            json!({"auth": {"iam": {"vaultRole": "r", "jwt": {"serviceAccountRef": account}}}}),
        ),
        (
            "auth.gcp.secretRef.secretAccessKeySecretRef",
            json!({"auth": {"gcp": {"role": "r", "secretRef": {"secretAccessKeySecretRef": secret}}}}),
        ),
        (
            "tls.certSecretRef",
            with_token(json!({"tls": {"certSecretRef": secret, "keySecretRef": whole}})),
        ),
        (
            "tls.keySecretRef",
            with_token(json!({"tls": {"certSecretRef": whole, "keySecretRef": secret}})),
        ),
    ]
}

/// The messages of stores that are all refused, in the order of their rows.
async fn refusals(scene: &Scene, stores: &[(String, Value)]) -> Result<Vec<String>> {
    let yaml: String = stores
        .iter()
        .map(|(_, store)| format!("---\n{store}\n"))
        .collect();
    scene.cluster.apply(&yaml).await?;
    let mut messages = Vec::new();
    for (_, store) in stores {
        let name = store["metadata"]["name"].as_str().unwrap_or_default();
        let message = scene
            .wait_ready("secretstore", name, "False", "InvalidProviderConfig")
            .await?;
        messages.push(message);
    }
    Ok(messages)
}

#[test]
fn a_secret_store_reaches_no_other_namespace_by_any_of_its_fields() {
    play(async {
        let mut scene = Scene::without_operator("deputy-stores").await?;
        scene.start_operator(&[]).await?;
        let (mark, vault_mark) = (scene.cluster.audit_mark(), scene.vault.audit_mark());
        let secret = json!({"name": "victim", "key": "k", "namespace": FOREIGN});
        let account = json!({"name": "default", "namespace": FOREIGN});
        let own = json!({"tokenSecretRef": {"name": "own", "key": "k"}});
        let mut rows: Vec<(&str, &str, Value)> = references(&secret, &account)
            .into_iter()
            .map(|(field, fields)| ("vault", field, fields))
            .collect();
        for kind in ["Secret", "ConfigMap"] {
            let provider = json!({"type": kind, "name": "victim", "key": "k", "namespace": FOREIGN});
            for at in ["vault", "openBao"] {
                rows.push((at, "caProvider", json!({"auth": own, "caProvider": provider})));
            }
        }
        rows.extend(
            references(&secret, &account)
                .into_iter()
                .filter(|(field, _)| {
                    [
                        "auth.tokenSecretRef",
                        "auth.kubernetes",
                        "auth.appRole",
                        "auth.userPass",
                    ]
                    .iter()
                    .any(|method| field.starts_with(method))
                })
                .map(|(field, fields)| ("openBao", field, fields)),
        );
        let stores: Vec<(String, Value)> = rows
            .iter()
            .enumerate()
            .map(|(i, (provider, field, fields))| {
                let field = format!("spec.provider.{provider}.{field}.namespace");
                (
                    field,
                    tenants_store(&scene, &format!("foreign-{i}"), provider, fields),
                )
            })
            .collect();
        for ((field, _), message) in stores.iter().zip(refusals(&scene, &stores).await?) {
            let wanted = format!(
                "{field}: namespace should either be empty or match the namespace of the SecretStore for a namespaced \
                 SecretStore; it says '{FOREIGN}', the store is in '{}'",
                scene.namespace
            );
            ensure!(message == wanted, "{field}: {message}");
        }
        let strayed = strayed(&scene, mark)?;
        ensure!(strayed.is_empty(), "the operator asked for {strayed:?}");
        let asked = scene.vault.requests_since(vault_mark)?;
        ensure!(asked.is_empty(), "Vault was asked for {asked:?}");
        Ok(())
    });
}

#[test]
fn a_name_that_is_a_path_leads_nowhere_in_any_field_of_a_store() {
    play(async {
        let mut scene = Scene::without_operator("deputy-names").await?;
        scene.start_operator(&[]).await?;
        let mark = scene.cluster.audit_mark();
        let mut stores = Vec::new();
        let names = [
            "../../kube-system/secrets/victim",
            "..%2f..%2fkube-system%2fsecrets%2fvictim",
            "victim?fieldSelector=x",
            "victim\r\nX-Evil: 1",
            "vıctim",
        ];
        for (i, name) in names.iter().enumerate() {
            let (secret, account) = (json!({"name": name, "key": "k"}), json!({"name": name}));
            for (j, (field, fields)) in references(&secret, &account).into_iter().enumerate() {
                // All fields with the first name, and one with each of the others.
                if i == 0 || j == i {
                    let store = tenants_store(&scene, &format!("path-{i}-{j}"), "vault", &fields);
                    stores.push((
                        format!("spec.provider.vault.{field}.name: {name:?} is no name"),
                        store,
                    ));
                }
            }
        }
        for ((wanted, _), message) in stores.iter().zip(refusals(&scene, &stores).await?) {
            ensure!(
                message.starts_with(wanted) && message.contains("use small ASCII letters"),
                "{wanted}: {message}"
            );
        }
        let strayed = strayed(&scene, mark)?;
        ensure!(strayed.is_empty(), "the operator asked for {strayed:?}");
        Ok(())
    });
}

#[test]
fn a_secret_store_never_speaks_as_the_operator_and_smuggles_no_header() {
    play(async {
        let mut scene = Scene::without_operator("deputy-headers").await?;
        scene
            .write_secret(&scene.namespace, "own", json!({"k": "s.token"}))
            .await?;
        scene.start_operator(&[]).await?;
        let vault_mark = scene.vault.audit_mark();
        let own = json!({"tokenSecretRef": {"name": "own", "key": "k"}});
        let with = |field: &str, value: Value| json!({"auth": own, field: value});
        let rows = [
            (
                "kubernetes",
                json!({"auth": {"kubernetes": {"role": "r"}}}),
                "only a ClusterSecretStore may use them",
            ),
            (
                "iam",
                json!({"auth": {"iam": {"vaultRole": "r"}}}),
                "only a ClusterSecretStore may use them",
            ),
            (
                "gcp",
                json!({"auth": {"gcp": {"role": "r", "serviceAccountRef": {"name": "a", "namespace": FOREIGN}}}}),
                "auth.gcp.serviceAccountRef is not served",
            ),
            (
                "name",
                with("headers", json!({"X-A\r\nX-Vault-Token": "t"})),
                "is no header name",
            ),
            (
                "value",
                with("headers", json!({"X-A": "b\r\nX-Vault-Token: t"})),
                "characters that no header may hold",
            ),
            (
                "length",
                with("headers", json!({"Content-Length": "0"})),
                "is set by the connection itself",
            ),
            (
                "chunks",
                with("headers", json!({"transfer-encoding": "chunked"})),
                "is set by the connection itself",
            ),
            (
                "namespace",
                with("namespace", json!("a\r\nX-Vault-Token: t")),
                "characters that no header may hold",
            ),
            (
                "userinfo",
                with("server", json!("http://user:pass@127.0.0.1:1")),
                "must not hold a user name or a password",
            ),
            (
                "query",
                with("server", json!("http://127.0.0.1:1/?x=")),
                "no '?' and no '#'",
            ),
            (
                "file",
                with("server", json!("file:///etc/passwd")),
                "must begin with http:// or https://",
            ),
        ];
        let stores: Vec<(String, Value)> = rows
            .iter()
            .map(|(name, fields, why)| ((*why).to_string(), tenants_store(&scene, name, "vault", fields)))
            .collect();
        for ((why, _), message) in stores.iter().zip(refusals(&scene, &stores).await?) {
            ensure!(message.contains(why.as_str()), "{why}: {message}");
        }
        let asked = scene.vault.requests_since(vault_mark)?;
        ensure!(asked.is_empty(), "Vault was asked for {asked:?}");
        Ok(())
    });
}

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
            let object = scene.external_secret_manifest(&format!("from-{}", kind.to_lowercase()), spec);
            let args = ["apply", "--validate=false", "-f", "-"];
            scene.cluster.kubectl(&args, &object.to_string()).await?;
            let name = format!("from-{}", kind.to_lowercase());
            scene
                .wait_ready(
                    "externalsecret",
                    &name,
                    "False",
                    "extension-apiserver-authentication",
                )
                .await?;
        }
        let strayed = strayed(&scene, mark)?;
        ensure!(strayed.is_empty(), "the operator asked for {strayed:?}");
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
        let strayed = strayed(&scene, mark)?;
        ensure!(strayed.is_empty(), "the operator asked for {strayed:?}");
        Ok(())
    });
}
