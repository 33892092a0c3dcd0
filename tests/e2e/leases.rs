//! Leased values: an engine makes a credential for each read, and ends it with its lease or with the token that asked.
//! No target may ever hold one that is dead.
//!
//! What gives leases is `lessor.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use keyferry_testbed::{Vault, wait_for};
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::lessor::{self, LEASED, lives};
use crate::manifest;
use crate::scene::{SOON, Scene, play};

/// A ClusterSecretStore of KV v1 over the engine, by a role of this life. Leases last for so long.
async fn lease_by(scene: &Scene, lasts: &str, role: Value) -> Result<()> {
    lessor::engine(&scene.vault, lasts, &role).await?;
    let mut store = scene.store_manifest(&lessor::front(&scene.vault).await?, &lessor::login());
    store["spec"]["provider"]["vault"]["path"] = json!("leased");
    store["spec"]["provider"]["vault"]["version"] = json!("v1");
    scene.cluster.apply(&store.to_string()).await.map(drop)
}

/// An ExternalSecret that holds a leased value under the key `lease`.
async fn holder(scene: &Scene, name: &str, further: Value) -> Result<()> {
    let mut spec = json!({"refreshInterval": "1h", "dataFrom": [{"extract": {"key": "creds/app"}}]});
    if let (Some(spec), Some(further)) = (spec.as_object_mut(), further.as_object()) {
        spec.extend(further.clone());
    }
    scene.external_secret(name, spec).await
}

async fn count_leases(vault: &Vault) -> Result<usize> {
    let list = vault
        .api("LIST", &format!("sys/leases/lookup/{LEASED}"), &Value::Null)
        .await?;
    Ok(list["data"]["keys"].as_array().map_or(0, Vec::len))
}

/// The lease of each target in a namespace, by kind and name.
async fn held(scene: &Scene) -> Result<BTreeMap<String, String>> {
    held_in(&scene.cluster.client(), &scene.namespace).await
}

async fn held_in(client: &kube::Client, namespace: &str) -> Result<BTreeMap<String, String>> {
    let mut held = BTreeMap::new();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for secret in secrets.list(&ListParams::default()).await? {
        let lease = secret.data.and_then(|mut data| data.remove("lease"));
        let name = secret.metadata.name.context("no name")?;
        if let Some(lease) = lease {
            held.insert(format!("Secret {name}"), String::from_utf8(lease.0)?);
        }
    }
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    for map in maps.list(&ListParams::default()).await? {
        let lease = map.data.and_then(|mut data| data.remove("lease"));
        let name = map.metadata.name.context("no name")?;
        held.extend(lease.map(|lease| (format!("ConfigMap {name}"), lease)));
    }
    Ok(held)
}

async fn wait_held(scene: &Scene, targets: usize) -> Result<BTreeMap<String, String>> {
    wait_for("a lease in each target", SOON, || async {
        let held = held(scene).await?;
        Ok((held.len() == targets).then_some(held))
    })
    .await
    .with_context(|| scene.story())
}

/// Looks all the time whether the value in each target lives.
struct Watchful(JoinHandle<Result<()>>);

impl Watchful {
    fn over(scene: &Scene) -> Self {
        let (client, vault) = (scene.cluster.client(), scene.vault.clone());
        let namespace = scene.namespace.clone();
        Self(tokio::spawn(async move {
            let begun = Instant::now();
            loop {
                for (target, lease) in held_in(&client, &namespace).await? {
                    if lives(&vault, &lease).await {
                        continue;
                    }
                    // It may have been read anew since we looked.
                    let now = held_in(&client, &namespace).await?;
                    ensure!(
                        now.get(&target) != Some(&lease),
                        "{target} holds a dead credential after {:?}",
                        begun.elapsed()
                    );
                }
                sleep(Duration::from_millis(50)).await;
            }
        }))
    }

    /// Looks for so long more; no value died in a target since the beginning.
    async fn until(&mut self, time: Duration, scene: &Scene) -> Result<()> {
        match tokio::time::timeout(time, &mut self.0).await {
            Err(_) => Ok(()),
            Ok(ended) => match ended? {
                Err(error) => Err(error).with_context(|| scene.story()),
                Ok(()) => bail!("the watch ended"),
            },
        }
    }
}

impl Drop for Watchful {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[test]
fn each_object_has_a_lease_of_its_own_and_the_403_of_another_ends_none() {
    play(async {
        let mut scene = Scene::without_operator("leases").await?;
        lease_by(&scene, "6h", json!({})).await?;
        for i in 0..6 {
            holder(&scene, &format!("app-{i}"), json!({})).await?;
        }
        // All of them ask at one time.
        scene.start_operator(&[]).await?;
        let first = wait_held(&scene, 6).await?;
        let leases: BTreeSet<&String> = first.values().collect();
        ensure!(leases.len() == 6, "shared: {first:?}");
        ensure!(count_leases(&scene.vault).await? == 6, "leases that nobody holds");
        for i in 0..6 {
            scene
                .wait_ready("externalsecret", &format!("app-{i}"), "True", "SecretSynced")
                .await?;
        }

        // What may not be read costs a login, and the others nothing.
        let mark = scene.vault.audit_mark();
        let denied = json!({"dataFrom": [{"extract": {"key": "of-others/x"}}]});
        holder(&scene, "denied", denied).await?;
        scene
            .wait_ready("externalsecret", "denied", "False", "answered 403")
            .await?;
        let requests = scene.vault.requests_since(mark)?;
        ensure!(
            requests.contains_key("auth/kubernetes/login"),
            "no new login: {requests:?}"
        );
        let mut watchful = Watchful::over(&scene);
        watchful.until(Duration::from_secs(3), &scene).await?;
        ensure!(held(&scene).await? == first, "they were read anew for nothing");

        // A policy that is added has the login replaced. The old token lives while its leases are held.
        let rule = "path \"leased/*\" { capabilities = [\"read\"] }";
        scene
            .vault
            .api("PUT", "sys/policies/acl/more", &json!({"policy": rule}))
            .await?;
        scene
            .vault
            .api("POST", "leased/of-others/x", &json!({"ttl": "6h"}))
            .await?;
        let role = json!({"token_policies": ["leased", "more"]});
        scene
            .vault
            .write_role("leased", "eso-vault-auth", "security", &role)
            .await?;
        let all = wait_held(&scene, 7).await?;
        watchful.until(Duration::from_secs(3), &scene).await?;
        ensure!(
            scene.vault.living_logins().await? == 2,
            "the old token, and the new one"
        );
        let still = first.iter().all(|(target, lease)| all.get(target) == Some(lease));
        ensure!(still, "they were read anew for nothing");
        // Read anew, they hang on the new token.
        for i in 0..6 {
            scene.force_sync(&format!("app-{i}")).await?;
        }
        wait_for("leases of the new token", SOON, || async {
            let now = held(&scene).await?;
            Ok(first
                .iter()
                .all(|(target, lease)| now.get(target) != Some(lease))
                .then_some(()))
        })
        .await?;
        watchful.until(Duration::from_secs(3), &scene).await
    });
}

#[test]
fn a_short_lease_is_read_anew_before_its_end_whatever_the_refresh_says() {
    play(async {
        let mut scene = Scene::without_operator("short-leases").await?;
        lease_by(&scene, "15s", json!({})).await?;
        let specs = [
            ("hourly", json!({})),
            ("once", json!({"refreshInterval": "0"})),
            ("created-once", json!({"refreshPolicy": "CreatedOnce"})),
            ("on-change", json!({"refreshPolicy": "OnChange"})),
            ("orphan", json!({"target": {"creationPolicy": "Orphan"}})),
            (
                "templated",
                json!({"target": {"template": {"data": {"lease": "{{ .lease }}", "x": "{{ randAlphaNum 8 }}"}}}}),
            ),
        ];
        for (name, spec) in &specs {
            holder(&scene, name, spec.clone()).await?;
        }
        scene.start_operator(&[]).await?;
        let first = wait_held(&scene, specs.len()).await?;
        let mut watchful = Watchful::over(&scene);
        watchful.until(Duration::from_secs(35), &scene).await?;
        let then = held(&scene).await?;
        for (target, lease) in &first {
            ensure!(
                then.get(target).is_some_and(|now| now != lease),
                "{target} was not read anew"
            );
        }
        Ok(())
    });
}

#[test]
fn a_token_that_ends_for_good_has_its_leases_read_anew_by_another_before() {
    play(async {
        let mut scene = Scene::without_operator("capped-leases").await?;
        let role = json!({"token_ttl": "18s", "token_max_ttl": "40s"});
        lease_by(&scene, "6h", role).await?;
        for i in 0..3 {
            holder(&scene, &format!("app-{i}"), json!({})).await?;
        }
        scene.start_operator(&[]).await?;
        let first = wait_held(&scene, 3).await?;
        let mut watchful = Watchful::over(&scene);
        watchful.until(Duration::from_secs(60), &scene).await?;
        let then = held(&scene).await?;
        ensure!(
            first
                .iter()
                .all(|(target, lease)| then.get(target) != Some(lease)),
            "{then:?}"
        );
        Ok(())
    });
}

#[test]
fn no_target_holds_a_dead_credential_while_the_operator_is_told_to_stop_is_killed_and_starts_again() {
    play(async {
        let flags = [manifest::FLAG];
        let mut scene = manifest::stage("restarted-leases", &flags).await?;
        scene.operator().terminate()?;
        // Nobody renews the tokens of the process before: what hangs on them is read anew in time.
        lease_by(&scene, "6h", json!({"token_ttl": "30s"})).await?;
        for i in 0..4 {
            holder(&scene, &format!("app-{i}"), json!({})).await?;
        }
        holder(&scene, "once", json!({"refreshPolicy": "CreatedOnce"})).await?;
        let target = json!({"manifest": {"apiVersion": "v1", "kind": "ConfigMap"}});
        holder(&scene, "generic", json!({"target": target})).await?;
        scene.start_operator(&flags).await?;
        let mut before = wait_held(&scene, 6).await?;
        let mut watchful = Watchful::over(&scene);
        for killed in [false, true] {
            // Long enough for the token to have been renewed.
            watchful.until(Duration::from_secs(25), &scene).await?;
            match killed {
                true => scene.operator().kill()?,
                false => scene.operator().terminate()?,
            }
            watchful.until(Duration::from_secs(1), &scene).await?;
            scene.start_operator(&flags).await?;
            watchful.until(Duration::from_secs(35), &scene).await?;
            let now = held(&scene).await?;
            for (target, lease) in &before {
                ensure!(
                    now.get(target).is_some_and(|now| now != lease),
                    "{target} was not read anew"
                );
            }
            before = now;
        }
        Ok(())
    });
}
