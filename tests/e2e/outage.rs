//! Vault is sealed, gone, slow or broken; nothing is harmed, and everything comes back by itself.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keyferry_testbed::{Echo, Mode, Proxy, wait_for};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::scene::{SOON, Scene, one, play};

fn socket(url: &str) -> Result<SocketAddr> {
    url.split("//")
        .nth(1)
        .and_then(|rest| rest.parse().ok())
        .context("no address")
}

fn uid_and_version(secret: &Value) -> (String, String) {
    let text = |key: &str| secret["metadata"][key].as_str().unwrap_or_default().to_string();
    (text("uid"), text("resourceVersion"))
}

#[test]
fn a_reboot_with_a_sealed_vault_harms_nothing_and_the_store_is_ready_within_two_seconds_of_the_unseal() {
    play(async {
        let scene = Scene::new("reboot").await?;
        scene.many("app", 50, "2s").await?;
        scene
            .external_secret(
                "calm",
                json!({"refreshInterval": "1h", "data": [one("value", "app/0", "value")]}),
            )
            .await?;
        for i in 0..50 {
            scene
                .wait_value(&format!("app-{i}"), "value", &format!("app-{i}"))
                .await?;
        }
        scene.wait_value("calm", "value", "app-0").await?;
        let before = uid_and_version(&scene.get("secret", "app-7").await?);
        scene.vault.restart_sealed().await?;
        let message = scene.wait_store("False", "VaultSealed").await?;
        assert!(message.contains("is sealed; unseal it"), "{message}");
        let told = scene
            .wait_ready("externalsecret", "app-7", "True", "is sealed")
            .await?;
        assert!(told.contains("could not be confirmed"), "{told}");
        let (audit, mark) = (scene.vault.audit_mark(), scene.cluster.audit_mark());
        sleep(Duration::from_secs(8)).await;
        assert_eq!(scene.vault.audit_mark(), audit, "a sealed Vault heard from us");
        let events = scene.cluster.audit_since(mark)?;
        let status = events
            .iter()
            .filter(|e| e.object().0 == scene.namespace && e.verb == "patch");
        assert!(status.count() <= 55, "more than one status write per object");
        assert_eq!(scene.ready("externalsecret", "calm").await?.2, "secret synced");
        assert_eq!(
            uid_and_version(&scene.get("secret", "app-7").await?),
            before,
            "the Secret was touched"
        );
        let (pid, echo) = (scene.operator().pid(), Echo::start(scene.cluster).await?);
        scene.vault.unseal_now().await?;
        let unsealed = Instant::now();
        scene.wait_store("True", "Valid").await?;
        let ready = unsealed.elapsed();
        println!("Ready {ready:.1?} after the unseal");
        let allowed = echo.allows(Duration::from_secs(2));
        assert!(
            ready < allowed,
            "Ready {ready:?} after the unseal, {allowed:?} allowed"
        );
        for i in 0..50 {
            wait_for("fresh objects", SOON, || async {
                let (_, _, message) = scene.ready("externalsecret", &format!("app-{i}")).await?;
                Ok((message == "secret synced").then_some(()))
            })
            .await?;
        }
        assert!(scene.operator().runs() && scene.operator().pid() == pid);
        assert_eq!(
            uid_and_version(&scene.get("secret", "app-7").await?),
            before,
            "equal data was written again"
        );
        // Data that changed during the outage arrives as well.
        scene.vault.put("app/7", json!({"value": "new"})).await?;
        scene.wait_value("app-7", "value", "new").await
    });
}

fn is_unconfirmed(object: &Value) -> bool {
    let message = object["status"]["conditions"][0]["message"].as_str();
    message.is_some_and(|message| message.contains("could not be confirmed"))
}

#[test]
fn of_many_objects_as_many_are_told_of_an_outage_as_the_budget_lets_and_all_are_told_of_its_end() {
    play(async {
        let scene = Scene::new("budget").await?;
        scene.many("app", 250, "2s").await?;
        scene.wait_synced(250).await?;
        scene.vault.restart_sealed().await?;
        scene.wait_store("False", "VaultSealed").await?;
        let unconfirmed = async || {
            let objects = scene.list("externalsecrets").await?;
            let told = objects.iter().filter(|object| is_unconfirmed(object));
            Ok::<_, anyhow::Error>(told.count())
        };
        wait_for("a first hundred that are told", SOON, || async {
            Ok((unconfirmed().await? >= 100).then_some(()))
        })
        .await?;
        let (first, since) = (unconfirmed().await?, Instant::now());
        sleep(Duration::from_secs(5)).await;
        let second = unconfirmed().await?;
        let budget = first + 10 + (since.elapsed().as_secs_f64() * 10.0) as usize;
        ensure!(
            second > first && second <= budget,
            "{first}, then {second} of at most {budget}"
        );
        // Somebody waits for the one that is forced.
        let objects = scene.list("externalsecrets").await?;
        let quiet = objects.iter().find(|object| !is_unconfirmed(object));
        let quiet = quiet.and_then(|object| object["metadata"]["name"].as_str());
        let quiet = quiet.context("all were told")?;
        let (echo, forced) = (Echo::start(scene.cluster).await?, Instant::now());
        scene.force_sync(quiet).await?;
        wait_for("the one that was forced", SOON, || async {
            let object = scene.get("externalsecret", quiet).await?;
            Ok(is_unconfirmed(&object).then_some(()))
        })
        .await?;
        let (took, allowed) = (forced.elapsed(), echo.allows(Duration::from_secs(3)));
        ensure!(took < allowed, "it was told after {took:?}, {allowed:?} allowed");
        scene.vault.unseal_now().await?;
        wait_for("all confirmed", SOON, || async {
            Ok((unconfirmed().await? == 0).then_some(()))
        })
        .await
    });
}

#[test]
fn an_operator_that_starts_while_vault_is_sealed_recovers_without_a_restart() {
    play(async {
        let mut scene = Scene::without_operator("cold").await?;
        scene.store(scene.vault.address()).await?;
        scene.many("app", 3, "1h").await?;
        scene.start_operator(&[]).await?;
        // Ready is written after the Secret: the kill must not come between.
        scene
            .wait_ready("externalsecret", "app-1", "True", "secret synced")
            .await?;
        scene.operator().kill()?;
        scene.vault.restart_sealed().await?;
        scene.many_without_vault("late", 1).await?;
        let before = uid_and_version(&scene.get("secret", "app-1").await?);
        scene.start_operator(&[]).await?;
        scene.wait_store("False", "VaultSealed").await?;
        scene
            .wait_ready("externalsecret", "late-0", "False", "is sealed")
            .await?;
        assert_eq!(scene.ready("externalsecret", "app-1").await?.0, "True");
        scene.vault.unseal().await?;
        scene.wait_store("True", "Valid").await?;
        scene.wait_value("late-0", "value", "app-0").await?;
        assert_eq!(uid_and_version(&scene.get("secret", "app-1").await?), before);
        Ok(())
    });
}

#[test]
fn the_grace_ends_and_then_ready_says_false() {
    play(async {
        let mut scene = Scene::without_operator("grace").await?;
        scene.store(scene.vault.address()).await?;
        scene.many("app", 1, "1s").await?;
        scene.start_operator(&["--outage-grace=3s"]).await?;
        scene.wait_value("app-0", "value", "app-0").await?;
        scene.vault.restart_sealed().await?;
        scene
            .wait_ready("externalsecret", "app-0", "True", "could not be confirmed")
            .await?;
        scene
            .wait_ready("externalsecret", "app-0", "False", "SecretSyncedError")
            .await?;
        scene.vault.unseal().await?;
        scene
            .wait_ready("externalsecret", "app-0", "True", "SecretSynced")
            .await
            .map(drop)
    });
}

#[test]
fn an_external_secret_before_its_store_is_synced_as_soon_as_the_store_is_ready() {
    play(async {
        let mut scene = Scene::without_operator("order").await?;
        scene.start_operator(&[]).await?;
        scene.many("app", 1, "1h").await?;
        let message = scene
            .wait_ready("externalsecret", "app-0", "False", "does not exist")
            .await?;
        assert!(message.contains(&scene.class), "{message}");
        let echo = Echo::start(scene.cluster).await?;
        scene.store(scene.vault.address()).await?;
        scene.wait_store("True", "Valid").await?;
        let ready = Instant::now();
        scene.wait_value("app-0", "value", "app-0").await?;
        let (took, allowed) = (ready.elapsed(), echo.allows(Duration::from_secs(2)));
        assert!(took < allowed, "{took:?}, {allowed:?} allowed");
        Ok(())
    });
}

#[test]
fn one_sealed_pod_of_three_behind_a_service_turns_no_store_down() {
    play(async {
        let scene = Scene::without_operator("service").await?;
        let sealed = keyferry_testbed::Vault::start(scene.cluster).await?;
        sealed.restart_sealed().await?;
        let good = socket(scene.vault.address())?;
        let proxy = Proxy::start(good).await?;
        proxy.set(Mode::RoundRobin(vec![good, socket(sealed.address())?, good]));
        scene.store(&format!("http://{}", proxy.address())).await?;
        let mut scene = scene;
        scene.many("app", 10, "1s").await?;
        scene.start_operator(&[]).await?;
        scene.wait_value("app-9", "value", "app-9").await?;
        let mark = scene.cluster.audit_mark();
        sleep(Duration::from_secs(5)).await;
        let events = scene.cluster.audit_since(mark)?;
        let of_store = events
            .iter()
            .filter(|e| e.resource() == "clustersecretstores/status" && e.object().1 == scene.class);
        assert_eq!(of_store.count(), 0, "the store flapped: {}", scene.story());
        assert_eq!(scene.ready("clustersecretstore", &scene.class).await?.0, "True");
        for i in 0..10 {
            assert_eq!(
                scene.ready("externalsecret", &format!("app-{i}")).await?.0,
                "True",
                "{}",
                scene.story()
            );
        }
        Ok(())
    });
}

#[test]
fn every_kind_of_outage_has_its_own_reason_and_no_secret_is_harmed_by_any() {
    play(async {
        let scene = Scene::without_operator("reasons").await?;
        let proxy = Proxy::start(socket(scene.vault.address())?).await?;
        scene.store(&format!("http://{}", proxy.address())).await?;
        let mut scene = scene;
        let target = json!({
            "refreshInterval": "1s", "target": {"deletionPolicy": "Delete"}, "data": [one("value", "app/0", "value")],
        });
        scene.vault.put("app/0", json!({"value": "kept"})).await?;
        scene.external_secret("app", target).await?;
        scene.start_operator(&[]).await?;
        scene.wait_value("app", "value", "kept").await?;
        let before = uid_and_version(&scene.get("secret", "app").await?);
        let body = || r#"{"errors":[]}"#.to_string();
        for (mode, reason) in [
            (Mode::Refuse, "VaultConnectionBroken"),
            (Mode::Cut, "VaultConnectionBroken"),
            (Mode::Hang, "VaultTimeout"),
            (
                Mode::Http(503, String::new(), r#"{"sealed":true}"#.into()),
                "VaultSealed",
            ),
            (Mode::Http(501, String::new(), body()), "VaultUninitialized"),
            (Mode::Http(502, String::new(), "<html>".into()), "VaultFailing"),
            (Mode::Http(474, String::new(), body()), "VaultNoActiveNode"),
        ] {
            proxy.set(mode.clone());
            let seen = scene.wait_store("False", reason).await;
            assert!(seen.is_ok(), "{mode:?}: {seen:?}");
            proxy.set(Mode::Pass);
            scene.wait_store("True", "Valid").await?;
        }
        // Not outages of the server: the object's own errors, and still nothing is deleted.
        for (status, headers) in [
            (403, ""),
            (404, ""),
            (400, ""),
            (429, "Retry-After: 1"),
            (307, "Location: http://192.0.2.1/"),
        ] {
            let answer = if status == 404 {
                "<html>not Vault</html>".to_string()
            } else {
                body()
            };
            proxy.set(Mode::Http(status, headers.into(), answer));
            sleep(Duration::from_secs(2)).await;
            assert_eq!(
                uid_and_version(&scene.get("secret", "app").await?),
                before,
                "{status}"
            );
        }
        proxy.set(Mode::Pass);
        scene.wait_store("True", "Valid").await?;
        scene
            .wait_ready("externalsecret", "app", "True", "SecretSynced")
            .await?;
        assert_eq!(uid_and_version(&scene.get("secret", "app").await?), before);
        Ok(())
    });
}

#[test]
fn a_host_that_is_not_found_a_port_that_is_closed_and_an_untrusted_certificate_are_told_apart() {
    play(async {
        let mut scene = Scene::without_operator("addresses").await?;
        scene.start_operator(&[]).await?;
        let closed = keyferry_testbed::free_port()?;
        for (server, reason) in [
            ("http://vault.invalid:8200".to_string(), "VaultDNSFailure"),
            (format!("http://127.0.0.1:{closed}"), "VaultConnectionRefused"),
            (scene.vault.tls_address().to_string(), "VaultTLSFailure"),
        ] {
            scene.store(&server).await?;
            scene.wait_store("False", reason).await?;
        }
        let mut store = scene.store_manifest(scene.vault.tls_address(), &json!({"kubernetes": {
            "role": "eso-reader", "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"},
        }}));
        scene
            .cluster
            .kubectl(
                &[
                    "create",
                    "configmap",
                    "ca",
                    "-n",
                    &scene.namespace,
                    &format!("--from-literal=ca.crt={}", scene.cluster.ca_pem()),
                ],
                "",
            )
            .await?;
        store["spec"]["provider"]["vault"]["caProvider"] =
            json!({"type": "ConfigMap", "name": "ca", "key": "ca.crt", "namespace": scene.namespace});
        scene.cluster.apply(&store.to_string()).await?;
        scene.wait_store("True", "Valid").await.map(drop)
    });
}

#[test]
fn a_rate_limit_slows_the_connection_and_turns_nothing_red() {
    play(async {
        let scene = Scene::new("quota").await?;
        scene.many("app", 20, "1s").await?;
        for i in 0..20 {
            scene
                .wait_value(&format!("app-{i}"), "value", &format!("app-{i}"))
                .await?;
        }
        let quota = json!({"rate": 5, "interval": "1s"});
        scene
            .vault
            .api("POST", "sys/quotas/rate-limit/all", &quota)
            .await?;
        sleep(Duration::from_secs(6)).await;
        let red = scene
            .list("externalsecrets")
            .await?
            .iter()
            .filter(|object| object["status"]["conditions"][0]["status"] != "True")
            .count();
        assert_eq!(red, 0, "{}", scene.story());
        wait_for("the end of the quota", SOON, || async {
            scene
                .vault
                .api("DELETE", "sys/quotas/rate-limit/all", &Value::Null)
                .await
                .map(Some)
        })
        .await?;
        scene.vault.put("app/0", json!({"value": "after"})).await?;
        scene.wait_value("app-0", "value", "after").await
    });
}
