//! What a SecretStore of the tenant's own may not reach, by any of its fields.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{FOREIGN, ensure_none_strayed};
use crate::scene::{Scene, play};

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
        ensure_none_strayed(&scene, mark)?;
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
        ensure_none_strayed(&scene, mark)?;
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
