//! Metrics: ESO's names where one exists, so that its dashboards and alerts keep working; ours begin
//! with `keyferry_`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::objects::Objects;

/// Kinds of store, which have conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SecretStore.
    SecretStore,
    /// ClusterSecretStore.
    ClusterSecretStore,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ConditionLabels {
    name: String,
    namespace: String,
    condition: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabels {
    provider: &'static str,
    call: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct HolderLabels {
    of: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NamespaceLabels {
    namespace: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IdentityLabels {
    identity: String,
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    objects: Arc<Objects>,
    conditions: [Family<ConditionLabels, Gauge>; 2],
    provider_calls: Family<CallLabels, Gauge>,
    vault_requests: Family<RequestLabels, Counter>,
    vault_probes: Family<OutcomeLabels, Counter>,
    queue_age: Histogram,
    queue_length: Gauge,
    parked: Gauge,
    wakeups: Counter,
    panics: Counter,
    deletions_held: Gauge,
    leader: Gauge,
    entries: Family<HolderLabels, Gauge>,
    tasks: Gauge,
    unserved: Family<NamespaceLabels, Gauge>,
    leaders: Family<IdentityLabels, Gauge>,
    notes: Mutex<BTreeMap<String, String>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            objects: Arc::default(),
            conditions: Default::default(),
            provider_calls: Family::default(),
            vault_requests: Family::default(),
            vault_probes: Family::default(),
            queue_age: Histogram::new(exponential_buckets(0.001, 4.0, 10)),
            queue_length: Gauge::default(),
            parked: Gauge::default(),
            wakeups: Counter::default(),
            panics: Counter::default(),
            deletions_held: Gauge::default(),
            leader: Gauge::default(),
            entries: Family::default(),
            tasks: Gauge::default(),
            unserved: Family::default(),
            leaders: Family::default(),
            notes: Mutex::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register_collector(Box::new(self.objects.clone()));
        let names = [
            "secretstore_status_condition",
            "clustersecretstore_status_condition",
        ];
        for (name, family) in names.into_iter().zip(&self.conditions) {
            r.register(name, "1 for the present status of the condition", family.clone());
        }
        r.register(
            "externalsecret_provider_api_calls_count",
            "Calls to the provider",
            self.provider_calls.clone(),
        );
        r.register(
            "keyferry_vault_requests",
            "Requests to Vault by outcome",
            self.vault_requests.clone(),
        );
        r.register(
            "keyferry_vault_probes",
            "Health checks, which Vault neither audits nor limits",
            self.vault_probes.clone(),
        );
        r.register(
            "keyferry_queue_age_seconds",
            "Time from trigger to start of the work",
            self.queue_age.clone(),
        );
        r.register(
            "keyferry_queue_length",
            "ExternalSecrets that wait for a worker",
            self.queue_length.clone(),
        );
        r.register(
            "keyferry_parked",
            "ExternalSecrets that wait for a store",
            self.parked.clone(),
        );
        r.register(
            "keyferry_wakeups",
            "ExternalSecrets woken because their store came back",
            self.wakeups.clone(),
        );
        r.register(
            "keyferry_panics",
            "Panics that were caught while handling one object",
            self.panics.clone(),
        );
        r.register(
            "keyferry_deletions_held",
            "ExternalSecrets whose target the deletion brake keeps",
            self.deletions_held.clone(),
        );
        r.register(
            "keyferry_leader",
            "1 while this replica is the active one",
            self.leader.clone(),
        );
        r.register(
            "keyferry_leader_info",
            "1 for the replica that holds the Lease, as this one sees it",
            self.leaders.clone(),
        );
        r.register(
            "keyferry_entries",
            "What is kept in memory, by what keeps it: none may grow for ever",
            self.entries.clone(),
        );
        r.register(
            "keyferry_tasks",
            "Tasks that are under way or wait",
            self.tasks.clone(),
        );
        r.register(
            "keyferry_namespace_unserved",
            "1 for each namespace that is to be served and cannot be",
            self.unserved.clone(),
        );
    }

    /// The text that Prometheus reads (OpenMetrics).
    #[must_use]
    pub fn text(&self) -> String {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let tasks = runtime.metrics().num_alive_tasks();
            self.tasks.set(i64::try_from(tasks).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// What is counted of each ExternalSecret.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Shows the status of a store's Ready condition.
    pub fn condition(&self, kind: Kind, namespace: &str, name: &str, ready: bool) {
        let family = &self.conditions[kind as usize];
        for (status, value) in [("True", i64::from(ready)), ("False", i64::from(!ready))] {
            family
                .get_or_create(&condition_labels(namespace, name, status))
                .set(value);
        }
    }

    /// Drops the series of a store that is gone.
    pub fn forget(&self, kind: Kind, namespace: &str, name: &str) {
        for status in ["True", "False"] {
            self.conditions[kind as usize].remove(&condition_labels(namespace, name, status));
        }
    }

    /// Drops the series of all objects and stores.
    pub fn forget_objects(&self) {
        self.objects.clear();
        self.conditions.iter().for_each(Family::clear);
    }

    /// Counts one request to Vault.
    pub fn vault_request(&self, operation: &'static str, outcome: &'static str) {
        self.vault_requests
            .get_or_create(&RequestLabels { operation, outcome })
            .inc();
        // ESO's names of the calls, which its dashboard draws.
        let call = match operation {
            "login" => "Login",
            "read" => "ReadSecretData",
            "revoke" => "RevokeSelf",
            other => other,
        };
        let status = if outcome == "success" { "success" } else { "error" };
        self.provider_calls
            .get_or_create(&CallLabels {
                provider: "HashiCorp/Vault",
                call,
                status,
            })
            .inc();
    }

    /// Counts one health check.
    pub fn vault_probe(&self, good: bool) {
        let outcome = if good { "success" } else { "error" };
        self.vault_probes.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Notes how long work waited, and what still waits.
    pub fn queue(&self, age: Duration, length: usize, parked: usize) {
        self.queue_age.observe(age.as_secs_f64());
        self.queue_length.set(i64::try_from(length).unwrap_or(i64::MAX));
        self.parked.set(i64::try_from(parked).unwrap_or(i64::MAX));
    }

    /// Counts ExternalSecrets that were woken because their store came back.
    pub fn woken(&self, count: usize) {
        self.wakeups.inc_by(count as u64);
    }

    /// Counts one panic that was caught.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// Shows how many targets the deletion brake keeps.
    pub fn deletions_held(&self, count: usize) {
        self.deletions_held.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Shows how many entries something keeps.
    pub fn entries(&self, of: &'static str, count: usize) {
        self.entries
            .get_or_create(&HolderLabels { of })
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Shows that a namespace is not served and why, or that it is.
    pub fn unserved(&self, namespace: &str, why: Option<String>) {
        let (labels, key) = (
            NamespaceLabels {
                namespace: namespace.into(),
            },
            format!("namespace {namespace}"),
        );
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match why {
            Some(why) => {
                self.unserved.get_or_create(&labels).set(1);
                notes.insert(key, why);
            }
            None => {
                self.unserved.remove(&labels);
                notes.remove(&key);
            }
        }
    }

    /// What `/readyz` says beside that it is ready, or is not.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.values().cloned().collect()
    }

    /// Shows who holds the Lease, and what a standby says of that.
    pub fn led_by(&self, identity: &str, note: Option<String>) {
        let labels = IdentityLabels {
            identity: identity.into(),
        };
        self.leaders.clear();
        self.leaders.get_or_create(&labels).set(1);
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match note {
            Some(note) => notes.insert("leader".into(), note),
            None => notes.remove("leader"),
        };
    }

    /// Shows whether this replica is the active one.
    pub fn leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }
}

fn condition_labels(namespace: &str, name: &str, status: &'static str) -> ConditionLabels {
    ConditionLabels {
        name: name.into(),
        namespace: namespace.into(),
        condition: "Ready",
        status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_dashboards_read_are_esos() {
        let metrics = Metrics::default();
        let (namespace, name) = ("db".into(), "postgres-secret".into());
        metrics
            .objects()
            .reconciled(&namespace, &name, Duration::from_nanos(7), true);
        metrics.objects().condition(&namespace, &name, true);
        metrics.condition(Kind::ClusterSecretStore, "", "k8s-secrets", false);
        metrics.vault_request("login", "success");
        let text = metrics.text();
        for line in [
            r#"externalsecret_sync_calls_total{name="postgres-secret",namespace="db"} 1"#,
            r#"externalsecret_sync_calls_error{name="postgres-secret",namespace="db"} 1"#,
            r#"externalsecret_reconcile_duration{name="postgres-secret",namespace="db"} 7"#,
            r#"externalsecret_status_condition{name="postgres-secret",namespace="db",condition="Ready",status="True"} 1"#,
            r#"externalsecret_status_condition{name="postgres-secret",namespace="db",condition="Ready",status="False"} 0"#,
            r#"clustersecretstore_status_condition{name="k8s-secrets",namespace="",condition="Ready",status="False"} 1"#,
            r#"externalsecret_provider_api_calls_count{provider="HashiCorp/Vault",call="Login",status="success"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }

    #[test]
    fn the_series_of_an_object_go_with_it() {
        let metrics = Metrics::default();
        let (namespace, name) = ("db".into(), "a".into());
        metrics
            .objects()
            .reconciled(&namespace, &name, Duration::ZERO, true);
        metrics.objects().condition(&namespace, &name, false);
        metrics.condition(Kind::SecretStore, "db", "a", true);
        assert!(metrics.text().contains(r#"name="a""#));
        metrics.objects().forget(&namespace, &name);
        metrics.forget(Kind::SecretStore, "db", "a");
        assert!(!metrics.text().contains(r#"name="a""#));
    }
}
