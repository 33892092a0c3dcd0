//! Logins that cannot work: what each store says, to the word.

use anyhow::Result;
use keyferry_testbed::{Ldap, wait_for};
use serde_json::{Value, json};

use crate::scene::{SOON, Scene, one, play};

fn user_pass(path: &str, user: &str, namespace: &str) -> Value {
    let password = json!({"name": "password", "key": "password", "namespace": namespace});
    json!({"userPass": {"path": path, "username": user, "secretRef": password}})
}

/// What the store `<class>-<name>` complains of.
async fn complaint(scene: &Scene, name: &str) -> Result<String> {
    let store = format!("{}-{name}", scene.class);
    scene
        .wait_ready("clustersecretstore", &store, "False", "Vault")
        .await
}

#[test]
fn a_user_who_is_locked_out_or_has_no_method_is_told_what_may_be_wrong() {
    play(async {
        let mut scene = Scene::without_operator("users").await?;
        let (vault, ns) = (&scene.vault, scene.namespace.clone());
        vault.enable_auth("userpass", "userpass").await?;
        let alice = json!({"password": "right", "token_policies": ["eso-reader"]});
        for user in ["alice", "bob"] {
            let path = format!("auth/userpass/users/{user}");
            vault.api("POST", &path, &alice).await?;
        }
        for _ in 0..5 {
            let wrong = json!({"password": "wrong"});
            let answer = vault.api("POST", "auth/userpass/login/bob", &wrong).await;
            assert!(answer.is_err(), "a wrong password was taken");
        }
        scene
            .write_secret(&ns, "password", json!({"password": "right"}))
            .await?;
        for (name, path, user) in [
            ("good", "userpass", "alice"),
            ("locked", "userpass", "bob"),
            ("nowhere", "team/a/userpass", "alice"),
            ("unknown", "userpass", "carol"),
        ] {
            scene.further_store(name, &user_pass(path, user, &ns)).await?;
        }
        // OpenBao speaks the same protocol.
        let mut bao = scene.store_manifest(scene.vault.address(), &Value::Null);
        bao["metadata"]["name"] = json!(format!("{}-bao", scene.class));
        bao["spec"]["provider"] = json!({"openBao": {
            "server": scene.vault.address(), "path": "secret", "auth": user_pass("userpass", "alice", &ns),
        }});
        scene.cluster.apply(&bao.to_string()).await?;
        scene.vault.put("app", json!({"value": "x"})).await?;
        scene.start_operator(&[]).await?;
        for name in ["good", "bao"] {
            let store = json!({"kind": "ClusterSecretStore", "name": format!("{}-{name}", scene.class)});
            let spec = json!({"secretStoreRef": store, "data": [one("value", "app", "value")]});
            scene.external_secret(name, spec).await?;
            scene.wait_value(name, "value", "x").await?;
        }
        let url = scene.vault.address();
        let denied = |user: &str, mount: &str| {
            format!(
                "Vault {url} answered 403 to the login of user '{user}' (mount '{mount}'): the user is locked out for \
                 some minutes after wrong passwords, or bound to other addresses (token_bound_cidrs), or no such auth \
                 method is mounted there"
            )
        };
        assert_eq!(complaint(&scene, "locked").await?, denied("bob", "userpass"));
        assert_eq!(
            complaint(&scene, "nowhere").await?,
            denied("alice", "team/a/userpass")
        );
        let unknown = format!(
            "login to Vault {url} with user 'carol' (mount 'userpass') and the password in Secret {ns}/password failed: \
             Vault answered 400 (invalid username or password); check the user's name, and put the present password \
             into the Secret"
        );
        assert_eq!(complaint(&scene, "unknown").await?, unknown);
        Ok(())
    });
}

#[test]
fn what_vault_cannot_check_or_must_not_accept_is_told_and_a_directory_that_returns_is_used() {
    play(async {
        let mut scene = Scene::without_operator("refusals").await?;
        let (vault, ns) = (&scene.vault, scene.namespace.clone());
        vault.enable_plugin("ldap", "ldap").await?;
        for kind in ["jwt", "cert"] {
            vault.enable_auth(kind, kind).await?;
        }
        let directory = |url: &str| json!({"url": url, "userdn": Ldap::USERS, "userattr": "uid"});
        let nobody = format!("ldap://127.0.0.1:{}", keyferry_testbed::free_port()?);
        vault.api("POST", "auth/ldap/config", &directory(&nobody)).await?;
        let accounts = std::fs::read_to_string(scene.cluster.folder().join("service-accounts.crt"))?;
        let config = json!({"jwt_validation_pubkeys": [accounts]});
        vault.api("POST", "auth/jwt/config", &config).await?;
        let role = json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["elsewhere"]});
        vault.api("POST", "auth/jwt/role/app", &role).await?;
        let pair = scene.cluster.authority().client("app", None)?;
        scene
            .write_secret(
                &ns,
                "password",
                json!({"password": "right", "jwt": "no.such.token", "crt": pair.certificate, "key": pair.key}),
            )
            .await?;
        let key = |key: &str| json!({"name": "password", "key": key, "namespace": ns});
        let account = json!({"serviceAccountRef": {"name": "default", "namespace": ns}});
        for (name, auth) in [
            (
                "ldap",
                json!({"ldap": {"username": "alice", "secretRef": key("password")}}),
            ),
            (
                "plain",
                json!({"cert": {"clientCert": key("crt"), "secretRef": key("key")}}),
            ),
            (
                "audience",
                json!({"jwt": {"role": "app", "kubernetesServiceAccountToken": account}}),
            ),
            ("forged", json!({"jwt": {"role": "app", "secretRef": key("jwt")}})),
            (
                "nothing",
                json!({"jwt": {"role": "app", "secretRef": key("none")}}),
            ),
        ] {
            scene.further_store(name, &auth).await?;
        }
        let mut foreign = scene.store_manifest(vault.address(), &user_pass("userpass", "alice", "security"));
        foreign["kind"] = json!("SecretStore");
        foreign["metadata"] = json!({"namespace": ns, "name": "foreign"});
        scene.cluster.apply(&foreign.to_string()).await?;
        scene.start_operator(&[]).await?;
        let url = scene.vault.address();
        let vault_says = |words: &str| {
            format!(
                "login to Vault {url} with role 'app' (mount 'jwt') and {words}; check the role's bound_audiences, \
                 bound_subject and bound_claims, and the keys and the issuer that the method is configured with"
            )
        };
        for (name, wanted) in [
            (
                "ldap",
                format!(
                    "Vault {url} cannot reach its LDAP server; check the directory, and the url in auth/ldap/config"
                ),
            ),
            (
                "plain",
                format!(
                    "Vault {url} was asked without TLS, so that no certificate was shown; auth.cert needs an https:// \
                     server"
                ),
            ),
            (
                "audience",
                vault_says(&format!(
                    "ServiceAccount {ns}/default failed: Vault answered 400 (invalid audience)"
                )),
            ),
            (
                "forged",
                vault_says(
                    "the token in Secret password failed: Vault answered 400 (error verifying token signature)",
                ),
            ),
            (
                "nothing",
                format!("cannot find secret data for key: \"none\" in Secret {ns}/password"),
            ),
        ] {
            assert_eq!(complaint(&scene, name).await?, wanted, "{name}");
        }
        let message = scene
            .wait_ready("secretstore", "foreign", "False", "InvalidProviderConfig")
            .await?;
        assert_eq!(
            message,
            format!(
                "spec.provider.vault.auth.userPass.secretRef.namespace: namespace should either be empty or match the \
                 namespace of the SecretStore for a namespaced SecretStore; it says 'security', the store is in '{ns}'"
            )
        );
        // Nothing that is watched changes; half a minute later it is tried again.
        let ldap = Ldap::start(scene.cluster, &[("alice", "right")]).await?;
        let found = directory(&ldap.url());
        scene.vault.api("POST", "auth/ldap/config", &found).await?;
        let store = format!("{}-ldap", scene.class);
        wait_for("the store", 2 * SOON, || async {
            Ok((scene.ready("clustersecretstore", &store).await?.0 == "True").then_some(()))
        })
        .await
    });
}
