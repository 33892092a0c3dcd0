//! What goes on for long: routine refreshes, new ones among them, and memory.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::Options;
use crate::observer::Observer;
use crate::rig::{Rig, each, value};
use crate::scenarios::{
    LIMIT, is_ready, kube_requests, password_of, percentile, rounded, synced, vault_requests,
};

/// Secrets of other people, and how large each is.
const UNRELATED: usize = 5000;
const UNRELATED_BYTES: usize = 32 << 10;
/// New ones, one by one.
const NEWCOMERS: usize = 50;
const WINDOW: Duration = Duration::from_secs(180);
/// Until memory that a burst needed is given back, and refreshes have spread.
pub const SETTLE: Duration = Duration::from_secs(20);

/// N at 60 s, for three minutes.
pub async fn steady(rig: &Rig, options: &Options) -> Result<Value> {
    let n = options.objects;
    let (_observer, operator) = synced(rig, options, n, "60s").await?;
    sleep(Duration::from_secs(60)).await;
    let (vault, kube, cpu) = (
        rig.vault.audit_mark(),
        rig.cluster.audit_mark(),
        operator.cpu_seconds()?,
    );
    let began = Instant::now();
    sleep(WINDOW).await;
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let cpu = operator.cpu_seconds()? - cpu;
    let (requests, logins) = vault_requests(rig, vault)?;
    let (all, writes) = kube_requests(rig, kube)?;
    let mut seconds: HashMap<String, usize> = HashMap::new();
    let mut reads = 0;
    for entry in rig.vault.audit_since(vault)? {
        if entry.kind == "request" && !entry.root {
            reads += usize::from(entry.path.starts_with("secret/data/"));
            let second = entry.time.get(..19).unwrap_or_default().to_owned();
            *seconds.entry(second).or_default() += 1;
        }
    }
    let peak = seconds.values().copied().max().unwrap_or(0);
    let mean = requests as f64 / (minutes * 60.0);
    Ok(json!({
        "objects": n, "vault_requests_per_min": rounded(requests as f64 / minutes),
        "vault_reads_per_min": rounded(reads as f64 / minutes),
        "vault_logins_per_min": rounded(logins as f64 / minutes), "kube_requests_per_min": rounded(all as f64 / minutes),
        "kube_writes_per_min": rounded(writes as f64 / minutes), "peak_per_second": peak,
        "peak_ratio_to_mean": rounded(peak as f64 / mean), "cpu_percent": rounded(cpu / (minutes * 60.0) * 100.0),
        "rss_mib": rounded(operator.rss_mib()?),
    }))
}

/// New ones among N that are refreshed every 10 s.
pub async fn busy_newcomer(rig: &Rig, options: &Options) -> Result<Value> {
    let n = options.objects;
    let (observer, operator) = synced(rig, options, n, "10s").await?;
    sleep(SETTLE).await;
    let mut times = Vec::new();
    for i in n..n + NEWCOMERS {
        rig.vault.put(&format!("bench/{i}"), value(0, i)).await?;
        let began = Instant::now();
        rig.create_some(i..i + 1, n + NEWCOMERS, n + NEWCOMERS, "1h")
            .await?;
        let name = format!("app-{i}");
        let wanted = password_of(&name, 0, n + NEWCOMERS, n + NEWCOMERS);
        let at = observer
            .secrets(1, LIMIT, |seen, text| seen == name && text == wanted)
            .await?;
        times.push(at.saturating_duration_since(began).as_secs_f64() * 1000.0);
    }
    Ok(json!({
        "objects": n, "p50_ms": percentile(&mut times, 0.5), "p99_ms": percentile(&mut times, 0.99),
        "rss_mib": rounded(operator.rss_mib()?),
    }))
}

/// Memory with one, with a tenth of N and with N, and with other people's Secrets beside them.
pub async fn memory(rig: &Rig, options: &Options) -> Result<Value> {
    let n = options.objects;
    rig.write_paths(n, 0).await?;
    let observer = Observer::start(&rig.cluster);
    let operator = rig.operator().await?;
    let mut result = json!({ "objects": n });
    let mut from = 0;
    for to in [1, (n / 10).max(2), n] {
        rig.create_some(from..to, n, n, "1h").await?;
        observer
            .secrets(to, LIMIT, |name, text| text == password_of(name, 0, n, n))
            .await?;
        observer.objects(to, LIMIT, |_, text| is_ready(text)).await?;
        sleep(SETTLE).await;
        result[format!("rss_mib_{to}")] = json!(rounded(operator.rss_mib()?));
        from = to;
    }
    let secrets: Api<Secret> = Api::namespaced(rig.cluster.client(), "default");
    each(UNRELATED, |i| {
        let secrets = secrets.clone();
        async move {
            let secret = Secret {
                metadata: ObjectMeta {
                    name: Some(format!("unrelated-{i}")),
                    ..ObjectMeta::default()
                },
                data: Some([("value".to_string(), ByteString(vec![b'x'; UNRELATED_BYTES]))].into()),
                ..Secret::default()
            };
            secrets.create(&PostParams::default(), &secret).await?;
            Ok(())
        }
    })
    .await?;
    sleep(SETTLE).await;
    result["rss_mib_unrelated"] = json!(rounded(operator.rss_mib()?));
    operator.terminate()?;
    let operator = rig.operator().await?;
    sleep(SETTLE).await;
    result["rss_mib_after_restart"] = json!(rounded(operator.rss_mib()?));
    Ok(result)
}
