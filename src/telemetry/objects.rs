//! The series of the ExternalSecrets. Numbers only, and the labels are written when somebody reads them: a
//! `Family` holds the labels of each series anew, which is more than a kilobyte for an object.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Namespace and name.
type Key = (Arc<str>, Arc<str>);

/// What is counted of one ExternalSecret.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    calls: u64,
    errors: i64,
    last_nanoseconds: i64,
    ready: Option<bool>,
}

/// What is counted of all ExternalSecrets.
#[derive(Debug, Default)]
pub struct Objects(Mutex<HashMap<Key, Numbers>>);

impl Objects {
    fn numbers(&self) -> MutexGuard<'_, HashMap<Key, Numbers>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one reconcile.
    pub fn reconciled(&self, namespace: &Arc<str>, name: &Arc<str>, took: Duration, failed: bool) {
        let mut all = self.numbers();
        let numbers = all.entry((namespace.clone(), name.clone())).or_default();
        numbers.calls = numbers.calls.saturating_add(1);
        numbers.errors = numbers.errors.saturating_add(i64::from(failed));
        numbers.last_nanoseconds = i64::try_from(took.as_nanos()).unwrap_or(i64::MAX);
    }

    /// Shows the status of the Ready condition.
    pub fn condition(&self, namespace: &Arc<str>, name: &Arc<str>, ready: bool) {
        let mut all = self.numbers();
        all.entry((namespace.clone(), name.clone())).or_default().ready = Some(ready);
    }

    /// Drops all series.
    pub(super) fn clear(&self) {
        self.numbers().clear();
    }

    /// Drops the series of an object that is gone.
    pub fn forget(&self, namespace: &Arc<str>, name: &Arc<str>) {
        self.numbers().remove(&(namespace.clone(), name.clone()));
    }
}

impl Collector for Objects {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let all = self.numbers();
        let mut family = |name: &str, help: &str, kind: MetricType, write: Write| {
            if all.is_empty() {
                return Ok(());
            }
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            all.iter()
                .try_for_each(|(key, numbers)| write(&mut metric, key, numbers))
        };
        family(
            "externalsecret_sync_calls",
            "Reconciles",
            MetricType::Counter,
            calls,
        )?;
        // ESO's counters without the suffix `_total` are gauges here, or the name would change.
        let help = "Syncs that failed";
        family("externalsecret_sync_calls_error", help, MetricType::Gauge, errors)?;
        let help = "Nanoseconds of the last reconcile";
        family(
            "externalsecret_reconcile_duration",
            help,
            MetricType::Gauge,
            duration,
        )?;
        let help = "1 for the present status of the condition";
        family(
            "externalsecret_status_condition",
            help,
            MetricType::Gauge,
            conditions,
        )
    }
}

type Write = fn(&mut MetricEncoder<'_>, &Key, &Numbers) -> fmt::Result;

fn calls(metric: &mut MetricEncoder<'_>, key: &Key, numbers: &Numbers) -> fmt::Result {
    if numbers.calls == 0 {
        return Ok(());
    }
    ConstCounter::new(numbers.calls).encode(metric.encode_family(&labels(key))?)
}

fn errors(metric: &mut MetricEncoder<'_>, key: &Key, numbers: &Numbers) -> fmt::Result {
    if numbers.errors == 0 {
        return Ok(());
    }
    ConstGauge::new(numbers.errors).encode(metric.encode_family(&labels(key))?)
}

fn duration(metric: &mut MetricEncoder<'_>, key: &Key, numbers: &Numbers) -> fmt::Result {
    if numbers.calls == 0 {
        return Ok(());
    }
    ConstGauge::new(numbers.last_nanoseconds).encode(metric.encode_family(&labels(key))?)
}

fn conditions(metric: &mut MetricEncoder<'_>, key: &Key, numbers: &Numbers) -> fmt::Result {
    let Some(ready) = numbers.ready else { return Ok(()) };
    let [name, namespace] = labels(key);
    for (status, value) in [("True", i64::from(ready)), ("False", i64::from(!ready))] {
        let labels = [name, namespace, ("condition", "Ready"), ("status", status)];
        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn labels((namespace, name): &Key) -> [(&'static str, &str); 2] {
    [("name", name.as_ref()), ("namespace", namespace.as_ref())]
}
