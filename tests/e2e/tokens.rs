//! Logins and tokens: one per identity and life, replaced when they die, revoked at the end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use keyferry_testbed::wait_for;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::scene::{SOON, Scene, one, play};

const LOGIN: &str = "auth/kubernetes/login";

#[test]
fn many_external_secrets_of_one_identity_cost_one_login_and_as_many_reads() {
    play(async {
        let mut scene = Scene::without_operator("logins").await?;
        scene.store(scene.vault.address()).await?;
        scene.many("app", 60, "1h").await?;
        let mark = scene.vault.audit_mark();
        scene.start_operator(&[]).await?;
        for i in 0..60 {
            scene
                .wait_value(&format!("app-{i}"), "value", &format!("app-{i}"))
                .await?;
        }
        let mut requests = scene.vault.requests_since(mark)?;
        assert_eq!(requests.remove(LOGIN), Some(1));
        assert_eq!(
            (requests.len(), requests.values().sum::<usize>()),
            (60, 60),
            "{requests:?}"
        );
        Ok(())
    });
}

#[test]
fn a_restart_with_everything_synced_costs_one_login_and_nothing_else() {
    play(async {
        let mut scene = Scene::without_operator("warm").await?;
        scene.store(scene.vault.address()).await?;
        scene.many("app", 20, "1h").await?;
        scene.start_operator(&[]).await?;
        for i in 0..20 {
            scene
                .wait_ready("externalsecret", &format!("app-{i}"), "True", "SecretSynced")
                .await?;
        }
        scene.operator().terminate()?;
        let mark = scene.vault.audit_mark();
        scene.start_operator(&[]).await?;
        sleep(Duration::from_secs(3)).await;
        let requests = scene.vault.requests_since(mark)?;
        assert_eq!(
            (requests.get(LOGIN), requests.len()),
            (Some(&1), 1),
            "{requests:?}"
        );
        // And a change is noticed all the same.
        scene.vault.put("app/3", json!({"value": "new"})).await?;
        scene.force_sync("app-3").await?;
        scene.wait_value("app-3", "value", "new").await
    });
}

#[test]
fn a_token_revoked_from_outside_is_replaced_once_and_no_user_sees_it() {
    play(async {
        let scene = Scene::new("revoked").await?;
        scene.many("app", 10, "1h").await?;
        for i in 0..10 {
            scene
                .wait_ready("externalsecret", &format!("app-{i}"), "True", "SecretSynced")
                .await?;
        }
        scene.vault.revoke_logins().await?;
        let mark = scene.vault.audit_mark();
        for i in 0..10 {
            scene
                .vault
                .put(&format!("app/{i}"), json!({"value": "new"}))
                .await?;
        }
        scene
            .cluster
            .kubectl(
                &["annotate", "es", "--all", "-n", &scene.namespace, "force-sync=1"],
                "",
            )
            .await?;
        for i in 0..10 {
            scene.wait_value(&format!("app-{i}"), "value", "new").await?;
            assert_eq!(
                scene.ready("externalsecret", &format!("app-{i}")).await?.0,
                "True"
            );
        }
        assert_eq!(scene.vault.requests_since(mark)?.get(LOGIN), Some(&1));
        assert!(
            !scene.operator().logs().contains("is not ready"),
            "{}",
            scene.story()
        );
        Ok(())
    });
}

#[test]
fn a_policy_that_is_added_to_the_role_is_picked_up_while_the_token_lives() {
    play(async {
        let scene = Scene::new("policy").await?;
        scene
            .vault
            .api(
                "POST",
                "sys/mounts/other",
                &json!({"type": "kv", "options": {"version": "2"}}),
            )
            .await?;
        wait_for("the engine", SOON, || async {
            scene
                .vault
                .api("POST", "other/data/app", &json!({"data": {"value": "x"}}))
                .await
                .map(Some)
        })
        .await?;
        let mut store = scene.store_manifest(scene.vault.address(), &json!({"kubernetes": {
            "role": "eso-reader", "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"},
        }}));
        store["spec"]["provider"]["vault"]["path"] = json!("other");
        scene.cluster.apply(&store.to_string()).await?;
        scene
            .external_secret(
                "app",
                json!({"refreshInterval": "1s", "data": [one("value", "app", "value")]}),
            )
            .await?;
        let message = scene
            .wait_ready("externalsecret", "app", "False", "answered 403")
            .await?;
        assert!(
            message.contains("other/data/app") && message.contains("eso-reader"),
            "{message}"
        );
        let policy = json!({"policy": "path \"other/*\" { capabilities = [\"read\"] }"});
        scene.vault.api("PUT", "sys/policies/acl/other", &policy).await?;
        let role = json!({"token_policies": ["eso-reader", "other"]});
        scene
            .vault
            .write_role("eso-reader", "eso-vault-auth", "security", &role)
            .await?;
        scene.force_sync("app").await?;
        scene.wait_value("app", "value", "x").await
    });
}

#[test]
fn a_login_that_is_refused_says_why_and_recovers_at_once_when_its_service_account_appears() {
    play(async {
        let scene = Scene::new("denied").await?;
        scene.many("app", 1, "1h").await?;
        scene.wait_value("app-0", "value", "app-0").await?;
        let auth = |account: &str, role: &str| {
            json!({"kubernetes": {
                "role": role, "serviceAccountRef": {"name": account, "namespace": scene.namespace},
            }})
        };
        scene
            .store_with(scene.vault.address(), &auth("default", "eso-reader"))
            .await?;
        let message = scene.wait_store("False", "VaultDenied").await?;
        assert!(
            message.contains("role 'eso-reader' (mount 'kubernetes') does not allow ServiceAccount"),
            "{message}"
        );
        scene
            .store_with(scene.vault.address(), &auth("default", "no-such-role"))
            .await?;
        let message = scene.wait_store("False", "no-such-role").await?;
        assert!(message.contains("has no role"), "{message}");
        scene
            .vault
            .write_role("own", "reader", &scene.namespace, &json!({}))
            .await?;
        scene
            .store_with(scene.vault.address(), &auth("reader", "own"))
            .await?;
        scene.wait_store("False", "does not exist; create it").await?;
        // The watch of the missing object begins when the login has failed.
        sleep(Duration::from_secs(1)).await;
        scene
            .cluster
            .kubectl(
                &["create", "serviceaccount", "reader", "-n", &scene.namespace],
                "",
            )
            .await?;
        wait_for("the store", SOON, || async {
            Ok((scene.ready("clustersecretstore", &scene.class).await?.0 == "True").then_some(()))
        })
        .await?;
        assert_eq!(scene.value("app-0", "value").await?.as_deref(), Some("app-0"));
        Ok(())
    });
}

#[test]
fn a_clean_shutdown_revokes_the_token_and_a_kill_leaves_at_most_one() {
    play(async {
        let mut scene = Scene::new("shutdown").await?;
        scene.many("app", 2, "1h").await?;
        scene.wait_value("app-1", "value", "app-1").await?;
        assert_eq!(scene.vault.living_logins().await?, 1);
        scene.operator().terminate()?;
        wait_for("no living login", SOON, || async {
            Ok((scene.vault.living_logins().await? == 0).then_some(()))
        })
        .await
        .with_context(|| scene.story())?;
        scene.start_operator(&[]).await?;
        scene.wait_store("True", "Valid").await?;
        wait_for("a login", SOON, || async {
            Ok((scene.vault.living_logins().await? == 1).then_some(()))
        })
        .await?;
        scene.operator().kill()?;
        assert_eq!(scene.vault.living_logins().await?, 1);
        Ok(())
    });
}

#[test]
fn a_token_is_renewed_before_it_ends_and_replaced_when_it_cannot_be() {
    play(async {
        let mut scene = Scene::without_operator("renewal").await?;
        let short = json!({"token_ttl": "9s", "token_max_ttl": "18s"});
        scene
            .vault
            .write_role("eso-reader", "eso-vault-auth", "security", &short)
            .await?;
        scene.store(scene.vault.address()).await?;
        scene.many("app", 1, "1s").await?;
        let (mark, began) = (scene.vault.audit_mark(), Instant::now());
        scene.start_operator(&[]).await?;
        scene.wait_value("app-0", "value", "app-0").await?;
        wait_for("a renewal and a second login", SOON, || async {
            let requests = scene.vault.requests_since(mark)?;
            let renewed = requests.contains_key("auth/token/renew-self");
            Ok((renewed && requests.get(LOGIN) >= Some(&2)).then_some(()))
        })
        .await
        .with_context(|| scene.story())?;
        let requests = scene.vault.requests_since(mark)?;
        // A token is renewed once at 6 s and replaced before its 18 s are over.
        let lives = usize::try_from(began.elapsed().as_secs() / 6)?;
        assert!(requests.get(LOGIN) <= Some(&(1 + lives)), "{requests:?}");
        assert!(
            !scene.operator().logs().contains("is not ready"),
            "{}",
            scene.story()
        );
        Ok(())
    });
}

#[test]
fn tokens_from_secrets_and_the_operators_own_are_used_and_a_given_one_is_never_revoked() {
    play(async {
        let scene = Scene::new("sources").await?;
        scene.many("app", 1, "1h").await?;
        scene.wait_value("app-0", "value", "app-0").await?;
        let given = scene
            .vault
            .api(
                "POST",
                "auth/token/create",
                &json!({"policies": ["eso-reader"], "ttl": "1h"}),
            )
            .await?;
        let given = given["auth"]["client_token"]
            .as_str()
            .unwrap_or_default()
            .to_string();
        let literal = format!("--from-literal=token={given}\n");
        scene
            .cluster
            .kubectl(
                &[
                    "create",
                    "secret",
                    "generic",
                    "given",
                    "-n",
                    &scene.namespace,
                    &literal,
                ],
                "",
            )
            .await?;
        let reference = json!({"name": "given", "key": "token", "namespace": scene.namespace});
        scene
            .store_with(scene.vault.address(), &json!({"tokenSecretRef": reference}))
            .await?;
        scene.vault.put("app/0", json!({"value": "by token"})).await?;
        scene.force_sync("app-0").await?;
        scene.wait_value("app-0", "value", "by token").await?;
        // The operator's own ServiceAccount, without any reference.
        scene
            .vault
            .write_role("operator", "keyferry", "security", &json!({}))
            .await?;
        scene
            .store_with(
                scene.vault.address(),
                &json!({"kubernetes": {"role": "operator"}}),
            )
            .await?;
        scene.wait_store("True", "Valid").await?;
        scene.vault.put("app/0", json!({"value": "by own"})).await?;
        scene.force_sync("app-0").await?;
        scene.wait_value("app-0", "value", "by own").await?;
        let lookup = scene
            .vault
            .api("POST", "auth/token/lookup", &json!({"token": given}))
            .await?;
        assert_ne!(lookup, Value::Null);
        Ok(())
    });
}

#[test]
fn two_namespaces_of_one_referent_store_never_share_a_token() {
    play(async {
        let mut scene = Scene::without_operator("referent").await?;
        let other = scene.cluster.namespace("referent-other").await?;
        for namespace in [scene.namespace.clone(), other.clone()] {
            scene
                .cluster
                .kubectl(&["create", "serviceaccount", "reader", "-n", &namespace], "")
                .await?;
        }
        scene.vault.put("app", json!({"value": "x"})).await?;
        scene
            .vault
            .write_role("own", "reader", &scene.namespace, &json!({}))
            .await?;
        let auth = json!({"kubernetes": {"role": "own", "serviceAccountRef": {"name": "reader"}}});
        scene.store_with(scene.vault.address(), &auth).await?;
        let both = format!("--namespace={},{other}", scene.namespace);
        scene.start_operator(&[&both]).await?;
        let spec = json!({"data": [one("value", "app", "value")]});
        scene.external_secret("app", spec.clone()).await?;
        scene.wait_value("app", "value", "x").await?;
        let mut manifest = scene.external_secret_manifest("app", spec);
        manifest["metadata"]["namespace"] = json!(other);
        scene.cluster.apply(&manifest.to_string()).await?;
        wait_for("the refusal", SOON, || async {
            let args = [
                "get",
                "es",
                "app",
                "-n",
                &other,
                "-o",
                "jsonpath={.status.conditions[0].message}",
            ];
            let message = scene.cluster.kubectl(&args, "").await?;
            Ok((message.contains("does not allow ServiceAccount") && message.contains(&other)).then_some(()))
        })
        .await?;
        assert_eq!(scene.value("app", "value").await?.as_deref(), Some("x"));
        Result::Ok(())
    });
}
