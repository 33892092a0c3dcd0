//! Every way to log in, against the real Vault: it works, it fails with words that help, and it recovers.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use keyferry_testbed::Ldap;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::DecodePrivateKey as _;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::scene::{Scene, one, play};

const WAYS: [&str; 6] = ["approle", "userpass", "ldap", "jwt-account", "jwt-secret", "cert"];
const MOUNTS: [&str; 5] = ["team/a/approle", "userpass", "ldap", "jwt", "cert"];

/// What Vault and the directory know of those who log in.
struct Offer {
    ldap: Ldap,
    role_id: String,
}

/// Enables every method, with a user or role that may read `secret/app/…`.
async fn offer(scene: &Scene) -> Result<Offer> {
    let vault = &scene.vault;
    for (kind, mount) in [
        ("approle", "team/a/approle"),
        ("userpass", "userpass"),
        ("jwt", "jwt"),
        ("cert", "cert"),
    ] {
        vault.enable_auth(kind, mount).await?;
    }
    vault.enable_plugin("ldap", "ldap").await?;
    let ldap = Ldap::start(scene.cluster, &[("alice", "first")]).await?;
    let config = json!({"url": ldap.url(), "userdn": Ldap::USERS, "userattr": "uid"});
    vault.api("POST", "auth/ldap/config", &config).await?;
    let accounts = fs::read_to_string(scene.cluster.folder().join("service-accounts.crt"))?;
    let config = json!({"jwt_validation_pubkeys": [accounts]});
    vault.api("POST", "auth/jwt/config", &config).await?;
    let user = json!({"password": "first"});
    vault.api("POST", "auth/userpass/users/alice", &user).await?;
    write_cert_role(scene, "first").await?;
    for name in ["app", "more"] {
        let rule = format!("path \"secret/data/{name}/*\" {{ capabilities = [\"read\"] }}");
        vault
            .api(
                "PUT",
                &format!("sys/policies/acl/{name}"),
                &json!({"policy": rule}),
            )
            .await?;
    }
    allow(scene, &["app"]).await?;
    let role_id = vault
        .api("GET", "auth/team/a/approle/role/app/role-id", &Value::Null)
        .await?;
    let role_id = role_id["data"]["role_id"].as_str().context("no role ID")?.into();
    Ok(Offer { ldap, role_id })
}

/// Gives these policies to every user and role.
async fn allow(scene: &Scene, policies: &[&str]) -> Result<()> {
    let given = json!({"token_policies": policies});
    let account = format!("system:serviceaccount:{}:reader", scene.namespace);
    let jwt = |subject: &str| {
        json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "bound_subject": subject,
            "token_policies": policies})
    };
    for (path, body) in [
        ("auth/team/a/approle/role/app", given.clone()),
        ("auth/userpass/users/alice", given.clone()),
        ("auth/ldap/users/alice", json!({"policies": policies})),
        ("auth/jwt/role/account", jwt(&account)),
        ("auth/jwt/role/robot", jwt("robot")),
        ("auth/cert/certs/app", given),
    ] {
        scene.vault.api("POST", path, &body).await?;
    }
    Ok(())
}

async fn write_cert_role(scene: &Scene, name: &str) -> Result<()> {
    let role = json!({"certificate": scene.cluster.ca_pem(), "allowed_common_names": [name], "token_policies": ["app"]});
    scene
        .vault
        .api("POST", "auth/cert/certs/app", &role)
        .await
        .map(drop)
}

async fn new_secret_id(scene: &Scene) -> Result<String> {
    let answer = scene
        .vault
        .api("POST", "auth/team/a/approle/role/app/secret-id", &json!({}))
        .await?;
    Ok(answer["data"]["secret_id"]
        .as_str()
        .context("no secret ID")?
        .into())
}

/// A token as the API server would sign it, for `robot`, that ends in so many seconds.
fn signed(scene: &Scene, seconds: i64) -> Result<String> {
    let pem = fs::read_to_string(scene.cluster.folder().join("service-accounts.key"))?;
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let key = SigningKey::from_pkcs8_der(&STANDARD.decode(der)?)?;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"sub": "robot", "aud": "vault", "iat": now - 3600, "exp": now + seconds});
    let text = format!("{}.{}", part(json!({"alg": "ES256"})), part(claims));
    let signature: Signature = key.sign(text.as_bytes());
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes())))
}

async fn show_certificate(scene: &Scene, name: &str) -> Result<()> {
    let pair = scene.cluster.authority().client(name, None)?;
    scene
        .write_secret(
            &scene.namespace,
            "login-cert",
            json!({"crt": pair.certificate, "key": pair.key}),
        )
        .await
}

/// The Secrets that the stores name, as users make them.
async fn credentials(scene: &Scene) -> Result<()> {
    // With the newline of `echo`.
    let secret_id = format!("{}\n", new_secret_id(scene).await?);
    scene
        .write_secret(&scene.namespace, "login-approle", json!({"id": secret_id}))
        .await?;
    scene
        .write_secret(&scene.namespace, "login-userpass", json!({"password": "first"}))
        .await?;
    scene
        .write_secret(&scene.namespace, "login-ldap", json!({"password": "first"}))
        .await?;
    scene
        .write_secret(
            &scene.namespace,
            "login-robot",
            json!({"jwt": signed(scene, 3600)?}),
        )
        .await?;
    show_certificate(scene, "first").await?;
    scene
        .cluster
        .kubectl(
            &["create", "serviceaccount", "reader", "-n", &scene.namespace],
            "",
        )
        .await
        .map(drop)
}

fn key(name: &str, key: &str) -> Value {
    json!({"name": name, "key": key})
}

/// The `auth` of each way.
fn auth_of(way: &str, offer: &Offer) -> Value {
    match way {
        "approle" => {
            json!({"appRole": {"path": "team/a/approle", "roleId": offer.role_id, "secretRef": key("login-approle", "id")}})
        }
        "userpass" => {
            json!({"userPass": {"path": "userpass", "username": "alice", "secretRef": key("login-userpass", "password")}})
        }
        "ldap" => {
            json!({"ldap": {"path": "ldap", "username": "alice", "secretRef": key("login-ldap", "password")}})
        }
        "jwt-account" => json!({"jwt": {"path": "jwt", "role": "account",
            "kubernetesServiceAccountToken": {"serviceAccountRef": {"name": "reader"}}}}),
        "jwt-secret" => {
            json!({"jwt": {"path": "jwt", "role": "robot", "secretRef": key("login-robot", "jwt")}})
        }
        _ => json!({"cert": {"path": "cert", "vaultRole": "app", "clientCert": key("login-cert", "crt"),
            "secretRef": key("login-cert", "key")}}),
    }
}

/// A SecretStore for each way, and an ExternalSecret of the same name that reads `app/<way>` by it.
async fn use_every_way(scene: &Scene, offer: &Offer) -> Result<()> {
    for way in WAYS {
        scene
            .vault
            .put(&format!("app/{way}"), json!({"value": "first"}))
            .await?;
        let server = match way {
            "cert" => scene.vault.tls_address(),
            _ => scene.vault.address(),
        };
        let mut store = scene.store_manifest(server, &auth_of(way, offer));
        store["kind"] = json!("SecretStore");
        store["metadata"] = json!({"namespace": scene.namespace, "name": way});
        if way == "cert" {
            store["spec"]["provider"]["vault"]["caBundle"] = json!(STANDARD.encode(scene.cluster.ca_pem()));
        }
        scene.cluster.apply(&store.to_string()).await?;
        read(scene, way, way, "app").await?;
    }
    for way in WAYS {
        scene.wait_value(way, "value", "first").await.context(way)?;
    }
    Ok(())
}

/// An ExternalSecret that reads `<folder>/<way>` by the store of that way.
async fn read(scene: &Scene, name: &str, way: &str, folder: &str) -> Result<()> {
    let spec = json!({
        "refreshInterval": "1h", "secretStoreRef": {"kind": "SecretStore", "name": way},
        "data": [one("value", &format!("{folder}/{way}"), "value")],
    });
    scene.external_secret(name, spec).await
}

async fn revoke_all(scene: &Scene) -> Result<()> {
    for mount in MOUNTS {
        let path = format!("sys/leases/revoke-prefix/auth/{mount}/login");
        scene.vault.api("PUT", &path, &json!({})).await?;
    }
    Ok(())
}

#[test]
fn every_way_to_log_in_syncs_survives_a_sealed_vault_and_picks_up_a_new_policy() {
    play(async {
        let mut scene = Scene::without_operator("ways").await?;
        let offer = offer(&scene).await?;
        credentials(&scene).await?;
        scene.start_operator(&[]).await?;
        use_every_way(&scene, &offer).await?;

        scene.vault.restart_sealed().await?;
        sleep(Duration::from_secs(2)).await;
        scene.vault.unseal().await?;
        for way in WAYS {
            scene
                .vault
                .put(&format!("app/{way}"), json!({"value": "second"}))
                .await?;
            scene
                .vault
                .put(&format!("more/{way}"), json!({"value": "more"}))
                .await?;
            scene.force_sync(way).await?;
        }
        for way in WAYS {
            scene.wait_value(way, "value", "second").await.context(way)?;
            read(&scene, &format!("{way}-more"), way, "more").await?;
        }
        for way in WAYS {
            let message = scene
                .wait_ready("externalsecret", &format!("{way}-more"), "False", "answered 403")
                .await?;
            let wanted = format!("answered 403 to the read of 'secret/data/more/{way}': no policy of ");
            assert!(message.contains(&wanted), "{message}");
        }
        allow(&scene, &["app", "more"]).await?;
        for way in WAYS {
            scene.force_sync(&format!("{way}-more")).await?;
            scene
                .wait_value(&format!("{way}-more"), "value", "more")
                .await
                .context(way)?;
        }
        Ok(())
    });
}

/// Spoils what every way logs in with, and says how its store must complain.
async fn spoil(scene: &Scene, offer: &Offer) -> Result<Vec<(&'static str, String)>> {
    let vault = &scene.vault;
    let mine = json!({"secret_id": scene.value("login-approle", "id").await?.unwrap_or_default().trim()});
    vault
        .api("POST", "auth/team/a/approle/role/app/secret-id/destroy", &mine)
        .await?;
    vault
        .api(
            "POST",
            "auth/userpass/users/alice/password",
            &json!({"password": "second"}),
        )
        .await?;
    offer.ldap.set(&[("alice", "second")])?;
    vault.api("DELETE", "auth/jwt/role/account", &Value::Null).await?;
    scene
        .write_secret(
            &scene.namespace,
            "login-robot",
            json!({"jwt": signed(scene, -600)?}),
        )
        .await?;
    write_cert_role(scene, "second").await?;
    revoke_all(scene).await?;
    let (plain, tls, ns) = (vault.address(), vault.tls_address(), &scene.namespace);
    Ok(vec![
        (
            "approle",
            format!(
                "login to Vault {plain} with role ID '{}' (mount 'team/a/approle') and the secret ID in Secret \
                 {ns}/login-approle failed: Vault answered 400 (invalid role or secret ID); check the role ID and the role's \
                 bound CIDRs, and put a new secret ID into the Secret if that one has expired, was destroyed or is used up",
                offer.role_id
            ),
        ),
        (
            "userpass",
            format!(
                "login to Vault {plain} with user 'alice' (mount 'userpass') and the password in Secret {ns}/login-userpass \
                 failed: Vault answered 400 (invalid username or password); check the user's name, and put the present \
                 password into the Secret"
            ),
        ),
        (
            "ldap",
            format!(
                "login to Vault {plain} with user 'alice' (mount 'ldap') and the password in Secret {ns}/login-ldap failed: \
                 Vault answered 400 (invalid credentials); check the user's name and the method's configuration, and \
                 put the present password into the Secret"
            ),
        ),
        (
            "jwt-account",
            format!(
                "Vault {plain} has no role 'account' at auth mount 'jwt'; create it, or correct auth.jwt.role"
            ),
        ),
        (
            "jwt-secret",
            format!(
                "login to Vault {plain} with role 'robot' (mount 'jwt') and the token in Secret login-robot failed: Vault \
                 answered 400 (token is expired); check the role's bound_audiences, bound_subject and bound_claims, \
                 and the keys and the issuer that the method is configured with"
            ),
        ),
        (
            "cert",
            format!(
                "login to Vault {tls} with role 'app' (mount 'cert') and the certificate in Secret {ns}/login-cert failed: \
                 Vault answered 400 (failed to match all constraints for this login certificate); check that the \
                 certificate is valid, that its CA is that of the role, and the role's allowed names; and that Vault \
                 itself, no proxy, ends the TLS connection"
            ),
        ),
    ])
}

#[test]
fn a_credential_that_went_bad_is_told_by_name_and_a_new_one_is_used_at_once() {
    play(async {
        let mut scene = Scene::without_operator("spoilt").await?;
        let offer = offer(&scene).await?;
        credentials(&scene).await?;
        scene.start_operator(&[]).await?;
        use_every_way(&scene, &offer).await?;

        let complaints = spoil(&scene, &offer).await?;
        for way in WAYS {
            scene
                .vault
                .put(&format!("app/{way}"), json!({"value": "second"}))
                .await?;
            scene.force_sync(way).await?;
        }
        for (way, complaint) in complaints {
            let message = scene
                .wait_ready("secretstore", way, "False", "VaultDenied")
                .await?;
            assert_eq!(message, complaint);
            scene.wait_ready("externalsecret", way, "False", "").await?;
            assert_eq!(
                scene.value(way, "value").await?.as_deref(),
                Some("first"),
                "{way}"
            );
        }
        // The watch of what a store names begins when its login has failed.
        sleep(Duration::from_secs(1)).await;
        scene
            .write_secret(
                &scene.namespace,
                "login-approle",
                json!({"id": new_secret_id(&scene).await?}),
            )
            .await?;
        scene
            .write_secret(&scene.namespace, "login-userpass", json!({"password": "second"}))
            .await?;
        scene
            .write_secret(&scene.namespace, "login-ldap", json!({"password": "second"}))
            .await?;
        scene
            .write_secret(
                &scene.namespace,
                "login-robot",
                json!({"jwt": signed(&scene, 3600)?}),
            )
            .await?;
        show_certificate(&scene, "second").await?;
        // This one is cured in Vault, of which nobody tells; any change of what its store names will do.
        allow(&scene, &["app"]).await?;
        let touch = [
            "annotate",
            "serviceaccount",
            "reader",
            "cured=yes",
            "-n",
            &scene.namespace,
        ];
        scene.cluster.kubectl(&touch, "").await?;
        for way in WAYS {
            scene.wait_value(way, "value", "second").await.context(way)?;
            scene.wait_ready("secretstore", way, "True", "Valid").await?;
        }
        Ok(())
    });
}
