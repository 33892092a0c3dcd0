//! Kinds of tokens: batch, periodic, with few uses, bound to a network, without an end, given and replaced; and
//! secret IDs that serve once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use keyferry_testbed::wait_for;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::scene::{SOON, Scene, one, play};

/// Enables AppRole at a mount with a role `app` of these fields, and makes a Secret `login-<mount>` with what logs
/// in there. Gives back the `auth` of a store.
async fn app_role(scene: &Scene, mount: &str, role: Value) -> Result<Value> {
    let vault = &scene.vault;
    vault.enable_auth("approle", mount).await?;
    let mut body = json!({"token_policies": ["eso-reader"]});
    if let (Some(body), Some(role)) = (body.as_object_mut(), role.as_object()) {
        body.extend(role.clone());
    }
    let path = format!("auth/{mount}/role/app");
    vault.api("POST", &path, &body).await?;
    let id = vault.api("GET", &format!("{path}/role-id"), &Value::Null).await?;
    let values = json!({"role": id["data"]["role_id"], "id": secret_id(scene, mount).await?});
    let login = format!("login-{mount}");
    scene.write_secret(&scene.namespace, &login, values).await?;
    let key = |key: &str| json!({"name": login, "key": key, "namespace": scene.namespace});
    Ok(json!({"appRole": {"path": mount, "roleRef": key("role"), "secretRef": key("id")}}))
}

async fn secret_id(scene: &Scene, mount: &str) -> Result<Value> {
    let path = format!("auth/{mount}/role/app/secret-id");
    Ok(scene.vault.api("POST", &path, &json!({})).await?["data"]["secret_id"].clone())
}

async fn create_token(scene: &Scene, path: &str, body: Value) -> Result<String> {
    let made = scene.vault.api("POST", path, &body).await?;
    Ok(made["auth"]["client_token"].as_str().context("no token")?.into())
}

/// An ExternalSecret that reads `secret/<key>` by such a store.
async fn read(scene: &Scene, name: &str, by: &str, key: &str, interval: &str) -> Result<()> {
    let spec = json!({
        "refreshInterval": interval, "data": [one("value", key, "value")],
        "secretStoreRef": {"kind": "ClusterSecretStore", "name": format!("{}-{by}", scene.class)},
    });
    scene.external_secret(name, spec).await
}

/// Whether any object was ever seen as not ready.
fn never_not_ready(scene: &Scene) -> Result<()> {
    ensure!(
        !scene.operator().logs().contains("is not ready"),
        "{}",
        scene.story()
    );
    Ok(())
}

#[test]
fn batch_and_periodic_tokens_and_those_of_few_uses_are_each_used_as_they_may_be() {
    play(async {
        let mut scene = Scene::without_operator("kinds").await?;
        scene.vault.put("app", json!({"value": "x"})).await?;
        for (kind, role) in [
            ("batch", json!({"token_type": "batch", "token_ttl": "15s"})),
            ("periodic", json!({"token_period": "15s"})),
            ("few", json!({"token_num_uses": 3, "token_ttl": "1h"})),
        ] {
            let auth = app_role(&scene, kind, role).await?;
            scene.further_store(kind, &auth).await?;
            read(&scene, kind, kind, "app", "1s").await?;
        }
        let (mark, began) = (scene.vault.audit_mark(), Instant::now());
        scene.start_operator(&[]).await?;
        for kind in ["batch", "periodic", "few"] {
            scene.wait_value(kind, "value", "x").await.context(kind)?;
        }
        // Two thirds of a life are 10 s; what is left of it is for a machine that has no time.
        let counted = |path: &str| {
            let requests = scene.vault.requests_since(mark)?;
            Ok::<_, anyhow::Error>(requests.get(path).copied().unwrap_or_default())
        };
        wait_for(
            "two successors of the batch token, two renewals, three logins",
            SOON,
            || async {
                let enough = counted("auth/batch/login")? >= 3
                    && counted("auth/token/renew-self")? >= 2
                    && counted("auth/few/login")? >= 3;
                Ok(enough.then_some(()))
            },
        )
        .await
        .with_context(|| scene.story())?;
        let requests = scene.vault.requests_since(mark)?;
        let periods = usize::try_from(began.elapsed().as_secs() / 9)?;
        let count = |path: &str| requests.get(path).copied().unwrap_or_default();
        // Replaced at two thirds of its life, and never revoked, for a batch token cannot be.
        assert!(
            count("auth/batch/login") <= 1 + periods,
            "a new batch token every 10 s: {requests:?}"
        );
        assert_eq!(count("auth/token/revoke-self"), 0, "{requests:?}");
        assert_eq!(count("auth/periodic/login"), 1, "{requests:?}");
        assert!(count("auth/token/renew-self") <= 1 + periods, "{requests:?}");
        let reads_by_few = scene.vault.audit_since(mark)?;
        let refused = reads_by_few.iter().filter(|entry| !entry.error.is_empty());
        assert_eq!(refused.count(), 0, "no request was refused");
        // Three reads a login; two at most are left in the last token.
        let reads = count("secret/data/app");
        let logins = count("auth/few/login");
        assert!(
            logins * 3 <= reads / 2,
            "{logins} logins of {reads} reads by three"
        );
        never_not_ready(&scene)
    });
}

#[test]
fn a_secret_id_that_serves_once_is_not_wasted_on_a_path_without_a_policy() {
    play(async {
        let mut scene = Scene::without_operator("once").await?;
        scene
            .vault
            .api(
                "PUT",
                "sys/policies/acl/app-only",
                &json!({"policy": "path \"secret/data/app\" { capabilities = [\"read\"] }"}),
            )
            .await?;
        scene.vault.put("app", json!({"value": "first"})).await?;
        scene.vault.put("denied", json!({"value": "never"})).await?;
        let role = json!({"secret_id_num_uses": 1, "token_policies": ["app-only"], "token_ttl": "1h"});
        let auth = app_role(&scene, "once", role).await?;
        scene.further_store("once", &auth).await?;
        let mark = scene.vault.audit_mark();
        scene.start_operator(&[]).await?;
        read(&scene, "good", "once", "app", "1s").await?;
        scene.wait_value("good", "value", "first").await?;
        read(&scene, "bad", "once", "denied", "1s").await?;
        let message = scene
            .wait_ready("externalsecret", "bad", "False", "answered 403")
            .await?;
        assert!(
            message.contains("no policy of the role ID in Secret login-once"),
            "{message}"
        );
        sleep(Duration::from_secs(6)).await;
        scene.vault.put("app", json!({"value": "second"})).await?;
        scene.wait_value("good", "value", "second").await?;
        let name = format!("{}-once", scene.class);
        scene
            .wait_ready("clustersecretstore", &name, "True", "Valid")
            .await?;
        // The one that worked, and one that found the secret ID used up.
        assert_eq!(scene.vault.requests_since(mark)?.get("auth/once/login"), Some(&2));

        // When the token ends too, the store says it, and a new secret ID cures it at once.
        scene
            .vault
            .api("PUT", "sys/leases/revoke-prefix/auth/once/login", &json!({}))
            .await?;
        let message = scene
            .wait_ready("clustersecretstore", &name, "False", "VaultDenied")
            .await?;
        assert!(
            message.contains("Vault answered 400 (invalid role or secret ID)"),
            "{message}"
        );
        assert_eq!(scene.value("good", "value").await?.as_deref(), Some("second"));
        sleep(Duration::from_secs(1)).await;
        let fresh = json!({"id": secret_id(&scene, "once").await?});
        let patch = json!({"stringData": fresh}).to_string();
        scene
            .cluster
            .kubectl(
                &[
                    "patch",
                    "secret",
                    "login-once",
                    "-n",
                    &scene.namespace,
                    "-p",
                    &patch,
                ],
                "",
            )
            .await?;
        scene
            .wait_ready("clustersecretstore", &name, "True", "Valid")
            .await?;
        scene.vault.put("app", json!({"value": "third"})).await?;
        scene.wait_value("good", "value", "third").await
    });
}

#[test]
fn a_secret_id_that_has_expired_is_told_when_the_token_of_it_ends() {
    play(async {
        let mut scene = Scene::without_operator("expired").await?;
        scene.vault.put("app", json!({"value": "x"})).await?;
        let role = json!({"secret_id_ttl": "3s", "token_ttl": "4s", "token_max_ttl": "4s"});
        let auth = app_role(&scene, "expiring", role).await?;
        scene.further_store("expiring", &auth).await?;
        scene.start_operator(&[]).await?;
        read(&scene, "app", "expiring", "app", "1s").await?;
        scene.wait_value("app", "value", "x").await?;
        let name = format!("{}-expiring", scene.class);
        // Vault takes an expired secret ID until it has tidied up, which it does every minute by itself.
        sleep(Duration::from_secs(4)).await;
        scene
            .vault
            .api("POST", "auth/expiring/tidy/secret-id", &json!({}))
            .await?;
        let message = scene
            .wait_ready("clustersecretstore", &name, "False", "VaultDenied")
            .await?;
        assert!(
            message.contains("put a new secret ID into the Secret if that one has expired"),
            "{message}"
        );
        assert_eq!(scene.value("app", "value").await?.as_deref(), Some("x"));
        Ok(())
    });
}

#[test]
fn what_is_bound_to_another_network_is_told_with_the_name_of_the_setting() {
    play(async {
        let mut scene = Scene::without_operator("network").await?;
        scene.vault.put("app", json!({"value": "x"})).await?;
        let elsewhere = json!(["10.99.0.0/16"]);
        let ids = json!({"secret_id_bound_cidrs": elsewhere});
        let auth = app_role(&scene, "ids", ids).await?;
        scene.further_store("ids", &auth).await?;
        let auth = app_role(&scene, "tokens", json!({"token_bound_cidrs": elsewhere})).await?;
        scene.further_store("tokens", &auth).await?;
        let role = json!({"token_bound_cidrs": elsewhere, "allowed_policies": ["eso-reader"]});
        scene.vault.api("POST", "auth/token/roles/bound", &role).await?;
        let body = json!({"policies": ["eso-reader"], "ttl": "1h"});
        let token = create_token(&scene, "auth/token/create/bound", body).await?;
        scene
            .write_secret(&scene.namespace, "given", json!({"token": token}))
            .await?;
        let given = json!({"name": "given", "key": "token", "namespace": scene.namespace});
        scene
            .further_store("given", &json!({"tokenSecretRef": given}))
            .await?;
        scene.start_operator(&[]).await?;
        let name = format!("{}-ids", scene.class);
        let message = scene
            .wait_ready("clustersecretstore", &name, "False", "VaultDenied")
            .await?;
        assert!(
            message.contains("Vault answered 400 (CIDR restrictions)"),
            "{message}"
        );
        // These two are only told by the first read.
        for by in ["tokens", "given"] {
            read(&scene, by, by, "app", "1h").await?;
            let message = scene
                .wait_ready("externalsecret", by, "False", "answered 403")
                .await?;
            assert!(message.contains("token_bound_cidrs"), "{message}");
        }
        Ok(())
    });
}

#[test]
fn a_given_token_is_renewed_if_it_ends_left_alone_if_it_does_not_and_replaced_when_its_secret_is() {
    play(async {
        let mut scene = Scene::without_operator("given").await?;
        scene.vault.put("app", json!({"value": "first"})).await?;
        let short = json!({"policies": ["eso-reader"], "ttl": "15s"});
        let endless = json!({"policies": ["root"]});
        let mut tokens = Vec::new();
        for (name, body) in [("short", short), ("endless", endless)] {
            let token = create_token(&scene, "auth/token/create", body).await?;
            let login = format!("login-{name}");
            scene
                .write_secret(&scene.namespace, &login, json!({"token": token}))
                .await?;
            tokens.push(token);
            let given = json!({"name": login, "key": "token", "namespace": scene.namespace});
            scene
                .further_store(name, &json!({"tokenSecretRef": given}))
                .await?;
            read(&scene, name, name, "app", "1s").await?;
        }
        let (mark, began) = (scene.vault.audit_mark(), Instant::now());
        scene.start_operator(&[]).await?;
        for name in ["short", "endless"] {
            scene.wait_value(name, "value", "first").await?;
        }
        let renewals = || {
            let requests = scene.vault.requests_since(mark)?;
            Ok::<_, anyhow::Error>(requests.get("auth/token/renew-self").copied().unwrap_or_default())
        };
        wait_for("two renewals", SOON, || async {
            Ok((renewals()? >= 2).then_some(()))
        })
        .await
        .with_context(|| scene.story())?;
        let requests = scene.vault.requests_since(mark)?;
        assert!(
            renewals()? <= 1 + usize::try_from(began.elapsed().as_secs() / 9)?,
            "every 10 s, of the short one only: {requests:?}"
        );
        assert_eq!(requests.get("auth/token/lookup-self"), Some(&2), "{requests:?}");
        never_not_ready(&scene)?;

        // Rotated as users do it: the new one into the Secret, then the end of the old one.
        let long = json!({"policies": ["eso-reader"], "ttl": "1h"});
        let new = create_token(&scene, "auth/token/create", long).await?;
        scene
            .write_secret(&scene.namespace, "login-short", json!({"token": new}))
            .await?;
        scene
            .vault
            .api("POST", "auth/token/revoke", &json!({"token": tokens[0]}))
            .await?;
        scene.vault.put("app", json!({"value": "second"})).await?;
        scene.wait_value("short", "value", "second").await?;
        never_not_ready(&scene)?;
        scene.operator().terminate()?;
        for token in [&new, &tokens[1]] {
            let found = scene
                .vault
                .api("POST", "auth/token/lookup", &json!({"token": token}))
                .await?;
            assert_ne!(found, Value::Null, "a given token is not ours to revoke");
        }
        Ok(())
    });
}

#[test]
fn two_tenants_of_one_referent_store_read_with_their_own_credentials_only() {
    play(async {
        let mut scene = Scene::without_operator("tenant-a").await?;
        let (mine, other) = (
            scene.namespace.clone(),
            scene.cluster.namespace("tenant-b").await?,
        );
        scene.vault.enable_auth("approle", "approle").await?;
        for (namespace, policy) in [(&mine, "a"), (&other, "b")] {
            scene.vault.put(policy, json!({"value": policy})).await?;
            let rule = format!("path \"secret/data/{policy}\" {{ capabilities = [\"read\"] }}");
            let path = format!("sys/policies/acl/{policy}");
            scene.vault.api("PUT", &path, &json!({"policy": rule})).await?;
            let body = json!({"policies": [policy], "ttl": "1h"});
            let token = create_token(&scene, "auth/token/create", body).await?;
            let role = format!("auth/approle/role/{policy}");
            scene
                .vault
                .api("POST", &role, &json!({"token_policies": [policy]}))
                .await?;
            let role_id = scene
                .vault
                .api("GET", &format!("{role}/role-id"), &Value::Null)
                .await?;
            let id = scene
                .vault
                .api("POST", &format!("{role}/secret-id"), &json!({}))
                .await?;
            let values =
                json!({"token": token, "role": role_id["data"]["role_id"], "id": id["data"]["secret_id"]});
            scene.write_secret(namespace, "vault", values).await?;
        }
        let key = |key: &str| json!({"name": "vault", "key": key});
        scene
            .further_store("token", &json!({"tokenSecretRef": key("token")}))
            .await?;
        let by_role = json!({"appRole": {"path": "approle", "roleRef": key("role"), "secretRef": key("id")}});
        scene.further_store("role", &by_role).await?;
        scene
            .start_operator(&[&format!("--namespace={mine},{other}")])
            .await?;
        for by in ["token", "role"] {
            for (namespace, own) in [(&mine, "a"), (&other, "b")] {
                for path in ["a", "b"] {
                    let spec = json!({"data": [one("value", path, "value")],
                        "secretStoreRef": {"kind": "ClusterSecretStore", "name": format!("{}-{by}", scene.class)}});
                    let mut manifest = scene.external_secret_manifest(&format!("{by}-{path}"), spec);
                    manifest["metadata"]["namespace"] = json!(namespace);
                    scene.cluster.apply(&manifest.to_string()).await?;
                    let wanted = if path == own { "True" } else { "answered 403" };
                    wait_for(&format!("{by}-{path} in {namespace}: {wanted}"), SOON, || async {
                        let conditions =
                            "jsonpath={.status.conditions[0].status} {.status.conditions[0].message}";
                        let name = format!("{by}-{path}");
                        let args = ["get", "es", &name, "-n", namespace, "-o", conditions];
                        let text = scene.cluster.kubectl(&args, "").await?;
                        Ok(text.contains(wanted).then_some(()))
                    })
                    .await
                    .with_context(|| scene.story())?;
                }
            }
        }
        Ok(())
    });
}
