//! What a leader that stops leaves behind: a Lease that it held while the API server owed it an answer, and leased
//! values, which hang on its tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use keyferry_testbed::{Answer, Cluster, End, Mode, Proxy, SHORT_LEASE, TlsBack, Vault, wait_for};
use kube::Api;
use serde_json::json;

use crate::scene::{SOON, one};
use crate::standby::leads;
use crate::{external, kv, lessor, play, replica, store};

/// Name of the chart's Lease.
const LEASE: &str = "external-secrets-controller";

async fn holder(cluster: &Cluster) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(cluster.client(), "security");
    let spec = leases.get(LEASE).await?.spec.context("no spec")?;
    Ok(spec.holder_identity.unwrap_or_default())
}

#[test]
fn a_leader_that_is_told_to_stop_keeps_the_lease_if_a_write_was_never_answered_and_releases_it_otherwise() {
    play(async {
        let cluster = Cluster::start().await?;
        cluster.install_chart(&[]).await?;
        let vault = Vault::start(&cluster).await?;
        vault.put("app", json!({"user": "admin"})).await?;
        cluster.apply(&store(&kv(&vault)).to_string()).await?;
        // The API server takes the new Secret, and says nothing.
        let back = TlsBack::start(cluster.socket()?, cluster.ca_pem()).await?;
        let way = Proxy::start(back.address()).await?;
        let secrets = "/api/v1/namespaces/default/secrets";
        way.set(Mode::Answers(vec![
            Answer::raw(secrets, "", End::Hang).only("POST"),
        ]));
        let url = format!("http://{}", way.address());
        let first = replica(&cluster, "first", &SHORT_LEASE, Some(url)).await?;
        leads(&first).await?;
        let mark = vault.audit_mark();
        let data = json!({"data": [one("user", "app", "user")]});
        cluster.apply(&external("app", &data).to_string()).await?;
        // The write follows; work that is under way when a leader is told to stop is not cut short.
        wait_for("the read", SOON, || async {
            Ok(vault
                .requests_since(mark)?
                .contains_key("secret/data/app")
                .then_some(()))
        })
        .await?;
        first.terminate()?;
        let logs = first.logs();
        ensure!(logs.contains("the lease is not released"), "{logs}");
        ensure!(
            holder(&cluster).await? == "first",
            "released before the answer came"
        );
        // It runs out, and the next one writes; all of its writes are answered.
        let second = replica(&cluster, "second", &SHORT_LEASE, None).await?;
        leads(&second).await?;
        let written: Api<Secret> = Api::namespaced(cluster.client(), "default");
        wait_for("the Secret", SOON, || async { Ok(written.get_opt("app").await?) }).await?;
        second.terminate()?;
        let logs = second.logs();
        ensure!(!logs.contains("the lease is not released"), "{logs}");
        ensure!(holder(&cluster).await?.is_empty(), "it is not released");
        Ok(())
    });
}

/// The lease of each Secret.
async fn held(cluster: &Cluster, names: &[&str]) -> Result<BTreeMap<String, String>> {
    let secrets: Api<Secret> = Api::namespaced(cluster.client(), "default");
    let mut held = BTreeMap::new();
    for name in names {
        let secret = secrets.get_opt(name).await?;
        if let Some(lease) = secret.and_then(|secret| secret.data?.remove("lease")) {
            held.insert((*name).to_owned(), String::from_utf8(lease.0)?);
        }
    }
    Ok(held)
}

#[test]
fn leased_values_live_on_in_their_secrets_however_the_leader_that_read_them_goes() {
    play(async {
        let cluster = Cluster::start().await?;
        cluster.install_chart(&[]).await?;
        let vault = Arc::new(Vault::start(&cluster).await?);
        lessor::engine(&vault, "6h", &json!({})).await?;
        let server = lessor::front(&vault).await?;
        let at = json!({"server": server, "path": "leased", "version": "v1", "auth": lessor::login()});
        cluster.apply(&store(&at).to_string()).await?;
        let mut leader = replica(&cluster, "first", &SHORT_LEASE, None).await?;
        leads(&leader).await?;
        for (round, name) in ["told", "paused", "killed"].into_iter().enumerate() {
            // Read by the one that leads now.
            let data = json!({"dataFrom": [{"extract": {"key": "creds/app"}}]});
            cluster.apply(&external(name, &data).to_string()).await?;
            let names = &["told", "paused", "killed"][..=round];
            let before = wait_for("a lease in each Secret", SOON, || async {
                let held = held(&cluster, names).await?;
                Ok((held.len() == names.len()).then_some(held))
            })
            .await?;
            let next = replica(&cluster, &format!("after-{name}"), &SHORT_LEASE, None).await?;
            match name {
                "told" => leader.terminate()?,
                "paused" => leader.pause(true)?,
                _ => leader.kill()?,
            }
            leads(&next).await?;
            if name == "paused" {
                // It finds that it leads no more, and ends like any other.
                leader.pause(false)?;
                leader.terminate()?;
            }
            let after = held(&cluster, names).await?;
            ensure!(after == before, "{name}: read anew for nothing: {after:?}");
            for (secret, lease) in &after {
                ensure!(
                    lessor::lives(&vault, lease).await,
                    "{name}: Secret {secret} holds a dead credential"
                );
            }
            leader = next;
        }
        Ok(())
    });
}
