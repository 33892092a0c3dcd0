//! Runs the controller: client, servers, signals.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::{Client, Config};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::RunArgs;
use crate::controller::{self, Settings, Vital, leader::Times};
use crate::memory;
use crate::store::Rules;
use crate::target::fence::Fence;
use crate::target::fenced;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{http as servers, logs, panics};
use crate::template::Delims;

/// Watches are silent for as long as nothing happens; the API server ends them after about 5 minutes.
const READ_TIMEOUT: Duration = Duration::from_secs(600);
const LONGEST_LEASE: Duration = Duration::from_secs(3600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs until SIGTERM or SIGINT. Health and leader election run on `vital`, a runtime of their own: however long the loops
/// compute, a probe is answered and the Lease renewed.
///
/// # Errors
/// What keeps it from running, as a sentence.
pub async fn run(args: RunArgs, vital: Handle) -> Result<(), String> {
    logs::init(&args.loglevel, args.log_format)?;
    panics::tell_place_only();
    check(&args)?;
    if let Some(bytes) = args.memory_limit {
        memory::limit(bytes);
    }
    let mut config = Config::infer()
        .await
        .map_err(|e| format!("no access to a cluster: {e}"))?;
    // kube takes the environment's proxy for the kubeconfig's own. That one is meant for Vault, and in a cluster kube
    // does not look at it either.
    if config.proxy_url.is_some() && config.proxy_url == proxy_of_environment() {
        config.proxy_url = None;
    }
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    let (settings, fence) = (settings(&args), Fence::new());
    let delivery = settings.election.as_ref().map(|(_, times)| times.delivery());
    let no_client = |e: kube::Error| format!("no client for the cluster: {e}");
    let election = {
        // Connections belong to the runtime that made them.
        let _vital = vital.enter();
        // Not fenced: it writes the Lease, and events of a standby.
        Client::try_from(config.clone()).map_err(no_client)?
    };
    let election = Vital {
        runtime: vital.clone(),
        client: election,
    };
    let client = fenced::client(config, fence.clone(), delivery).map_err(no_client)?;
    let metrics = Arc::new(Metrics::default());
    let (ready, readiness) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        class = args.controller_class,
        "keyferry starts"
    );
    let controller = controller::run(client, election, fence, settings, metrics.clone(), ready, stopped);
    let mut controller = tokio::spawn(controller);
    let health = vital.spawn(servers::serve_health(args.live_addr, readiness, metrics.clone()));
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let ended = tokio::select! {
        _ = terminate.recv() => None,
        _ = tokio::signal::ctrl_c() => None,
        ended = &mut controller => Some(ended),
        ended = servers::serve_metrics(args.metrics_addr, metrics) => return ended,
        ended = health => return ended.map_err(|_| "the health endpoints panicked".to_string())?,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            tracing::info!("asked to stop; work under way ends, tokens are revoked");
            stop.send_replace(true);
            controller.await
        }
    };
    ended.map_err(|_| "the controller panicked".to_string())?
}

fn proxy_of_environment() -> Option<http::Uri> {
    let mut values = ["HTTPS_PROXY", "https_proxy"]
        .iter()
        .filter_map(|name| std::env::var(name).ok());
    values.find(|value| !value.is_empty())?.parse().ok()
}

fn check(args: &RunArgs) -> Result<(), String> {
    if args.leader_election_lease_duration > LONGEST_LEASE {
        return Err(format!(
            "--leader-election-lease-duration must be at most {} h: for so long nobody works after a leader has died",
            LONGEST_LEASE.as_secs() / 3600
        ));
    }
    if args.leader_election_renew_deadline >= args.leader_election_lease_duration {
        return Err("--leader-election-renew-deadline must be shorter than --leader-election-lease-duration: a leader \
                    must stop before another may begin"
            .into());
    }
    if args.leader_election_retry_period >= args.leader_election_renew_deadline {
        return Err(
            "--leader-election-retry-period must be shorter than --leader-election-renew-deadline".into(),
        );
    }
    Ok(())
}

fn settings(args: &RunArgs) -> Settings {
    let times = Times {
        lease_duration: args.leader_election_lease_duration,
        renew_deadline: args.leader_election_renew_deadline,
        retry_period: args.leader_election_retry_period,
    };
    Settings {
        namespaces: args
            .namespace
            .iter()
            .map(|n| n.trim().to_string())
            .filter(|n| !n.is_empty())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        stores: Rules {
            class: args.controller_class.clone(),
            in_flight: args.vault_concurrency,
            require_audience: args.require_token_audience,
        },
        concurrent: args.concurrent,
        cluster_stores: args.enable_cluster_store_reconciler,
        secret_stores: args.enable_secret_store_reconciler,
        store_requeue: args.store_requeue_interval,
        outage_grace: args.outage_grace,
        deletion_brake: args.deletion_brake,
        delims: Delims {
            left: args.template_left_delimiter.clone(),
            right: args.template_right_delimiter.clone(),
        },
        generic_targets: args.unsafe_allow_generic_targets,
        own_token: args.service_account_token_file.clone(),
        operator_namespace: args.operator_namespace.clone(),
        identity: args.identity.clone(),
        election: args
            .enable_leader_election
            .then(|| (args.leader_election_id.clone(), times)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn times_of_an_election_that_contradict_each_other_are_refused_by_name() {
        let checked = |lease: &str, deadline: &str, retry: &str| {
            let times = [
                ("lease-duration", lease),
                ("renew-deadline", deadline),
                ("retry-period", retry),
            ];
            let flags = times.map(|(name, value)| format!("--leader-election-{name}={value}"));
            check(&Cli::parse_from([vec!["keyferry".to_string()], flags.to_vec()].concat()).run)
        };
        assert_eq!(checked("15s", "10s", "2s"), Ok(()));
        assert_eq!(checked("1900ms", "1800ms", "100ms"), Ok(()));
        for (lease, deadline, retry, named) in [
            ("10s", "10s", "2s", "renew-deadline must be shorter"),
            ("1s", "1.5s", "100ms", "renew-deadline must be shorter"),
            ("15s", "10s", "10s", "retry-period must be shorter"),
            ("1h1s", "10s", "2s", "must be at most 1 h"),
        ] {
            let refused = checked(lease, deadline, retry).unwrap_err();
            assert!(refused.contains(named), "{lease} {deadline} {retry}: {refused}");
        }
    }
}
