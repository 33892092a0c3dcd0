//! The command line: flags named as ESO's where one exists, each also an environment variable.

pub mod crds;
pub mod run;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::api::duration::GoDuration;
use crate::controller::brake::Setting;
use crate::memory::quantity;
use crate::telemetry::logs::LogFormat;

/// Ferries secrets from Vault or OpenBao into native Kubernetes Secrets.
#[derive(Debug, Parser)]
#[command(name = "keyferry", version, about, args_override_self = true)]
pub struct Cli {
    /// What to do; without it, the controller runs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of the controller.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the controller (the default).
    Run(Box<RunArgs>),
    /// Print the CustomResourceDefinitions, or write them as files.
    Crds {
        /// Folder to write one file a kind into.
        #[arg(long, value_name = "DIR")]
        write: Option<PathBuf>,
    },
}

/// Flags of the controller.
#[derive(Clone, Debug, Args)]
#[command(args_override_self = true)]
pub struct RunArgs {
    /// Address of /metrics.
    #[arg(long, env = "KEYFERRY_METRICS_ADDR", default_value = ":8080", value_parser = address)]
    pub metrics_addr: SocketAddr,
    /// Address of /healthz and /readyz.
    #[arg(long, env = "KEYFERRY_LIVE_ADDR", default_value = ":8082", value_parser = address)]
    pub live_addr: SocketAddr,
    /// trace, debug, info, warn or error.
    #[arg(long, env = "KEYFERRY_LOGLEVEL", default_value = "info")]
    pub loglevel: String,
    /// Form of the log lines.
    #[arg(long, env = "KEYFERRY_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Class of this operator; stores with another spec.controller are left alone.
    #[arg(long, env = "KEYFERRY_CONTROLLER_CLASS", default_value = "default")]
    pub controller_class: String,
    /// Namespaces to look after, separated by commas; empty means all.
    #[arg(long, env = "KEYFERRY_NAMESPACE", value_delimiter = ',')]
    pub namespace: Vec<String>,
    /// ExternalSecrets in work at once.
    #[arg(long, env = "KEYFERRY_CONCURRENT", default_value_t = 64, value_parser = at_least_one)]
    pub concurrent: usize,
    /// Requests under way at once per Vault server.
    #[arg(long, env = "KEYFERRY_VAULT_CONCURRENCY", default_value_t = 32, value_parser = at_least_one)]
    pub vault_concurrency: usize,
    /// Be active only while holding a Lease.
    #[arg(long, env = "KEYFERRY_ENABLE_LEADER_ELECTION", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub enable_leader_election: bool,
    /// Name of the Lease.
    #[arg(
        long,
        env = "KEYFERRY_LEADER_ELECTION_ID",
        default_value = "external-secrets-controller"
    )]
    pub leader_election_id: String,
    /// How long the Lease holds without renewal.
    #[arg(long, env = "KEYFERRY_LEADER_ELECTION_LEASE_DURATION", default_value = "15s", value_parser = duration)]
    pub leader_election_lease_duration: Duration,
    /// How long after its last renewal a leader may still write.
    #[arg(long, env = "KEYFERRY_LEADER_ELECTION_RENEW_DEADLINE", default_value = "10s", value_parser = duration)]
    pub leader_election_renew_deadline: Duration,
    /// Between tries to hold the Lease.
    #[arg(long, env = "KEYFERRY_LEADER_ELECTION_RETRY_PERIOD", default_value = "2s", value_parser = duration)]
    pub leader_election_retry_period: Duration,
    /// Between checks of a store.
    #[arg(long, env = "KEYFERRY_STORE_REQUEUE_INTERVAL", default_value = "5m", value_parser = duration)]
    pub store_requeue_interval: Duration,
    /// Serve ClusterSecretStores.
    #[arg(long, env = "KEYFERRY_ENABLE_CLUSTER_STORE_RECONCILER", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub enable_cluster_store_reconciler: bool,
    /// Serve SecretStores.
    #[arg(long, env = "KEYFERRY_ENABLE_SECRET_STORE_RECONCILER", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub enable_secret_store_reconciler: bool,
    /// How long an ExternalSecret stays Ready when an outage keeps a due refresh back.
    #[arg(long, env = "KEYFERRY_OUTAGE_GRACE", default_value = "10m", value_parser = duration)]
    pub outage_grace: Duration,
    /// How many targets deletionPolicy Delete may delete within 5 minutes: a share of a store's, and a count that may go
    /// whatever the share is; or off.
    #[arg(long, env = "KEYFERRY_DELETION_BRAKE", default_value = "25%,10")]
    pub deletion_brake: Setting,
    /// Memory that the process may take up. Without it, the limit of its cgroup counts, or 128Mi.
    #[arg(long, env = "KEYFERRY_MEMORY_LIMIT", value_parser = quantity)]
    pub memory_limit: Option<u64>,
    /// What begins an action in a template.
    #[arg(long, env = "KEYFERRY_TEMPLATE_LEFT_DELIMITER", default_value = "{{", value_parser = delimiter)]
    pub template_left_delimiter: String,
    /// What ends an action in a template.
    #[arg(long, env = "KEYFERRY_TEMPLATE_RIGHT_DELIMITER", default_value = "}}", value_parser = delimiter)]
    pub template_right_delimiter: String,
    /// Serve target.manifest: objects other than Secrets, which are neither encrypted nor guarded as secrets.
    #[arg(long, env = "KEYFERRY_UNSAFE_ALLOW_GENERIC_TARGETS", default_value_t = false, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub unsafe_allow_generic_targets: bool,
    /// Refuse stores that send a ServiceAccount token without an audience, which the API server would take too, to the
    /// server that they name.
    #[arg(long, env = "KEYFERRY_REQUIRE_TOKEN_AUDIENCE", default_value_t = false, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub require_token_audience: bool,
    /// The operator's own ServiceAccount token, for stores whose Kubernetes auth names no other.
    #[arg(
        long,
        env = "KEYFERRY_SERVICE_ACCOUNT_TOKEN_FILE",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    )]
    pub service_account_token_file: PathBuf,
    /// Namespace of the operator; home of its Lease and installation key.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub operator_namespace: String,
    /// Name of this replica; the same after a restart of its container.
    #[arg(long, env = "POD_NAME", default_value = "keyferry")]
    pub identity: String,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') {
        format!("0.0.0.0{text}")
    } else {
        text.to_string()
    };
    full.parse()
        .map_err(|_| "write an address such as :8080 or 127.0.0.1:8080".into())
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = GoDuration::parse(text).map_err(|e| e.to_string())?;
    parsed
        .as_std()
        .filter(|d| !d.is_zero())
        .ok_or_else(|| "must be more than zero, for example 10m".into())
}

fn delimiter(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(char::is_whitespace) {
        return Err("write a delimiter such as {{ or <<, without spaces".into());
    }
    Ok(text.into())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| "must be a number of at least 1".into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_later_flag_wins() {
        let cli = Cli::parse_from([
            "keyferry",
            "--loglevel=info",
            "--loglevel=debug",
            "--metrics-addr=:1",
            "--metrics-addr=127.0.0.1:2",
        ]);
        assert_eq!(
            (cli.run.loglevel.as_str(), cli.run.metrics_addr.port()),
            ("debug", 2)
        );
    }

    #[test]
    fn bad_values_are_refused_with_an_example() {
        for bad in [
            "--outage-grace=soon",
            "--outage-grace=0s",
            "--deletion-brake=25",
            "--memory-limit=1Mi",
            "--metrics-addr=8080",
            "--concurrent=0",
            "--template-left-delimiter=",
        ] {
            assert!(Cli::try_parse_from(["keyferry", bad]).is_err(), "{bad}");
        }
    }
}
