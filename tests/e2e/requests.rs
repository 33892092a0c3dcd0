//! What Vault is asked, and how often: under a quota, and with many objects of few identities.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use keyferry_testbed::{Echo, wait_for};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::flaps::Flaps;
use crate::scene::{SOON, Scene, login, one, play};

const LOGIN: &str = "auth/kubernetes/login";
const RENEWAL: &str = "auth/token/renew-self";
/// Requests that the operator sends at once, by default.
const AT_ONCE: f64 = 32.0;

impl Scene {
    async fn quota(&self, path: &str, rate: u32, interval: &str) -> Result<()> {
        let body = json!({"path": path, "rate": rate, "interval": interval});
        self.vault
            .api("POST", "sys/quotas/rate-limit/test", &body)
            .await
            .map(drop)
    }

    /// How many requests of an operation met a rate limit.
    async fn limited(&self, operation: &str) -> Result<f64> {
        let labels =
            format!("keyferry_vault_requests_total{{operation=\"{operation}\",outcome=\"rate_limited\"}}");
        let metrics = self.operator().metrics().await?;
        let line = metrics.lines().find_map(|line| line.strip_prefix(&labels));
        Ok(line.map_or(Ok(0.0), |count| count.trim().parse())?)
    }

    /// Exhausts a quota of logins with one that is bound to fail.
    async fn waste_a_login(&self) {
        let bad = json!({"role": "eso-reader", "jwt": "none"});
        let _ = self.vault.api("POST", LOGIN, &bad).await;
    }
}

#[test]
fn a_hundred_objects_under_a_quota_of_ten_a_second_are_all_synced_with_few_refusals() {
    play(async {
        let mut scene = Scene::without_operator("quota-reads").await?;
        scene.store(scene.vault.address()).await?;
        scene.many("app", 100, "1h").await?;
        scene.quota("secret/", 10, "1s").await?;
        let flaps = Flaps::of(&scene);
        let begun = Instant::now();
        scene.start_operator(&[]).await?;
        scene.wait_synced(100).await?;
        let (took, refused) = (begun.elapsed(), scene.limited("read").await?);
        println!("100 objects under 10/s: {took:.1?}, {refused} refusals");
        flaps.none(&scene)?;
        ensure!(refused >= 1.0, "the quota was never met");
        // The first burst, and then one refusal in four requests at most.
        ensure!(refused <= AT_ONCE + 25.0, "{refused} refusals");
        let mut reads = scene.vault.requests_since(0)?;
        reads.retain(|path, _| path.starts_with("secret/data/app/"));
        ensure!(reads.len() == 100, "{} paths were read", reads.len());
        Ok(())
    });
}

#[test]
fn a_quota_on_logins_turns_neither_the_store_nor_its_objects_red() {
    play(async {
        let mut scene = Scene::new("quota-logins").await?;
        scene.many("app", 5, "1s").await?;
        scene.wait_synced(5).await?;
        scene.wait_store("True", "Valid").await?;
        let flaps = Flaps::of(&scene);
        // The token dies in mid-use, and the next login has to wait.
        scene.quota(LOGIN, 1, "8s").await?;
        scene.waste_a_login().await;
        scene.vault.revoke_logins().await?;
        scene.vault.put("app/0", json!({"value": "second"})).await?;
        scene.wait_value("app-0", "value", "second").await?;
        let refused = scene.limited("login").await?;
        // Pauses that double from 0.5 s meet the end of 8 s in four or five tries, and a loaded machine adds some.
        ensure!((1.0..=8.0).contains(&refused), "{refused} refusals of logins");
        flaps.none(&scene)?;
        // An operator that starts meets it as well.
        scene.operator().kill()?;
        // Longer than the start of an operator takes on a loaded machine.
        scene.quota(LOGIN, 1, "14s").await?;
        scene.waste_a_login().await;
        scene.vault.put("app/0", json!({"value": "third"})).await?;
        scene.start_operator(&[]).await?;
        scene.wait_value("app-0", "value", "third").await?;
        let refused = scene.limited("login").await?;
        ensure!(
            (1.0..=8.0).contains(&refused),
            "{refused} refusals of logins at start"
        );
        flaps.none(&scene)
    });
}

#[test]
fn a_quota_of_one_mount_keeps_no_reader_of_another_mount_waiting() {
    play(async {
        let mut scene = Scene::without_operator("quota-mount").await?;
        let vault = scene.vault.clone();
        let kv2 = json!({"type": "kv", "options": {"version": "2"}});
        vault.api("POST", "sys/mounts/other", &kv2).await?;
        let policy = format!(
            "{}\npath \"other/*\" {{ capabilities = [\"read\"] }}",
            keyferry_testbed::vault::POLICY
        );
        vault
            .api("PUT", "sys/policies/acl/eso-reader", &json!({"policy": policy}))
            .await?;
        scene.store(vault.address()).await?;
        let mut other = scene.store_manifest(vault.address(), &login());
        other["metadata"]["name"] = json!(format!("{}-other", scene.class));
        other["spec"]["provider"]["vault"]["path"] = json!("other");
        scene.cluster.apply(&other.to_string()).await?;
        let write = async |value: usize| {
            let data = json!({"data": {"value": value.to_string()}});
            vault.api("POST", "other/data/app", &data).await
        };
        write(0).await?;
        scene.many("app", 40, "1s").await?;
        scene.start_operator(&[]).await?;
        let spec = json!({
            "refreshInterval": "1h", "data": [one("value", "app", "value")],
            "secretStoreRef": {"kind": "ClusterSecretStore", "name": format!("{}-other", scene.class)},
        });
        scene.external_secret("neighbour", spec).await?;
        scene.wait_value("neighbour", "value", "0").await?;
        // More wait for their turn than there are places.
        scene.quota("secret/", 1, "20s").await?;
        wait_for("limits", SOON, || async {
            Ok((scene.limited("read").await? >= 3.0).then_some(()))
        })
        .await?;
        let echo = Echo::start(scene.cluster).await?;
        for round in 1..=3 {
            write(round).await?;
            let begun = Instant::now();
            scene.force_sync("neighbour").await?;
            scene.wait_value("neighbour", "value", &round.to_string()).await?;
            let (took, allowed) = (begun.elapsed(), echo.allows(Duration::from_secs(2)));
            ensure!(took < allowed, "round {round}: {took:?}, {allowed:?} allowed");
        }
        Ok(())
    });
}

/// ExternalSecrets spread over three ClusterSecretStores, each with a role of its own.
async fn three_identities(scene: &Scene, count: usize, interval: &str, role: &Value) -> Result<()> {
    let mut yaml = String::new();
    for i in 0..3 {
        let name = format!("{}-{i}", scene.class);
        scene
            .vault
            .write_role(&name, "eso-vault-auth", "security", role)
            .await?;
        let auth = json!({"kubernetes": {
            "role": name, "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"},
        }});
        let mut store = scene.store_manifest(scene.vault.address(), &auth);
        store["metadata"]["name"] = json!(name);
        yaml += &format!("---\n{store}\n");
    }
    for i in 0..count {
        scene
            .vault
            .put(&format!("app/{i}"), json!({"value": format!("app-{i}")}))
            .await?;
        let spec = json!({
            "refreshInterval": interval, "data": [one("value", &format!("app/{i}"), "value")],
            "secretStoreRef": {"kind": "ClusterSecretStore", "name": format!("{}-{}", scene.class, i % 3)},
        });
        yaml += &format!(
            "---\n{}\n",
            scene.external_secret_manifest(&format!("app-{i}"), spec)
        );
    }
    scene.cluster.apply(&yaml).await.map(drop)
}

/// Logins, renewals and reads; anything else is an error.
fn sorted(mut requests: HashMap<String, usize>) -> Result<(usize, usize, HashMap<String, usize>)> {
    let logins = requests.remove(LOGIN).unwrap_or(0);
    let renewals = requests.remove(RENEWAL).unwrap_or(0);
    let strange: Vec<&String> = requests
        .keys()
        .filter(|path| !path.starts_with("secret/data/app/"))
        .collect();
    ensure!(strange.is_empty(), "Vault was asked for {strange:?}");
    Ok((logins, renewals, requests))
}

#[test]
fn a_thousand_external_secrets_over_three_identities_cost_three_logins_and_reads_only() {
    play(async {
        let count = 1000;
        let mut scene = Scene::without_operator("identities").await?;
        three_identities(&scene, count, "1h", &json!({})).await?;
        let mark = scene.vault.audit_mark();
        scene.start_operator(&[]).await?;
        scene.wait_synced(count).await?;
        let (logins, renewals, reads) = sorted(scene.vault.requests_since(mark)?)?;
        ensure!(
            (logins, renewals) == (3, 0),
            "{logins} logins, {renewals} renewals"
        );
        ensure!(reads.len() == count, "{} paths were read", reads.len());
        ensure!(reads.values().all(|times| *times == 1), "a path was read twice");
        for entry in scene.vault.audit_since(mark)? {
            ensure!(
                entry.root || entry.path == LOGIN || entry.operation == "read",
                "{entry:?}"
            );
        }
        Ok(())
    });
}

#[test]
fn renewals_and_not_logins_keep_a_token_alive_and_in_an_hour_there_are_two_at_most() {
    play(async {
        // An hour of a token that lives an hour, in small: it is renewed at two thirds of its life.
        let life = Duration::from_secs(15);
        let mut scene = Scene::without_operator("hour").await?;
        three_identities(&scene, 9, "1s", &json!({"token_ttl": "15s"})).await?;
        let mark = scene.vault.audit_mark();
        scene.start_operator(&[]).await?;
        scene.wait_synced(9).await?;
        let begun = Instant::now();
        sleep(3 * life).await;
        let (logins, renewals, reads) = sorted(scene.vault.requests_since(mark)?)?;
        let lives = begun.elapsed().as_secs_f64() / life.as_secs_f64();
        println!("in {lives:.1} lives of three tokens: {logins} logins, {renewals} renewals");
        ensure!(logins == 3, "{logins} logins");
        // Three in two lives of each; one more each for what was before, and for the ends.
        let most = 3.0 * (lives * 1.5 + 1.0);
        ensure!(
            renewals >= 6 && renewals as f64 <= most,
            "{renewals} renewals in {lives:.1} lives"
        );
        ensure!(reads.values().sum::<usize>() >= 9 * 10, "{reads:?}");
        Ok(())
    });
}

#[test]
fn a_refresh_that_changes_nothing_asks_vault_once_and_the_api_server_nothing() {
    play(async {
        let scene = Scene::new("nothing").await?;
        scene
            .vault
            .put("app", json!({"user": "me", "password": "one"}))
            .await?;
        let data = [one("user", "app", "user"), one("password", "app", "password")];
        let plain = json!({"refreshInterval": "1s", "data": data});
        let mut rendered = plain.clone();
        rendered["target"] = json!({"template": {"data": {
            "url": "https://{{ .user }}:{{ .password }}@db", "salt": "{{ randAlphaNum 8 }}",
        }}});
        scene.external_secret("plain", plain).await?;
        scene.external_secret("rendered", rendered).await?;
        scene.wait_synced(2).await?;
        let reads = async |mark: u64| {
            let mut requests = scene.vault.requests_since(mark)?;
            Ok::<_, anyhow::Error>(requests.remove("secret/data/app").unwrap_or(0))
        };
        let (vault, cluster) = (scene.vault.audit_mark(), scene.cluster.audit_mark());
        wait_for("ten refreshes", SOON, || async {
            Ok((reads(vault).await? >= 10).then_some(()))
        })
        .await?;
        let asked: Vec<String> = scene
            .cluster
            .audit_since(cluster)?
            .iter()
            .filter(|e| e.is_operators() && e.object().0 == scene.namespace)
            .filter(|e| e.verb != "watch")
            .map(|e| format!("{} {}", e.verb, e.resource()))
            .collect();
        ensure!(asked.is_empty(), "the API server was asked: {asked:?}");
        // What Vault holds arrives all the same, and what somebody does to a target is repaired.
        scene
            .vault
            .put("app", json!({"user": "me", "password": "two"}))
            .await?;
        scene.wait_value("plain", "password", "two").await?;
        scene.wait_value("rendered", "url", "https://me:two@db").await?;
        let forged = json!({"stringData": {"password": "forged"}}).to_string();
        let patch = ["patch", "secret", "plain", "-n", &scene.namespace, "-p", &forged];
        scene.cluster.kubectl(&patch, "").await?;
        scene.wait_value("plain", "password", "two").await
    });
}
