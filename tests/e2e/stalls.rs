//! The worst that the definitions accept, all of it at work at once: health answers and the Lease is renewed as by an
//! operator beside it that has nothing to do.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use keyferry_testbed::{Operator, SHORT_LEASE};
use kube::Api;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::hostile::ATTACKED;
use crate::scene::{SOON, Scene, one, play};

/// The gap between two answers may be so long, and so many times as long as that of the idle operator: on a loaded
/// machine that one waits too.
const GAP: Duration = Duration::from_millis(250);
const TIMES_IDLE: u32 = 3;
/// `SHORT_LEASE` says so: a leader that did not renew for so long writes no more.
const RENEW_DEADLINE: Duration = Duration::from_secs(3);
/// How long the worst is watched at work when all of it is there.
const WATCHED: Duration = Duration::from_secs(20);
const LEASE: &str = "external-secrets-controller";

/// Takes part in an election of its own.
async fn start(scene: &mut Scene) -> Result<()> {
    let namespace = scene.namespace.clone();
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"namespace": namespace, "name": "lease"},
        "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"namespace": namespace, "name": "lease"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "lease"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:serviceaccounts:security"}],
    });
    scene.cluster.apply(&format!("{role}\n---\n{binding}")).await?;
    let mut options = scene.options(&["--loglevel=info", "--enable-leader-election=true"]);
    options.args.push(format!("--operator-namespace={namespace}"));
    options.args.extend(SHORT_LEASE.map(String::from));
    let operator = Operator::start(scene.cluster, options).await?;
    operator.wait_ready().await?;
    scene.operator = Some(operator);
    Ok(())
}

/// The longest time between two answers of `/healthz`, until told to end.
async fn longest_gap(operator: &Operator, over: &AtomicBool) -> Result<Duration> {
    let (http, url) = (
        reqwest::Client::new(),
        format!("http://{}/healthz", operator.live()),
    );
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    while !over.load(Ordering::Relaxed) {
        let answer = timeout(SOON, http.get(&url).send())
            .await
            .context("no answer")??;
        ensure!(answer.status().is_success());
        longest = longest.max(last.elapsed());
        last = Instant::now();
        sleep(Duration::from_millis(5)).await;
    }
    Ok(longest)
}

/// The longest time between two renewals of the Lease, by the holder's own clock, and how often it changed hands.
async fn longest_renewal(scene: &Scene, over: &AtomicBool) -> Result<(Duration, i32)> {
    let leases: Api<Lease> = Api::namespaced(scene.cluster.client(), &scene.namespace);
    let mut seen = Vec::new();
    let mut changes = 0;
    while !over.load(Ordering::Relaxed) {
        let spec = leases.get(LEASE).await?.spec.context("an empty Lease")?;
        changes = spec.lease_transitions.unwrap_or_default();
        seen.extend(spec.renew_time.map(|time| time.0));
        sleep(Duration::from_millis(100)).await;
    }
    let gaps = seen
        .windows(2)
        .map(|pair| pair[1].duration_since(pair[0]).unsigned_abs());
    Ok((gaps.max().unwrap_or_default(), changes))
}

/// Stores that cost as much as they may: what namespaces may read of one is judged by the worst annotation, the other
/// has ten thousand long names.
fn stores(scene: &Scene) -> String {
    let line = format!("{}b\n", "**/a/a/a/".repeat(15));
    let patterns = format!("{}**\n", line.repeat(7_900 / line.split('/').count()));
    let mut judged = scene.store_manifest(scene.vault.address(), &crate::scene::login());
    judged["metadata"] = json!({"name": format!("{}-judged", scene.class), "annotations": {"keyferry.dev/allowed-paths": patterns}});
    let names: Vec<Value> = (0..9_000)
        .map(|i| json!({"key": format!("{}{i}", "ab".repeat(40)), "value": "v"}))
        .collect();
    let fake = json!({
        "apiVersion": "external-secrets.io/v1", "kind": "SecretStore", "metadata": {"namespace": scene.namespace, "name": "names"},
        "spec": {"controller": scene.class, "provider": {"fake": {"data": names}}},
    });
    format!("{judged}\n---\n{fake}\n")
}

/// ExternalSecrets that cost as much as they may, of every kind.
fn objects(scene: &Scene) -> Vec<Value> {
    let read = json!([one("value", "neighbour", "value")]);
    let judged = json!({"kind": "ClusterSecretStore", "name": format!("{}-judged", scene.class)});
    let names = json!({"kind": "SecretStore", "name": "names"});
    let path = ["a"; 60].join("/");
    let reads: Vec<Value> = (0..5_000)
        .map(|i| json!({"secretKey": format!("k{i}"), "remoteRef": {"key": format!("{path}/{i}")}}))
        .collect();
    let windows = vec![json!({"schedule": "0 0 29 2 *", "duration": "1s"}); 100];
    let regexp = "[ab]{1000}".repeat(4) + "(a|b)*c";
    let finds: Vec<Value> = (0..100)
        .map(|i| json!({"find": {"name": {"regexp": format!("{regexp}{i}")}}}))
        .collect();
    let rewrites: Vec<Value> = (0..90)
        .map(|i| json!({"regexp": {"source": format!("([ab]{{500}}){{2}}{i}"), "target": "x"}}))
        .collect();
    // Each is within its limits; all of them take as long as they may.
    let slow: serde_json::Map<String, Value> = (0..2_000)
        .map(|i| (format!("k{i}"), json!("{{ range until 900000 }}{{ end }}x")))
        .collect();
    let transforms =
        vec![json!({"transform": {"template": "{{ range until 900000 }}{{ end }}{{ .value }}"}}); 100];
    let template = "{{1}}".repeat((512 << 10) / 5);
    vec![
        json!({"secretStoreRef": judged, "target": {"deletionPolicy": "Merge"}, "data": reads}),
        json!({"syncWindows": {"kind": "deny", "windows": windows}, "refreshInterval": "1s", "data": read}),
        json!({"secretStoreRef": names, "dataFrom": finds}),
        json!({"secretStoreRef": names, "dataFrom": [{"find": {"name": {"regexp": "b[0-9]{1,3}$"}}, "rewrite": rewrites}]}),
        json!({"target": {"template": {"data": {"a": template, "b": template}}}, "data": read}),
        json!({"target": {"template": {"data": slow}}, "data": read}),
        json!({"secretStoreRef": names, "dataFrom": [{"find": {"name": {"regexp": "b[0-9]{1,3}$"}}, "rewrite": transforms}]}),
    ]
}

#[test]
fn health_answers_and_the_lease_is_renewed_whatever_the_objects_cost() {
    play(async {
        let mut attacked = Scene::without_operator("stalls").await?;
        let namespace = attacked.cluster.namespace("stalls-idle").await?;
        let mut idle = Scene {
            cluster: attacked.cluster,
            vault: attacked.vault.clone(),
            class: namespace.clone(),
            namespace,
            operator: None,
        };
        for scene in [&mut attacked, &mut idle] {
            scene.store(scene.vault.address()).await?;
            start(scene).await?;
        }
        attacked.vault.put("neighbour", json!({"value": "v"})).await?;
        let mut yaml = stores(&attacked);
        for (number, spec) in objects(&attacked).into_iter().enumerate() {
            for copy in 0..3 {
                let name = format!("hostile-{number}-{copy}");
                writeln!(
                    yaml,
                    "---\n{}",
                    attacked.external_secret_manifest(&name, spec.clone())
                )?;
            }
        }
        let machine = ATTACKED.lock().await;
        let before = attacked.operator().cpu_seconds()?;
        let over = AtomicBool::new(false);
        let make = async {
            let made = attacked.cluster.kubectl(&["create", "-f", "-"], &yaml).await;
            sleep(WATCHED).await;
            over.store(true, Ordering::Relaxed);
            made
        };
        let (made, gap, idle_gap, lease, idle_lease) = tokio::join!(
            make,
            longest_gap(attacked.operator(), &over),
            longest_gap(idle.operator(), &over),
            longest_renewal(&attacked, &over),
            longest_renewal(&idle, &over),
        );
        made?;
        let busy = attacked.operator().cpu_seconds()? - before;
        drop(machine);
        let (gap, idle_gap) = (gap?, idle_gap?);
        let ((lease, changes), (idle_lease, _)) = (lease?, idle_lease?);
        println!(
            "{busy:.1} s of processor; healthz {gap:?}, idle {idle_gap:?}; lease {lease:?}, idle {idle_lease:?}"
        );
        for object in attacked.list("externalsecrets").await? {
            let ready = object["status"]["conditions"][0]["message"]
                .as_str()
                .unwrap_or("-");
            println!("{}: {ready:.160}", object["metadata"]["name"]);
        }
        ensure!(busy > 3.0, "it was not at work: {busy:.1} s of processor");
        ensure!(
            gap < GAP + TIMES_IDLE * idle_gap,
            "no answer for {gap:?}, and for {idle_gap:?} where nothing was to do"
        );
        ensure!(
            lease < RENEW_DEADLINE || idle_lease > RENEW_DEADLINE / 2,
            "not renewed for {lease:?}, and for {idle_lease:?} where nothing was to do"
        );
        ensure!(changes == 1, "the Lease changed hands {changes} times");
        ensure!(!attacked.operator().logs().contains("no longer leading"));
        Ok(())
    });
}
