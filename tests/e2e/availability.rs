//! The operator dies, is doubled or is paused; the API server fails.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use keyferry_testbed::{Cluster, Echo, Operator, OperatorOptions, SHORT_LEASE, Vault, wait_for};
use serde_json::json;
use tokio::time::sleep;

use crate::scene::{SOON, Scene, one, play};

#[test]
fn a_kill_between_read_and_write_or_after_it_loses_nothing() {
    play(async {
        let mut scene = Scene::new("kill").await?;
        scene.many("app", 40, "1h").await?;
        for round in 0..4 {
            for i in 0..40 {
                scene
                    .vault
                    .put(
                        &format!("app/{i}"),
                        json!({"value": format!("round-{round}-{i}")}),
                    )
                    .await?;
            }
            let annotation = format!("force-sync={round}");
            let args = [
                "annotate",
                "es",
                "--all",
                "-n",
                &scene.namespace,
                &annotation,
                "--overwrite",
            ];
            scene.cluster.kubectl(&args, "").await?;
            // Each round strikes at another moment of the work.
            sleep(Duration::from_millis(15 * round)).await;
            scene.operator().kill()?;
            scene.start_operator(&[]).await?;
            for i in 0..40 {
                scene
                    .wait_value(&format!("app-{i}"), "value", &format!("round-{round}-{i}"))
                    .await?;
                scene
                    .wait_ready("externalsecret", &format!("app-{i}"), "True", "SecretSynced")
                    .await?;
            }
        }
        Ok(())
    });
}

#[test]
fn the_api_server_is_killed_and_everything_goes_on() {
    play(async {
        // A cluster of its own: the others need theirs.
        let cluster = Cluster::start().await?;
        let (operator, vault) = replica_set(&cluster, &SHORT_LEASE).await?;
        let operator = operator.start(&cluster, "one").await?;
        apply_app(&cluster, &vault).await?;
        wait_secret(&cluster, "one").await?;
        cluster.restart_api_server().await?;
        vault.put("app", json!({"value": "two"})).await?;
        wait_for("kubectl", SOON, || async {
            cluster
                .kubectl(&["annotate", "es", "app", "force-sync=2", "--overwrite"], "")
                .await
                .map(Some)
        })
        .await?;
        wait_secret(&cluster, "two").await?;
        assert!(operator.runs());
        Ok(())
    });
}

/// Further arguments of each replica.
struct Replicas(Vec<String>);

impl Replicas {
    async fn start(&self, cluster: &Cluster, name: &str) -> Result<Operator> {
        let options = OperatorOptions {
            command: vec![env!("CARGO_BIN_EXE_keyferry").into()],
            args: self.0.clone(),
            name: Some(name.into()),
            ..OperatorOptions::default()
        };
        let operator = Operator::start(cluster, options).await?;
        operator.wait_ready().await?;
        Ok(operator)
    }
}

async fn replica_set(cluster: &Cluster, args: &[&str]) -> Result<(Replicas, Vault)> {
    cluster.install_chart(&["--set", "replicaCount=2"]).await?;
    let vault = Vault::start(cluster).await?;
    vault.put("app", json!({"value": "one"})).await?;
    let args = args.iter().map(|arg| (*arg).to_string()).collect();
    Ok((Replicas(args), vault))
}

async fn apply_app(cluster: &Cluster, vault: &Vault) -> Result<()> {
    let store = json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ClusterSecretStore", "metadata": {"name": "store"},
        "spec": {"provider": {"vault": {"server": vault.address(), "path": "secret", "auth": {"kubernetes": {
            "role": "eso-reader", "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"},
        }}}}},
    });
    let app = json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": {"name": "app", "namespace": "default"},
        "spec": {
            "refreshInterval": "1h", "secretStoreRef": {"kind": "ClusterSecretStore", "name": "store"},
            "data": [one("value", "app", "value")],
        },
    });
    cluster
        .apply(&format!("---\n{store}\n---\n{app}"))
        .await
        .map(drop)
}

async fn wait_secret(cluster: &Cluster, value: &str) -> Result<()> {
    wait_for(&format!("value {value}"), SOON, || async {
        let args = [
            "get",
            "secret",
            "app",
            "-n",
            "default",
            "-o",
            "go-template={{.data.value | base64decode}}",
        ];
        Ok((cluster.kubectl(&args, "").await? == value).then_some(()))
    })
    .await
}

#[test]
fn of_two_replicas_one_works_and_the_other_takes_over_when_it_is_killed_or_paused() {
    play(async {
        let cluster = Cluster::start().await?;
        let (replicas, vault) = replica_set(&cluster, &SHORT_LEASE).await?;
        let first = replicas.start(&cluster, "first").await?;
        apply_app(&cluster, &vault).await?;
        wait_secret(&cluster, "one").await?;
        let second = replicas.start(&cluster, "second").await?;
        sleep(Duration::from_secs(2)).await;
        assert!(second.metrics().await?.contains("keyferry_leader 0"));
        let mark = cluster.audit_mark();
        first.pause(true)?;
        vault.put("app", json!({"value": "two"})).await?;
        cluster
            .kubectl(&["annotate", "es", "app", "force-sync=2", "--overwrite"], "")
            .await?;
        wait_secret(&cluster, "two").await?;
        vault.put("app", json!({"value": "three"})).await?;
        // The paused leader wakes up past its lease, with a trigger in its watch, and writes nothing.
        let woken = cluster.audit_mark();
        first.pause(false)?;
        cluster
            .kubectl(&["annotate", "es", "app", "force-sync=3", "--overwrite"], "")
            .await?;
        wait_secret(&cluster, "three").await?;
        sleep(Duration::from_secs(2)).await;
        assert!(
            first.metrics().await?.contains("keyferry_leader 0"),
            "{}",
            first.logs()
        );
        let writes = cluster
            .audit_since(woken)?
            .iter()
            .filter(|e| e.resource() == "secrets" && e.verb == "update")
            .count();
        assert_eq!(writes, 1, "one rotation, one write");
        second.kill()?;
        vault.put("app", json!({"value": "four"})).await?;
        cluster
            .kubectl(&["annotate", "es", "app", "force-sync=4", "--overwrite"], "")
            .await?;
        wait_secret(&cluster, "four").await?;
        // No value was ever written twice: every rotation is one update.
        let mut updates = BTreeMap::new();
        for event in cluster.audit_since(mark)? {
            if event.resource() == "secrets" && event.verb == "update" && event.code() == 200 {
                *updates.entry(event.object()).or_insert(0) += 1;
            }
        }
        assert_eq!(
            updates.get(&("default".to_string(), "app".to_string())),
            Some(&3),
            "{updates:?}"
        );
        Ok(())
    });
}

#[test]
fn a_standby_is_ready_and_a_leader_that_stops_hands_over_at_once() {
    play(async {
        let cluster = Cluster::start().await?;
        // With the chart's times: a lease that is not released would be waited for.
        let (replicas, vault) = replica_set(&cluster, &[]).await?;
        let first = replicas.start(&cluster, "first").await?;
        apply_app(&cluster, &vault).await?;
        wait_secret(&cluster, "one").await?;
        let second = replicas.start(&cluster, "second").await?;
        let echo = Echo::start(&cluster).await?;
        first.terminate()?;
        let released = tokio::time::Instant::now();
        wait_for("the new leader", SOON, || async {
            Ok(second
                .metrics()
                .await?
                .contains("keyferry_leader 1")
                .then_some(()))
        })
        .await?;
        let (took, allowed) = (released.elapsed(), echo.allows(Duration::from_secs(3)));
        assert!(took < allowed, "{took:?}, {allowed:?} allowed");
        Ok(())
    });
}

/// The lines of a replica's metrics that tell the state of the object or of its store.
async fn states(replica: &Operator) -> Result<Vec<String>> {
    let metrics = replica.metrics().await?;
    let lines = metrics.lines().filter(|line| line.contains("_status_condition{"));
    Ok(lines.map(String::from).collect())
}

async fn wait_state(replica: &Operator, what: &str, said: impl Fn(&[String]) -> bool) -> Result<()> {
    wait_for(what, SOON, || async {
        let states = states(replica).await?;
        ensure!(said(&states), "{states:?}");
        Ok(Some(()))
    })
    .await
}

#[test]
fn only_the_replica_that_leads_exports_the_state_of_objects() {
    play(async {
        let cluster = Cluster::start().await?;
        let (replicas, vault) = replica_set(&cluster, &SHORT_LEASE).await?;
        let first = replicas.start(&cluster, "first").await?;
        apply_app(&cluster, &vault).await?;
        wait_secret(&cluster, "one").await?;
        vault.delete("app").await?;
        cluster
            .kubectl(&["annotate", "es", "app", "force-sync=2", "--overwrite"], "")
            .await?;
        let fails = |lines: &[String]| {
            let app = |line: &&String| line.contains("name=\"app\"") && line.contains("status=\"False\"");
            lines.iter().any(|line| app(&line) && line.ends_with(" 1"))
        };
        wait_state(&first, "the failure", fails).await?;
        let second = replicas.start(&cluster, "second").await?;
        ensure!(states(&second).await?.is_empty(), "it never led");
        // The next leader tells at once what it has not found out itself: it is not due for minutes.
        first.pause(true)?;
        wait_state(&second, "the failure, told by the next leader", fails).await?;
        first.pause(false)?;
        wait_state(
            &first,
            "the end of what the former leader told",
            <[String]>::is_empty,
        )
        .await?;
        vault.put("app", json!({"value": "two"})).await?;
        cluster
            .kubectl(&["annotate", "es", "app", "force-sync=3", "--overwrite"], "")
            .await?;
        wait_state(&second, "the object has healed", |lines| !fails(lines)).await?;
        cluster.kubectl(&["delete", "es", "app"], "").await?;
        for replica in [&first, &second] {
            wait_state(replica, "the end of its series", |lines| {
                !lines.iter().any(|line| line.contains("name=\"app\""))
            })
            .await?;
        }
        Ok(())
    });
}
