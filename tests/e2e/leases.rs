//! Leased values: an engine makes a credential for each read, and ends it with its lease or with the token that asked.
//! No target may ever hold one that is dead.
//!
//! The engine is Vault's own KV v1 with `leased_passthrough`, which gives real leases and the same values to everybody.
//! A server in front of it puts the name of the lease in the place of the value, so that a target tells by which lease
//! its value lives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use keyferry_testbed::{Vault, wait_for};
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::manifest;
use crate::scene::{SOON, Scene, play};

const LEASED: &str = "leased/creds/app";

/// A server in front of Vault that answers a leased read with the name of its lease. Gives its URL.
async fn front(vault: &Arc<Vault>) -> Result<String> {
    let (upstream, http) = (vault.address().to_owned(), reqwest::Client::new());
    let pass_on = move |request: Request| {
        let (upstream, http) = (upstream.clone(), http.clone());
        async move {
            match passed_on(&upstream, &http, request).await {
                Ok((status, body)) => (status, body),
                Err(_) => (StatusCode::BAD_GATEWAY, Bytes::new()),
            }
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(pass_on)).await });
    Ok(url)
}

async fn passed_on(upstream: &str, http: &reqwest::Client, request: Request) -> Result<(StatusCode, Bytes)> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await?;
    let leases = parts.uri.path().starts_with("/v1/leased/");
    let mut headers = parts.headers;
    headers.remove("host");
    let call = http.request(parts.method, format!("{upstream}{}", parts.uri));
    let answer = call.headers(headers).body(body).send().await?;
    let (status, body) = (answer.status(), answer.bytes().await?);
    if !leases || status != StatusCode::OK {
        return Ok((status, body));
    }
    let mut answer: Value = serde_json::from_slice(&body)?;
    answer["data"] = json!({"lease": answer["lease_id"]});
    Ok((status, answer.to_string().into()))
}

/// A ClusterSecretStore of KV v1 over the engine, by a role of this life. Leases last for so long.
async fn lease_by(scene: &Scene, lasts: &str, role: Value) -> Result<()> {
    let vault = &scene.vault;
    let options = json!({"version": "1", "leased_passthrough": "true"});
    let engine = json!({"type": "kv", "options": options});
    vault.api("POST", "sys/mounts/leased", &engine).await?;
    vault.api("POST", LEASED, &json!({"ttl": lasts})).await?;
    let rule = "path \"leased/creds/*\" { capabilities = [\"read\"] }";
    vault
        .api("PUT", "sys/policies/acl/leased", &json!({"policy": rule}))
        .await?;
    let mut further = json!({"token_policies": ["leased"]});
    if let (Some(further), Some(role)) = (further.as_object_mut(), role.as_object()) {
        further.extend(role.clone());
    }
    vault
        .write_role("leased", "eso-vault-auth", "security", &further)
        .await?;
    let auth = json!({"kubernetes": {
        "mountPath": "kubernetes", "role": "leased",
        "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"},
    }});
    let mut store = scene.store_manifest(&front(vault).await?, &auth);
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

async fn lives(vault: &Vault, lease: &str) -> bool {
    let body = json!({"lease_id": lease});
    vault
        .api("PUT", "sys/leases/lookup", &body)
        .await
        .is_ok_and(|found| !found.is_null())
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
