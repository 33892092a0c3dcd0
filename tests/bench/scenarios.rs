//! The scenarios.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use k8s_openapi::jiff::Timestamp;
use keyferry_testbed::Operator;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::observer::Observer;
use crate::rig::{Rig, each, external_secrets, path_of, value};
use crate::{Options, churn, endurance, floor, hostile};

pub const ALL: &[&str] = &[
    "first-sync",
    "force-sync",
    "shared-path",
    "recovery",
    "cold-start",
    "steady",
    "busy-newcomer",
    "memory",
    "memory-hostile",
    "churn",
    "templates",
];
pub const LIMIT: Duration = Duration::from_secs(900);
const LOGIN: &str = "auth/kubernetes/login";

pub async fn run(name: &str, options: &Options) -> Result<Value> {
    eprintln!("bench: {name} …");
    let rig = Rig::start(options).await?;
    let mut result = match name {
        "first-sync" => first_sync(&rig, options).await?,
        "force-sync" => force_sync(&rig, options).await?,
        "shared-path" => shared_path(&rig, options).await?,
        "recovery" => recovery(&rig, options).await?,
        "cold-start" => cold_start(&rig, options).await?,
        "steady" => endurance::steady(&rig, options).await?,
        "busy-newcomer" => endurance::busy_newcomer(&rig, options).await?,
        "memory" => endurance::memory(&rig, options).await?,
        "memory-hostile" => hostile::memory_hostile(&rig).await?,
        "churn" => churn::churn(&rig, options).await?,
        other => bail!("no scenario '{other}'"),
    };
    result["scenario"] = json!(name);
    Ok(result)
}

pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn secs(from: Instant, to: Instant) -> f64 {
    rounded(to.saturating_duration_since(from).as_secs_f64())
}

pub fn percentile(times: &mut [f64], part: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    let index = ((times.len() as f64 * part).ceil() as usize).clamp(1, times.len().max(1)) - 1;
    rounded(times.get(index).copied().unwrap_or_default())
}

pub fn password_of(name: &str, round: usize, objects: usize, paths: usize) -> String {
    let number: usize = name.trim_start_matches("app-").parse().unwrap_or(0);
    value(round, path_of(number, objects, paths))["password"]
        .as_str()
        .unwrap_or_default()
        .into()
}

pub fn is_ready(text: &str) -> bool {
    text.starts_with("True|")
}

/// Requests of the operator to the API server, by what they were.
pub fn kube_requests(rig: &Rig, mark: u64) -> Result<(usize, usize)> {
    let events = rig.cluster.audit_since(mark)?;
    let ours: Vec<_> = events.iter().filter(|e| e.is_operators()).collect();
    let lease = |resource: &str| resource == "leases";
    let all = ours
        .iter()
        .filter(|e| !lease(&e.resource()) && e.verb != "watch")
        .count();
    let writes = ours
        .iter()
        .filter(|e| !lease(&e.resource()) && !e.reads())
        .count();
    Ok((all, writes))
}

pub fn vault_requests(rig: &Rig, mark: u64) -> Result<(usize, usize)> {
    let requests = rig.vault.requests_since(mark)?;
    Ok((requests.values().sum(), requests.get(LOGIN).copied().unwrap_or(0)))
}

pub async fn synced(
    rig: &Rig,
    options: &Options,
    paths: usize,
    interval: &str,
) -> Result<(Observer, Operator)> {
    rig.write_paths(paths, 0).await?;
    let observer = Observer::start(&rig.cluster);
    let operator = rig.operator().await?;
    rig.create_objects(options.objects, paths, interval).await?;
    observer
        .secrets(options.objects, LIMIT, |name, text| {
            text == password_of(name, 0, options.objects, paths)
        })
        .await?;
    observer
        .objects(options.objects, LIMIT, |_, text| is_ready(text))
        .await?;
    Ok((observer, operator))
}

async fn first_sync(rig: &Rig, options: &Options) -> Result<Value> {
    let n = options.objects;
    rig.write_paths(n, 0).await?;
    let (floor, floor_create) = floor::first_sync(rig, n).await?;
    floor::clean(rig).await?;
    let observer = Observer::start(&rig.cluster);
    let vault = rig.vault.audit_mark();
    let operator = rig.operator().await?;
    observer.store(Instant::now() - LIMIT, LIMIT, is_ready).await?;
    sleep(Duration::from_secs(1)).await;
    let (kube, cpu) = (rig.cluster.audit_mark(), operator.cpu_seconds()?);
    let began = Instant::now();
    rig.create_objects(n, n, "1h").await?;
    let created = began.elapsed();
    let secret = observer
        .secrets(n, LIMIT, |name, text| text == password_of(name, 0, n, n))
        .await?;
    let ready = observer.objects(n, LIMIT, |_, text| is_ready(text)).await?;
    sleep(Duration::from_secs(1)).await;
    let (requests, logins) = vault_requests(rig, vault)?;
    let (all, _) = kube_requests(rig, kube)?;
    let (cpu, rss) = (operator.cpu_seconds()? - cpu, operator.rss_mib()?);
    sleep(endurance::SETTLE).await;
    Ok(json!({
        "objects": n, "seconds_to_create": rounded(created.as_secs_f64()),
        "seconds_to_last_secret": secs(began, secret), "seconds_to_last_ready": secs(began, ready),
        "floor_seconds": rounded(floor), "ratio_to_floor": rounded(secs(began, secret) / floor),
        "floor_create_seconds": rounded(floor_create),
        "ratio_to_floor_with_creates": rounded(secs(began, secret) / (floor + floor_create)),
        "vault_requests": requests, "vault_logins": logins, "kube_requests": all,
        "kube_requests_per_object": rounded(all as f64 / n as f64),
        "cpu_seconds": rounded(cpu), "rss_mib": rounded(rss), "rss_mib_afterwards": rounded(operator.rss_mib()?),
    }))
}

async fn force_sync(rig: &Rig, options: &Options) -> Result<Value> {
    let (observer, _operator) = synced(rig, options, options.objects, "1h").await?;
    let objects = external_secrets(rig.cluster.client());
    let mut times = Vec::new();
    for round in 1..=100 {
        // Another object each time, as people do it.
        let number = round % options.objects;
        let name = format!("app-{number}");
        rig.vault
            .put(&format!("bench/{number}"), value(round, number))
            .await?;
        let began = Instant::now();
        let annotation = json!({"metadata": {"annotations": {"force-sync": round.to_string()}}});
        objects
            .patch(&name, &PatchParams::default(), &Patch::Merge(annotation))
            .await?;
        let wanted = value(round, number)["password"]
            .as_str()
            .unwrap_or_default()
            .to_string();
        let at = observer
            .secrets(1, LIMIT, |seen, text| seen == name && text == wanted)
            .await?;
        times.push(at.saturating_duration_since(began).as_secs_f64() * 1000.0);
        sleep(Duration::from_millis(20)).await;
    }
    let mut floor = floor::force_sync(rig, 100).await?;
    let (p50, p99, floor_p50) = (
        percentile(&mut times, 0.5),
        percentile(&mut times, 0.99),
        percentile(&mut floor, 0.5),
    );
    Ok(json!({
        "objects": options.objects, "p50_ms": p50, "p99_ms": p99, "floor_p50_ms": floor_p50,
        "p50_ratio_to_floor": rounded(p50 / floor_p50), "p99_ratio_to_floor": rounded(p99 / floor_p50),
    }))
}

async fn shared_path(rig: &Rig, options: &Options) -> Result<Value> {
    let paths = (options.objects / 20).max(1);
    let (observer, _operator) = synced(rig, options, paths, "1h").await?;
    rig.write_paths(paths, 1).await?;
    let mark = rig.vault.audit_mark();
    let objects = external_secrets(rig.cluster.client());
    let began = Instant::now();
    each(options.objects, |i| {
        let objects = objects.clone();
        async move {
            let annotation = json!({"metadata": {"annotations": {"force-sync": "1"}}});
            objects
                .patch(
                    &format!("app-{i}"),
                    &PatchParams::default(),
                    &Patch::Merge(annotation),
                )
                .await?;
            Ok(())
        }
    })
    .await?;
    let last = observer
        .secrets(options.objects, LIMIT, |name, text| {
            text == password_of(name, 1, options.objects, paths)
        })
        .await?;
    sleep(Duration::from_secs(1)).await;
    let (requests, _) = vault_requests(rig, mark)?;
    Ok(
        json!({"objects": options.objects, "paths": paths, "vault_requests": requests, "seconds": secs(began, last)}),
    )
}

/// Values that are written just before Vault goes down arrive after the unseal: that is what shows from outside that
/// an object is fresh. Those that were refreshed in between must have been read again.
async fn recovery(rig: &Rig, options: &Options) -> Result<Value> {
    let n = options.objects;
    let (observer, operator) = synced(rig, options, n, "10s").await?;
    rig.write_paths(n, 1).await?;
    rig.vault.restart_sealed().await?;
    let sealed = Instant::now();
    observer
        .store(sealed - Duration::from_secs(10), LIMIT, |text| {
            text.starts_with("False|")
        })
        .await?;
    // Whatever was under way when Vault stopped has ended by now.
    sleep(Duration::from_secs(3)).await;
    let late = n - observer.holding(|name, text| text == password_of(name, 1, n, n));
    let (audit, kube, cpu) = (
        rig.vault.audit_mark(),
        rig.cluster.audit_mark(),
        operator.cpu_seconds()?,
    );
    sleep(Duration::from_secs(options.sealed).saturating_sub(sealed.elapsed())).await;
    let lines = rig.vault.audit_since(audit)?.len();
    let (requests, _) = vault_requests(rig, audit)?;
    let (_, writes) = kube_requests(rig, kube)?;
    let cpu = operator.cpu_seconds()? - cpu;
    let (unsealed_at, unsealed) = (Timestamp::now(), Instant::now());
    rig.vault.unseal_now().await?;
    let store = observer.store(unsealed, LIMIT, is_ready).await?;
    let last = observer
        .secrets(n, LIMIT, |name, text| text == password_of(name, 1, n, n))
        .await?;
    let read = until_all_are_read(rig, audit, n).await?;
    let told = observer
        .objects(n, LIMIT, |_, text| text.starts_with("True|secret synced|"))
        .await?;
    let entries = rig.vault.audit_since(audit)?;
    // A request is written when it comes, and its answer before it goes.
    let (mut in_flight, mut peak) = (0_i64, 0);
    for entry in entries.iter().filter(|entry| !entry.root) {
        in_flight += if entry.kind == "request" { 1 } else { -1 };
        peak = peak.max(in_flight);
    }
    let ms = |at: Instant| rounded(at.saturating_duration_since(unsealed).as_secs_f64() * 1000.0);
    let read = rounded(read.duration_since(unsealed_at).as_secs_f64() * 1000.0);
    Ok(json!({
        "objects": n, "sealed_seconds": options.sealed, "store_ready_ms": ms(store),
        "secrets_with_news": late, "last_secret_ms": ms(last), "last_read_ms": read,
        "last_fresh_ms": ms(last).max(read), "last_told_ms": ms(told), "vault_requests_while_sealed": requests,
        "audit_lines_while_sealed": lines, "kube_writes_while_sealed": writes, "cpu_seconds_while_sealed": rounded(cpu),
        "vault_requests_in_flight_at_most": peak, "rss_mib": rounded(operator.rss_mib()?),
    }))
}

/// When the last of so many paths was first answered, by Vault's audit log.
async fn until_all_are_read(rig: &Rig, mark: u64, paths: usize) -> Result<Timestamp> {
    let end = Instant::now() + LIMIT;
    loop {
        let mut first: HashMap<String, Timestamp> = HashMap::new();
        for entry in rig.vault.audit_since(mark)? {
            let answered = entry.kind == "response" && !entry.root && entry.error.is_empty();
            if answered && entry.path.starts_with("secret/data/bench/") {
                let time: Timestamp = entry.time.parse()?;
                first.entry(entry.path).or_insert(time);
            }
        }
        if let Some(last) = first.values().max().filter(|_| first.len() >= paths) {
            return Ok(*last);
        }
        if Instant::now() > end {
            bail!("{} of {paths} paths were read after {LIMIT:?}", first.len());
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn cold_start(rig: &Rig, options: &Options) -> Result<Value> {
    let (observer, operator) = synced(rig, options, options.objects, "1h").await?;
    operator.terminate()?;
    let (vault, kube) = (rig.vault.audit_mark(), rig.cluster.audit_mark());
    let began = Instant::now();
    let operator = rig.operator().await?;
    // Idle: neither Vault nor the API server has heard anything but the lease for half a second.
    let (mut last, mut quiet_since) = ((0, 0), Instant::now());
    while quiet_since.elapsed() < Duration::from_millis(500) {
        sleep(Duration::from_millis(20)).await;
        let now = (vault_requests(rig, vault)?.0, kube_requests(rig, kube)?.0);
        if now != last {
            (last, quiet_since) = (now, Instant::now());
        }
    }
    let idle = secs(began, quiet_since);
    sleep(Duration::from_secs(3)).await;
    let ((requests, _), (all, writes)) = (vault_requests(rig, vault)?, kube_requests(rig, kube)?);
    rig.vault.put("bench/1", value(1, 1)).await?;
    let annotation = json!({"metadata": {"annotations": {"force-sync": "1"}}});
    external_secrets(rig.cluster.client())
        .patch("app-1", &PatchParams::default(), &Patch::Merge(annotation))
        .await?;
    let wanted = value(1, 1)["password"].as_str().unwrap_or_default().to_string();
    observer
        .secrets(1, LIMIT, |name, text| name == "app-1" && text == wanted)
        .await?;
    Ok(json!({
        "objects": options.objects, "seconds_to_idle": idle, "vault_requests": requests, "kube_requests": all,
        "kube_writes": writes, "rss_mib": rounded(operator.rss_mib()?), "cpu_seconds": rounded(operator.cpu_seconds()?),
    }))
}
