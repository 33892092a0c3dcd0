//! Ever-new names at a constant level of living objects: nothing of what is gone may stay in memory.

use std::collections::VecDeque;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;
use keyferry_testbed::{Operator, wait_for};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::Options;
use crate::rig::{Rig, value};
use crate::scenarios::rounded;

/// A generation comes, and the oldest goes, this often.
const PACE: Duration = Duration::from_secs(4);
/// ExternalSecrets in a generation.
const PER_GENERATION: usize = 10;
/// Paths in Vault that all share.
const PATHS: usize = 50;
/// Minutes until the level to compare with: by then caches and the allocator have what they need.
const SETTLED: u64 = 10;
/// From the deletion of the last namespaces until the controller manager is done with them.
const DELETED: Duration = Duration::from_secs(600);
/// After that, until nothing may be known any more.
const CALM: Duration = Duration::from_secs(20);

/// One minute's look.
struct Sample {
    minute: u64,
    rss_mib: f64,
    series: usize,
    tasks: usize,
    threads: usize,
    files: usize,
}

/// Creates, changes, forces and deletes for so many minutes.
pub async fn churn(rig: &Rig, options: &Options) -> Result<Value> {
    rig.write_paths(PATHS, 0).await?;
    // Each namespace shows it a token of its own.
    let referent = json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ClusterSecretStore", "metadata": {"name": "referent"},
        "spec": {"provider": {"vault": {
            "server": rig.vault.address(), "path": "secret", "auth": {"tokenSecretRef": {"name": "token", "key": "token"}},
        }}},
    });
    rig.cluster.apply(&referent.to_string()).await?;
    let operator = rig.operator().await?;
    let client = rig.cluster.client();
    let (began, end) = (Instant::now(), Duration::from_secs(options.minutes * 60));
    let most = (options.objects / PER_GENERATION).max(1);
    let mut living: VecDeque<usize> = VecDeque::new();
    let mut samples: Vec<Sample> = Vec::new();
    let mut tick = interval(PACE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    while began.elapsed() < end {
        tick.tick().await;
        living.push_back(number);
        generation(rig, &client, number).await?;
        disturb(rig, &client, &living, number).await?;
        if living.len() > most
            && let Some(old) = living.pop_front()
        {
            end_generation(&client, old).await?;
        }
        number += 1;
        let minute = began.elapsed().as_secs() / 60;
        if samples.last().is_none_or(|last| last.minute < minute) {
            samples.push(sample(&operator, minute).await?);
        }
    }
    samples.push(sample(&operator, options.minutes).await?);
    for old in living {
        end_generation(&client, old).await?;
    }
    gone(&client).await?;
    sleep(CALM).await;
    let text = operator.metrics().await.unwrap_or_default();
    let named = text.lines().filter(|line| line.contains(NAME)).count();
    Ok(report(&samples, number, named, &text))
}

fn report(samples: &[Sample], generations: usize, named: usize, text: &str) -> Value {
    let mut result = json!({
        "generations": generations, "external_secrets": generations * PER_GENERATION,
        "series_that_name_what_is_gone": named,
        "entries_at_the_end": text.lines().filter(|line| line.starts_with("keyferry_entries{")).collect::<Vec<_>>(),
    });
    let settled = samples.iter().find(|sample| sample.minute >= SETTLED);
    for (when, sample) in [("settled", settled), ("at_the_end", samples.last())] {
        if let Some(sample) = sample {
            result[format!("minute_{when}")] = json!(sample.minute);
            result[format!("rss_mib_{when}")] = json!(rounded(sample.rss_mib));
            result[format!("series_{when}")] = json!(sample.series);
            result[format!("tasks_{when}")] = json!(sample.tasks);
        }
    }
    if let (Some(first), Some(last)) = (settled, samples.last()) {
        result["rss_growth_percent"] = json!(rounded((last.rss_mib / first.rss_mib - 1.0) * 100.0));
    }
    result
}

async fn sample(operator: &Operator, minute: u64) -> Result<Sample> {
    let text = operator.metrics().await.unwrap_or_default();
    let tasks = text.lines().find_map(|line| line.strip_prefix("keyferry_tasks "));
    let count =
        |folder: &str| fs::read_dir(format!("/proc/{}/{folder}", operator.pid())).map_or(0, Iterator::count);
    let sample = Sample {
        minute,
        rss_mib: operator.rss_mib()?,
        series: text.lines().filter(|line| !line.starts_with('#')).count(),
        tasks: tasks.and_then(|tasks| tasks.parse().ok()).unwrap_or(0),
        threads: count("task"),
        files: count("fd"),
    };
    eprintln!(
        "minute {:3}: {:.1} MiB, {} series, {} tasks, {} threads, {} files",
        sample.minute, sample.rss_mib, sample.series, sample.tasks, sample.threads, sample.files
    );
    Ok(sample)
}

fn api_of(client: &Client, group: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

const ESO: &str = "external-secrets.io";

/// How the names of our namespaces begin.
const NAME: &str = "churn-";

fn namespace_of(number: usize) -> String {
    format!("{NAME}{number}")
}

/// A namespace with stores, a template and ExternalSecrets of every kind, two of which cannot be synced.
async fn generation(rig: &Rig, client: &Client, number: usize) -> Result<()> {
    let name = namespace_of(number);
    let make = |group: &'static str, kind: &'static str, object: Value| {
        let own = object["metadata"]["namespace"].as_str().map(String::from);
        let api = api_of(client, group, kind, own.as_deref());
        async move {
            let object = serde_json::from_value(object)?;
            api.create(&PostParams::default(), &object).await?;
            anyhow::Ok(())
        }
    };
    let meta = |own: &str| json!({"name": own, "namespace": name});
    make(
        "",
        "Namespace",
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
    )
    .await?;
    make(
        "",
        "Secret",
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": meta("token"),
            "stringData": {"token": rig.vault.root_token()},
        }),
    )
    .await?;
    make(
        "",
        "ConfigMap",
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("template"),
            "data": {"url": "https://{{ .username }}:{{ .password }}@host"},
        }),
    )
    .await?;
    // A header of its own makes it a server of its own: a connection, its health and its pool.
    make(
        ESO,
        "SecretStore",
        json!({
            "apiVersion": "external-secrets.io/v1", "kind": "SecretStore", "metadata": meta(&name),
            "spec": {"provider": {"vault": {
                "server": rig.vault.address(), "path": "secret", "headers": {"X-Churn": name},
                "auth": {"tokenSecretRef": {"name": "token", "key": "token"}},
            }}},
        }),
    )
    .await?;
    make(ESO, "ClusterSecretStore", json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ClusterSecretStore", "metadata": {"name": name},
        "spec": {"provider": {"vault": {"server": rig.vault.address(), "path": "secret", "auth": {"kubernetes": {
            "role": "eso-reader", "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"},
        }}}}},
    }))
    .await?;
    for i in 0..PER_GENERATION {
        make(ESO, "ExternalSecret", external_secret(&name, number, i)).await?;
    }
    Ok(())
}

fn external_secret(name: &str, number: usize, i: usize) -> Value {
    let (kind, store) = match i {
        0..4 => ("ClusterSecretStore", "store"),
        4..6 => ("ClusterSecretStore", name),
        6 => ("ClusterSecretStore", "referent"),
        9 => ("SecretStore", "missing"),
        _ => ("SecretStore", name),
    };
    let path = if i == 8 {
        format!("missing/{number}")
    } else {
        format!("bench/{}", (number + i) % PATHS)
    };
    let entry = |own: &str| json!({"secretKey": own, "remoteRef": {"key": path, "property": own}});
    let mut object = json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
        "metadata": {"name": format!("{name}-{i}"), "namespace": name},
        "spec": {
            "refreshInterval": "30s", "secretStoreRef": {"kind": kind, "name": store},
            "data": [entry("username"), entry("password")],
        },
    });
    if i == 0 {
        object["spec"]["target"] = json!({"template": {"templateFrom": [{"configMap": {"name": "template", "items": [{"key": "url"}]}}]}});
    }
    object
}

/// Somebody rotates a value, forces a sync, changes a spec and a store, and deletes an object on its own.
async fn disturb(rig: &Rig, client: &Client, living: &VecDeque<usize>, number: usize) -> Result<()> {
    let path = number % PATHS;
    rig.vault
        .put(&format!("bench/{path}"), value(number, path))
        .await?;
    let Some(chosen) = living.get(number % living.len().max(1)) else {
        return Ok(());
    };
    let name = namespace_of(*chosen);
    let api = api_of(client, ESO, "ExternalSecret", Some(&name));
    let change = |i: usize, patch: Value| {
        let (api, own) = (api.clone(), format!("{name}-{i}"));
        async move {
            settled(
                api.patch(&own, &PatchParams::default(), &Patch::Merge(patch))
                    .await,
            )
        }
    };
    change(
        1,
        json!({"metadata": {"annotations": {"force-sync": number.to_string()}}}),
    )
    .await?;
    change(
        2,
        json!({"spec": {"target": {"name": format!("{name}-renamed-{number}")}}}),
    )
    .await?;
    change(4, json!({"metadata": {"labels": {"round": number.to_string()}}})).await?;
    settled(api.delete(&format!("{name}-3"), &DeleteParams::default()).await)?;
    let stores = api_of(client, ESO, "SecretStore", Some(&name));
    let patch =
        json!({"spec": {"provider": {"vault": {"headers": {"X-Churn": format!("{name}-{number}")}}}}});
    settled(
        stores
            .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await,
    )
}

/// The namespace goes with all that is in it.
async fn end_generation(client: &Client, number: usize) -> Result<()> {
    let name = namespace_of(number);
    let stores = api_of(client, ESO, "ClusterSecretStore", None);
    settled(stores.delete(&name, &DeleteParams::default()).await)?;
    let namespaces = api_of(client, "", "Namespace", None);
    settled(namespaces.delete(&name, &DeleteParams::default()).await)
}

/// Waits until none of our namespaces is left.
async fn gone(client: &Client) -> Result<()> {
    let namespaces = api_of(client, "", "Namespace", None);
    wait_for("the end of the namespaces", DELETED, || async {
        let left = namespaces.list_metadata(&ListParams::default()).await?;
        let ours = |name: &str| name.starts_with(NAME);
        Ok(left
            .iter()
            .all(|one| !one.metadata.name.as_deref().is_some_and(ours))
            .then_some(()))
    })
    .await
}

/// What is gone already need not be changed.
fn settled<T>(result: kube::Result<T>) -> Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other.map(drop)?),
    }
}
