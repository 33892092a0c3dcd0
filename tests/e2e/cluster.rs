//! A Vault of three nodes behind a plain Service: one sealed, the leader gone or stepping down, nobody elected.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use keyferry::api::external_secret::ExternalSecret;
use keyferry_testbed::{Echo, Mode, Proxy, VaultCluster, wait_for};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::flaps::Flaps;
use crate::scene::{SOON, Scene, one, play};

const OBJECTS: usize = 30;
const NO_LEADER: &str = r#"{"errors":["local node not active but active cluster node not found"]}"#;

/// A scene whose Vault is one of three nodes, and the Service before them.
struct Three {
    scene: Scene,
    vaults: VaultCluster,
    service: Proxy,
}

impl Three {
    /// The store of the scene is at the Service. There is no operator yet.
    async fn new(name: &str) -> Result<Self> {
        let scene = Scene::without_operator(name).await?;
        let vaults = VaultCluster::around(scene.cluster, scene.vault.clone()).await?;
        let service = Proxy::start(scene.vault.socket()?).await?;
        service.set(Mode::Random(vaults.sockets()?));
        scene.store(&format!("http://{}", service.address())).await?;
        Ok(Self {
            scene,
            vaults,
            service,
        })
    }

    /// With an operator and objects that are refreshed every two seconds and synced.
    async fn in_use(name: &str) -> Result<(Self, Before)> {
        let mut three = Self::new(name).await?;
        three.scene.many("app", OBJECTS, "2s").await?;
        // One that takes a 'not found' at its word.
        let delete = json!({
            "refreshInterval": "1s", "target": {"deletionPolicy": "Delete"}, "data": [one("value", "kept", "value")],
        });
        three.put("kept", "kept").await?;
        three.scene.external_secret("kept", delete).await?;
        three.scene.start_operator(&[]).await?;
        three.scene.wait_synced(OBJECTS + 1).await?;
        let before = Before {
            flaps: Flaps::of(&three.scene),
            kept: three.kept().await?,
        };
        Ok((three, before))
    }

    /// UID of the Secret that would be deleted.
    async fn kept(&self) -> Result<Value> {
        Ok(self.scene.get("secret", "kept").await?["metadata"]["uid"].clone())
    }

    /// Writes a value, whoever leads.
    async fn put(&self, path: &str, value: &str) -> Result<()> {
        wait_for("a write", SOON, || async {
            let leader = self.vaults.leader().await?;
            leader.put(path, json!({"value": value})).await.map(Some)
        })
        .await
    }

    async fn put_all(&self, value: &str) -> Result<()> {
        for i in 0..OBJECTS {
            self.put(&format!("app/{i}"), value).await?;
        }
        Ok(())
    }

    async fn wait_all(&self, value: &str) -> Result<()> {
        self.wait_holders(&["app-"], value).await
    }

    /// Waits until all Secrets with these prefixes hold the value.
    async fn wait_holders(&self, prefixes: &[&str], value: &str) -> Result<()> {
        wait_for("the value everywhere", SOON, || async {
            let behind = behind(&self.scene, prefixes, value).await?;
            ensure!(behind.is_empty(), "not in {behind:?}");
            Ok(Some(()))
        })
        .await
        .with_context(|| self.scene.story())
    }

    fn reads_since(&self, mark: u64) -> Result<usize> {
        let requests = self.scene.vault.requests_since(mark)?;
        let reads = requests
            .iter()
            .filter(|(path, _)| path.starts_with("secret/data/app/"));
        Ok(reads.map(|(_, count)| count).sum())
    }
}

/// What must not have been harmed.
struct Before {
    flaps: Flaps,
    kept: Value,
}

impl Before {
    /// Nothing was red at any time, and no Secret was deleted and made anew.
    async fn unharmed(&self, three: &Three) -> Result<()> {
        self.flaps.none(&three.scene)?;
        ensure!(three.kept().await? == self.kept, "a Secret was deleted");
        Ok(())
    }
}

/// The Secrets with these prefixes that do not hold the value.
async fn behind(scene: &Scene, prefixes: &[&str], value: &str) -> Result<Vec<String>> {
    let api: Api<Secret> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    let secrets = api.list(&ListParams::default()).await?;
    ensure!(!secrets.items.is_empty(), "no Secrets");
    let ours = secrets.items.into_iter().filter_map(|secret| {
        let name = secret.metadata.name.unwrap_or_default();
        let held = secret.data.unwrap_or_default().remove("value");
        let is = held.is_some_and(|held| held.0 == value.as_bytes());
        (prefixes.iter().any(|prefix| name.starts_with(prefix)) && !is).then_some(name)
    });
    Ok(ours.collect())
}

#[test]
fn one_sealed_node_of_three_behind_a_service_is_noticed_by_nobody() {
    play(async {
        let (three, before) = Three::in_use("one-sealed").await?;
        three.vaults.standby().await?.restart_sealed().await?;
        let (mark, cluster) = (three.scene.vault.audit_mark(), three.scene.cluster.audit_mark());
        sleep(Duration::from_secs(8)).await;
        let reads = three.reads_since(mark)?;
        ensure!(
            reads >= 2 * OBJECTS,
            "only {reads} reads in 8 s\n{}",
            three.scene.story()
        );
        three.put_all("new").await?;
        three.wait_all("new").await?;
        before.unharmed(&three).await?;
        let events = three.scene.cluster.audit_since(cluster)?;
        let of_store = events
            .iter()
            .filter(|e| e.resource() == "clustersecretstores/status" && e.object().1 == three.scene.class);
        ensure!(of_store.count() == 0, "the store's status was written");
        Ok(())
    });
}

#[test]
fn two_minutes_of_leaders_that_step_down_lose_nothing_and_turn_nothing_red() {
    play(async {
        let (three, before) = Three::in_use("step-down").await?;
        let end = Instant::now() + Duration::from_secs(120);
        let mut round = 0;
        while Instant::now() < end {
            let next = Instant::now() + Duration::from_secs(10);
            three.vaults.step_down().await?;
            three.put_all(&format!("round-{round}")).await?;
            tokio::time::sleep_until(next).await;
            before.unharmed(&three).await?;
            round += 1;
        }
        ensure!(round >= 5, "only {round} rounds");
        println!("{round} leaders stepped down");
        three.put_all("last").await?;
        three.wait_all("last").await?;
        before.unharmed(&three).await
    });
}

#[test]
fn a_killed_leader_turns_nothing_red_and_reads_go_on_within_two_seconds_of_the_next_one() {
    play(async {
        let (three, before) = Three::in_use("leader-killed").await?;
        three.vaults.leader().await?.kill()?;
        let killed = Instant::now();
        let leader = three.vaults.leader().await?;
        let (elected, echo) = (Instant::now(), Echo::start(three.scene.cluster).await?);
        let mark = three.scene.vault.audit_mark();
        let reads = |count: usize| {
            let three = &three;
            wait_for("reads", SOON, move || async move {
                Ok((three.reads_since(mark)? >= count).then_some(()))
            })
        };
        reads(1).await.with_context(|| three.scene.story())?;
        let first = elected.elapsed();
        reads(OBJECTS).await.with_context(|| three.scene.story())?;
        println!(
            "a leader {:.1?} after the kill, the first read {first:.1?} later, all {:.1?} later",
            elected - killed,
            elected.elapsed()
        );
        let allowed = echo.allows(Duration::from_secs(2));
        ensure!(
            first < allowed,
            "the first read came {first:?} after the election, {allowed:?} allowed"
        );
        leader.put("app/0", json!({"value": "new"})).await?;
        three.scene.wait_value("app-0", "value", "new").await?;
        let (status, ..) = three
            .scene
            .ready("clustersecretstore", &three.scene.class)
            .await?;
        ensure!(status == "True", "{}", three.scene.story());
        three.put_all("last").await?;
        three.wait_all("last").await?;
        before.unharmed(&three).await
    });
}

#[test]
fn a_lost_quorum_is_told_by_the_store_and_never_by_an_object_and_ends_with_it() {
    play(async {
        let (three, before) = Three::in_use("quorum").await?;
        let leader = three.vaults.leader().await?;
        let other = three.vaults.standby().await?;
        other.stop()?;
        leader.kill()?;
        let message = three.scene.wait_store("False", "VaultNoActiveNode").await?;
        ensure!(message.contains("lost its quorum"), "{message}");
        three
            .scene
            .wait_ready("externalsecret", "app-0", "True", "could not be confirmed")
            .await?;
        let red = before
            .flaps
            .none(&three.scene)
            .err()
            .map(|e| format!("{e:#}"))
            .unwrap_or_default();
        ensure!(!red.contains("ExternalSecret app-"), "{red}");
        other.start_sealed().await?;
        other.unseal_now().await?;
        three.vaults.leader().await?;
        let (elected, echo) = (Instant::now(), Echo::start(three.scene.cluster).await?);
        three.scene.wait_store("True", "Valid").await?;
        let (took, allowed) = (elected.elapsed(), echo.allows(Duration::from_secs(4)));
        println!("the store is Ready {took:.1?} after the election");
        ensure!(took < allowed, "{took:?}, {allowed:?} allowed");
        three.put_all("last").await?;
        three.wait_all("last").await
    });
}

#[test]
fn an_answer_without_an_active_node_is_an_outage_of_the_connection_and_of_no_object() {
    play(async {
        let (three, before) = Three::in_use("no-leader").await?;
        let mark = three.scene.cluster.audit_mark();
        // As long as an election may take.
        three
            .service
            .set(Mode::Http(500, String::new(), NO_LEADER.into()));
        sleep(Duration::from_secs(6)).await;
        let events = three.scene.cluster.audit_since(mark)?;
        let written = events.iter().filter(|e| {
            e.resource().ends_with("/status")
                && (e.object().0 == three.scene.namespace || e.object().1 == three.scene.class)
        });
        ensure!(written.count() == 0, "an election was told");
        three.service.set(Mode::Random(three.vaults.sockets()?));
        three.put_all("after").await?;
        three.wait_all("after").await?;
        before.unharmed(&three).await
    });
}

#[test]
fn a_cluster_behind_a_service_is_about_as_fast_as_one_node() {
    play(async {
        let mut three = Three::new("cluster-speed").await?;
        let scene = &three.scene;
        let direct = format!("{}-direct", scene.class);
        let mut store = scene.store_manifest(three.vaults.leader().await?.address(), &json!({"kubernetes": {
            "role": "eso-reader", "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"},
        }}));
        store["metadata"]["name"] = json!(direct);
        scene.cluster.apply(&store.to_string()).await?;
        three.put("shared", "begin").await?;
        let mut yaml = String::new();
        for (prefix, store) in [("service", &scene.class), ("direct", &direct)] {
            for i in 0..40 {
                let spec = json!({
                    "refreshInterval": "1h", "data": [one("value", "shared", "value")],
                    "secretStoreRef": {"kind": "ClusterSecretStore", "name": store},
                });
                let manifest = scene.external_secret_manifest(&format!("{prefix}-{i}"), spec);
                yaml += &format!("---\n{manifest}\n");
            }
        }
        scene.cluster.apply(&yaml).await?;
        three.scene.start_operator(&[]).await?;
        three.wait_holders(&["service-", "direct-"], "begin").await?;
        three.compare("three good nodes").await?;
        three.vaults.standby().await?.restart_sealed().await?;
        three.compare("one of three sealed").await
    });
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

impl Three {
    /// Times through the Service beside those with one node.
    async fn compare(&self, with: &str) -> Result<()> {
        for count in [1, 40] {
            let (mut service, mut direct) = (Vec::new(), Vec::new());
            for round in 0..3 {
                let value = format!("{with} {count} {round}");
                service.push(self.forced("service", count, &format!("{value} s")).await?);
                direct.push(self.forced("direct", count, &format!("{value} d")).await?);
            }
            let (service, direct) = (median(service), median(direct));
            println!("{with}, {count} forced: {service:.1?} through the Service, {direct:.1?} with one node");
            // Half a second is what a loaded machine may cost either of them.
            ensure!(
                service < 3 * direct + Duration::from_millis(500),
                "{with}, {count} forced: {service:?} through the Service, {direct:?} with one node"
            );
        }
        Ok(())
    }

    /// Writes a value, forces so many objects, and takes the time until all hold it.
    async fn forced(&self, prefix: &str, count: usize, value: &str) -> Result<Duration> {
        // Reads of one path keep a distance.
        sleep(Duration::from_millis(700)).await;
        self.put("shared", value).await?;
        let (client, namespace) = (self.scene.cluster.client(), &self.scene.namespace);
        let objects: Api<ExternalSecret> = Api::namespaced(client.clone(), namespace);
        let secrets: Api<Secret> = Api::namespaced(client, namespace);
        let patch = json!({"metadata": {"annotations": {"force-sync": value}}});
        let names: Vec<String> = (0..count).map(|i| format!("{prefix}-{i}")).collect();
        let begun = Instant::now();
        futures::future::try_join_all(names.iter().map(|name| {
            let (objects, patch) = (&objects, Patch::Merge(&patch));
            async move { objects.patch(name, &PatchParams::default(), &patch).await }
        }))
        .await?;
        for name in &names {
            wait_for("the forced value", SOON, || async {
                let held = secrets.get(name).await?.data.unwrap_or_default();
                Ok(held
                    .get("value")
                    .is_some_and(|held| held.0 == value.as_bytes())
                    .then_some(()))
            })
            .await
            .with_context(|| self.scene.story())?;
        }
        Ok(begun.elapsed())
    }
}
