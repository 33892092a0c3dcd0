//! Two replicas under load: however the leader goes, another takes over in time, and no two ever write at once.
//! The API server's audit log is the witness: each replica has a token of its own there. A program of its own, with
//! one test at a time: what is measured here are seconds under a load that the test makes itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, reason = "most of it is for the other tests")]
#[path = "../e2e/scene.rs"]
mod scene;

#[path = "../e2e/lessor.rs"]
mod lessor;

mod handover;
mod restored;
mod standby;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use keyferry::api::external_secret::ExternalSecret;
use keyferry_testbed::{Cluster, Echo, Mode, Operator, OperatorOptions, Proxy, SHORT_LEASE, Vault, wait_for};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::scene::{SOON, login, one};

static TURN: Mutex<()> = Mutex::new(());

fn play(test: impl Future<Output = Result<()>>) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    scene::play(test);
}

const OBJECTS: usize = 300;
const PATHS: usize = 20;
/// Between two bursts of forced syncs.
const BURST: Duration = Duration::from_millis(150);
/// The chart's lease holds for so long.
const LEASE: Duration = Duration::from_secs(15);

/// A ClusterSecretStore `store`.
fn store(vault: &Value) -> Value {
    json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ClusterSecretStore", "metadata": {"name": "store"},
        "spec": {"provider": {"vault": vault}},
    })
}

/// An ExternalSecret of that store.
fn external(name: &str, further: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"refreshInterval": "1h", "secretStoreRef": {"kind": "ClusterSecretStore", "name": "store"}},
    });
    if let (Some(spec), Some(further)) = (object["spec"].as_object_mut(), further.as_object()) {
        spec.extend(further.clone());
    }
    object
}

/// The kv store of a Vault.
fn kv(vault: &Vault) -> Value {
    json!({"server": vault.address(), "path": "secret", "auth": login()})
}

/// Starts a replica.
async fn replica(
    cluster: &Cluster,
    name: &str,
    args: &[&str],
    api_server: Option<String>,
) -> Result<Operator> {
    let options = OperatorOptions {
        command: vec![env!("CARGO_BIN_EXE_keyferry").into()],
        args: args.iter().map(|arg| (*arg).to_string()).collect(),
        name: Some(name.into()),
        api_server,
        ..OperatorOptions::default()
    };
    let operator = Operator::start(cluster, options).await?;
    operator.wait_ready().await?;
    Ok(operator)
}

struct Stage {
    cluster: Cluster,
    load: JoinHandle<Result<()>>,
    mark: u64,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.load.abort();
    }
}

impl Stage {
    /// A cluster of its own, because the chart's right on the Lease is for one name; with ExternalSecrets that are
    /// refreshed and forced all the time, each time with a new value.
    async fn start() -> Result<Self> {
        let cluster = Cluster::start().await?;
        cluster.install_chart(&["--set", "replicaCount=2"]).await?;
        let vault = Arc::new(Vault::start(&cluster).await?);
        let mut yaml = store(&kv(&vault)).to_string();
        for path in 0..PATHS {
            vault
                .put(&format!("app/{path}"), json!({"value": "first"}))
                .await?;
        }
        for i in 0..OBJECTS {
            let further = json!({
                "refreshInterval": "10s", "data": [one("value", &format!("app/{}", i % PATHS), "value")],
            });
            let object = external(&format!("app-{i}"), &further);
            yaml += &format!("\n---\n{object}");
        }
        cluster.apply(&yaml).await?;
        let load = tokio::spawn(load(Api::namespaced(cluster.client(), "default"), vault));
        let mark = cluster.audit_mark();
        Ok(Self { cluster, load, mark })
    }

    async fn replica(&self, name: &str, args: &[&str], api_server: Option<String>) -> Result<Operator> {
        replica(&self.cluster, name, args, api_server).await
    }

    /// One whose way to the API server leads through a proxy.
    async fn behind_proxy(&self, name: &str) -> Result<(Operator, Proxy)> {
        let proxy = Proxy::start(self.cluster.socket()?).await?;
        let url = format!("https://{}", proxy.address());
        Ok((self.replica(name, &SHORT_LEASE, Some(url)).await?, proxy))
    }

    /// All that was asked for since a mark and changes something, in the order of arrival: when, by whose token, and
    /// what. Requests that were refused count as well. The Lease is how they agree; a token changes nothing.
    fn writes(&self, mark: u64) -> Result<Vec<(String, String, String)>> {
        let mut writes = Vec::new();
        for event in self.cluster.audit_since(mark)? {
            let resource = event.resource();
            if event.reads()
                || !event.is_operators()
                || matches!(resource.as_str(), "leases" | "serviceaccounts/token")
            {
                continue;
            }
            let who = event.credential().context("no credential in the audit log")?;
            writes.push((
                event.request_received_timestamp.clone(),
                who.to_string(),
                format!("{} {resource} {:?} {}", event.verb, event.object(), event.code()),
            ));
        }
        writes.sort();
        Ok(writes)
    }

    /// Waits until a replica writes; how long it took.
    async fn wait_writes(&self, of: &Operator, mark: u64) -> Result<Duration> {
        let began = Instant::now();
        wait_for("writes of the next leader", SOON, || async {
            let writes = self.writes(mark)?;
            Ok(writes
                .iter()
                .any(|(_, who, _)| who == of.credential())
                .then_some(()))
        })
        .await?;
        Ok(began.elapsed())
    }

    /// Every leader wrote, in this order, and none after the next one began.
    fn assert_order(&self, leaders: &[&Operator]) -> Result<()> {
        ensure!(!self.load.is_finished(), "the load has ended");
        let wanted: Vec<&str> = leaders.iter().map(|leader| leader.credential()).collect();
        let writes = self.writes(self.mark)?;
        let mut seen: Vec<&str> = writes.iter().map(|(_, who, _)| who.as_str()).collect();
        seen.dedup();
        if seen != wanted {
            let turns = writes.windows(2).filter(|pair| pair[0].1 != pair[1].1);
            let turns: Vec<String> = turns
                .map(|pair| format!("{:?}\n{:?}", pair[0], pair[1]))
                .collect();
            anyhow::bail!("wanted {wanted:?}, saw these turns:\n{}", turns.join("\n\n"));
        }
        Ok(())
    }
}

async fn load(objects: Api<ExternalSecret>, vault: Arc<Vault>) -> Result<()> {
    for round in 0.. {
        let path = round % PATHS;
        vault
            .put(&format!("app/{path}"), json!({"value": format!("round-{round}")}))
            .await?;
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"force-sync": round.to_string()}}}));
        let params = PatchParams::default();
        join_all((path..OBJECTS).step_by(PATHS).map(|i| {
            let (objects, patch, params) = (&objects, &patch, &params);
            async move { objects.patch(&format!("app-{i}"), params, patch).await }
        }))
        .await
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
        sleep(BURST).await;
    }
    Ok(())
}

#[test]
fn with_the_charts_times_another_replica_takes_over_from_one_that_is_killed_or_told_to_stop() {
    play(async {
        let stage = Stage::start().await?;
        let first = stage.replica("first", &[], None).await?;
        stage.wait_writes(&first, stage.mark).await?;
        let second = stage.replica("second", &[], None).await?;
        sleep(Duration::from_secs(3)).await;
        let (mark, echo) = (stage.cluster.audit_mark(), Echo::start(&stage.cluster).await?);
        first.kill()?;
        let took = stage.wait_writes(&second, mark).await?;
        eprintln!("killed: the next one wrote after {took:?}");
        let allowed = echo.allows(LEASE + Duration::from_secs(2));
        ensure!(took < allowed, "{took:?}, {allowed:?} allowed");
        let third = stage.replica("third", &[], None).await?;
        sleep(Duration::from_secs(1)).await;
        let (mark, told) = (stage.cluster.audit_mark(), Instant::now());
        second.terminate()?;
        stage.wait_writes(&third, mark).await?;
        // The work under way has ended, its tokens are revoked and the lease is released within this.
        let (took, allowed) = (told.elapsed(), echo.allows(Duration::from_secs(4)));
        eprintln!("told to stop: the next one wrote after {took:?}");
        ensure!(took < allowed, "{took:?}, {allowed:?} allowed");
        stage.assert_order(&[&first, &second, &third])
    });
}

#[test]
fn a_leader_that_wakes_up_past_its_lease_writes_nothing_at_whatever_moment_it_was_paused() {
    play(async {
        let stage = Stage::start().await?;
        let first = stage.replica("first", &SHORT_LEASE, None).await?;
        stage.wait_writes(&first, stage.mark).await?;
        let second = stage.replica("second", &SHORT_LEASE, None).await?;
        let mut leaders = vec![&first];
        for round in 0..10 {
            let (leader, next) = if round % 2 == 0 {
                (&first, &second)
            } else {
                (&second, &first)
            };
            sleep(Duration::from_millis(1000 + rand::random_range(0..200))).await;
            let mark = stage.cluster.audit_mark();
            leader.pause(true)?;
            stage.wait_writes(next, mark).await?;
            leader.pause(false)?;
            leaders.push(next);
        }
        sleep(Duration::from_secs(2)).await;
        stage.assert_order(&leaders)
    });
}

#[test]
fn a_leader_that_is_cut_off_or_whose_network_is_slow_writes_nothing_late() {
    play(async {
        let stage = Stage::start().await?;
        let (first, way) = stage.behind_proxy("first").await?;
        stage.wait_writes(&first, stage.mark).await?;
        let second = stage.replica("second", &SHORT_LEASE, None).await?;
        let mut leaders = vec![&first];
        // A connection that is made while answers come so slowly is ready when another replica leads.
        let slow = Mode::Delay(Duration::from_secs(6));
        for mode in [slow.clone(), Mode::Hang, slow, Mode::Refuse] {
            sleep(Duration::from_millis(500 + rand::random_range(0..200))).await;
            let mark = stage.cluster.audit_mark();
            way.set(mode);
            stage.wait_writes(&second, mark).await?;
            leaders.push(&second);
            sleep(Duration::from_secs(8)).await;
            way.set(Mode::Pass);
            sleep(Duration::from_secs(3)).await;
            // Back to the first one.
            let mark = stage.cluster.audit_mark();
            second.pause(true)?;
            stage.wait_writes(&first, mark).await?;
            second.pause(false)?;
            leaders.push(&first);
        }
        sleep(Duration::from_secs(2)).await;
        stage.assert_order(&leaders)
    });
}
