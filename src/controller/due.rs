//! Whether an ExternalSecret needs a sync now, and if not, when. Pure: the clock is handed in.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::targets::State;
use crate::api::external_secret::{CreationPolicy, ExternalSecret, RefreshPolicy};

/// Refreshes are spread by at most a tenth of the interval, and at most this (DESIGN: equal intervals
/// must not beat together).
const SPREAD_MAX: Duration = Duration::from_secs(300);

/// What is known beside the object itself.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// Now.
    pub now: Timestamp,
    /// `syncedResourceVersion` that a sync of the object as it is would leave.
    pub version: &'a str,
    /// Last success that this process knows of; the status may be older (bounded heartbeat).
    pub last_success: Option<Timestamp>,
    /// A sync was due and has not succeeded yet.
    pub pending: bool,
    /// The target.
    pub target: State,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Now; since when it is overdue.
    Sync(Timestamp),
    /// Then.
    At(Timestamp),
    /// Only when something changes.
    Nothing,
}

/// Decides.
///
/// `refreshInterval: 0` means once, as in ESO; unlike ESO, a change of the spec, of a label or of an
/// annotation (so also a force-sync) is honoured with it.
#[must_use]
pub fn need(object: &ExternalSecret, interval: Duration, known: &Circumstances<'_>) -> Need {
    let status = object.status.clone().unwrap_or_default();
    let in_status = status.refresh_time.map(|time| time.0);
    let last = known
        .last_success
        .max(in_status)
        .filter(|last| *last <= known.now);
    let never = status.synced_resource_version.is_none() || last.is_none();
    let changed = status.synced_resource_version.as_deref() != Some(known.version);
    let Some(last) = last.filter(|_| !never) else {
        return Need::Sync(known.now);
    };
    if known.pending || harmed(object, known.target) {
        return Need::Sync(known.now);
    }
    // A target of Merge that is not there yet is looked for at every interval, as in ESO: without our
    // label, nothing tells of its coming.
    let awaited = object.spec.creation_policy() == CreationPolicy::Merge && known.target == State::Absent;
    match object.spec.refresh_policy() {
        RefreshPolicy::CreatedOnce if !awaited => Need::Nothing,
        _ if changed => Need::Sync(known.now),
        RefreshPolicy::OnChange if !awaited => Need::Nothing,
        _ if interval.is_zero() => Need::Nothing,
        _ => {
            let wait = interval.saturating_sub(share(object, interval));
            // An interval beyond the end of time never comes.
            match last.checked_add(wait) {
                Ok(due) if due <= known.now => Need::Sync(due),
                Ok(due) => Need::At(due),
                Err(_) => Need::Nothing,
            }
        }
    }
}

/// Whether the target must be repaired at once. An `Orphan` target is left to the next refresh, one of
/// `Merge` may be missing, and `None` has none.
fn harmed(object: &ExternalSecret, target: State) -> bool {
    match object.spec.creation_policy() {
        CreationPolicy::Owner | CreationPolicy::CreateOrMerge => {
            matches!(target, State::Absent | State::Harmed)
        }
        CreationPolicy::Merge => target == State::Harmed,
        CreationPolicy::Orphan | CreationPolicy::None => false,
    }
}

/// A stable part of the interval by which this object comes early.
fn share(object: &ExternalSecret, interval: Duration) -> Duration {
    let digest = Sha256::digest(object.metadata.uid.as_deref().unwrap_or_default().as_bytes());
    let fraction = f64::from(u16::from_be_bytes([digest[0], digest[1]])) / f64::from(u16::MAX);
    (interval / 10).min(SPREAD_MAX).mul_f64(fraction)
}

/// Wait before the next try of an object that failed by its own fault: 1 s doubling to 5 min, jittered.
#[must_use]
pub fn backoff(failures: u32) -> Duration {
    let base = Duration::from_secs(1 << failures.saturating_sub(1).min(8)).min(Duration::from_secs(300));
    base.mul_f64(rand::random_range(0.8..1.0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use serde_json::json;

    const HOUR: Duration = Duration::from_secs(3600);

    fn object(spec: serde_json::Value, synced: Option<(&str, &str)>) -> ExternalSecret {
        let status =
            synced.map(|(version, time)| json!({"syncedResourceVersion": version, "refreshTime": time}));
        serde_json::from_value(json!({
            "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
            "metadata": {"namespace": "db", "name": "a", "uid": "u"}, "spec": spec, "status": status,
        }))
        .unwrap()
    }

    fn at(time: &str, target: State) -> Circumstances<'static> {
        Circumstances {
            now: time.parse().unwrap(),
            version: "1-a",
            last_success: None,
            pending: false,
            target,
        }
    }

    const SYNCED: Option<(&str, &str)> = Some(("1-a", "2026-01-01T00:00:00Z"));

    #[test]
    fn a_new_object_is_due_at_once() {
        let need = need(
            &object(json!({}), None),
            HOUR,
            &at("2026-01-01T00:00:00Z", State::Absent),
        );
        assert!(matches!(need, Need::Sync(_)));
    }

    #[test]
    fn what_is_not_due_and_intact_costs_nothing_at_start() {
        let need = need(
            &object(json!({}), SYNCED),
            HOUR,
            &at("2026-01-01T00:30:00Z", State::Intact),
        );
        let Need::At(due) = need else { panic!("{need:?}") };
        let early = "2026-01-01T01:00:00Z"
            .parse::<Timestamp>()
            .unwrap()
            .duration_since(due);
        assert!(early.as_secs() >= 0 && early.as_secs() <= 300, "{early}");
    }

    #[test]
    fn a_force_sync_is_due_at_once_also_with_interval_zero_and_on_change() {
        for spec in [
            json!({}),
            json!({"refreshInterval": "0"}),
            json!({"refreshPolicy": "OnChange"}),
        ] {
            let mut known = at("2026-01-01T00:00:10Z", State::Intact);
            assert!(!matches!(
                need(&object(spec.clone(), SYNCED), Duration::ZERO, &known),
                Need::Sync(_)
            ));
            known.version = "1-b";
            assert!(matches!(
                need(&object(spec, SYNCED), Duration::ZERO, &known),
                Need::Sync(_)
            ));
        }
    }

    #[test]
    fn a_target_of_merge_that_is_not_there_is_looked_for_at_every_interval() {
        for policy in ["Periodic", "OnChange", "CreatedOnce"] {
            let object = object(
                json!({"refreshPolicy": policy, "target": {"creationPolicy": "Merge"}}),
                SYNCED,
            );
            let soon = need(&object, HOUR, &at("2026-01-01T00:00:10Z", State::Absent));
            assert!(matches!(soon, Need::At(_)), "{policy}: {soon:?}");
            let later = need(&object, HOUR, &at("2026-01-01T01:00:10Z", State::Absent));
            assert!(matches!(later, Need::Sync(_)), "{policy}: {later:?}");
            let never = need(
                &object,
                Duration::ZERO,
                &at("2026-01-01T01:00:10Z", State::Absent),
            );
            assert_eq!(never, Need::Nothing, "{policy}");
        }
        let merged = object(
            json!({"refreshPolicy": "CreatedOnce", "target": {"creationPolicy": "Merge"}}),
            SYNCED,
        );
        let later = need(&merged, HOUR, &at("2026-01-01T01:00:10Z", State::Intact));
        assert_eq!(later, Need::Nothing);
    }

    #[test]
    fn created_once_ignores_changes_but_repairs_its_target() {
        let once = object(json!({"refreshPolicy": "CreatedOnce"}), SYNCED);
        let mut known = at("2026-06-01T00:00:00Z", State::Intact);
        known.version = "2-b";
        assert_eq!(need(&once, HOUR, &known), Need::Nothing);
        known.target = State::Absent;
        assert!(matches!(need(&once, HOUR, &known), Need::Sync(_)));
    }

    #[test]
    fn an_orphan_that_was_deleted_waits_for_its_refresh() {
        let orphan = object(json!({"target": {"creationPolicy": "Orphan"}}), SYNCED);
        assert!(matches!(
            need(&orphan, HOUR, &at("2026-01-01T00:30:00Z", State::Absent)),
            Need::At(_)
        ));
    }

    #[test]
    fn a_refresh_time_in_the_future_is_not_believed() {
        let future = object(json!({}), Some(("1-a", "2030-01-01T00:00:00Z")));
        assert!(matches!(
            need(&future, HOUR, &at("2026-01-01T00:00:00Z", State::Intact)),
            Need::Sync(_)
        ));
    }

    #[test]
    fn equal_intervals_do_not_beat_together() {
        let mut dues: Vec<_> = (0..50)
            .map(|i| {
                let mut object = object(json!({}), SYNCED);
                object.metadata.uid = Some(format!("uid-{i}"));
                need(&object, HOUR, &at("2026-01-01T00:00:01Z", State::Intact))
            })
            .map(|need| {
                if let Need::At(due) = need {
                    due
                } else {
                    panic!("{need:?}")
                }
            })
            .collect();
        dues.sort();
        dues.dedup();
        assert!(dues.len() > 40, "{dues:?}");
    }

    #[test]
    fn an_interval_beyond_the_end_of_time_does_not_panic() {
        let known = at("2026-01-01T00:30:00Z", State::Intact);
        assert_eq!(
            need(
                &object(json!({}), SYNCED),
                Duration::from_nanos(i64::MAX as u64),
                &known
            ),
            {
                need(
                    &object(json!({}), SYNCED),
                    Duration::from_nanos(i64::MAX as u64),
                    &known,
                )
            }
        );
        assert!(matches!(
            need(&object(json!({}), SYNCED), Duration::MAX, &known),
            Need::Nothing
        ));
    }

    #[test]
    fn failures_back_off_to_five_minutes() {
        assert!(backoff(1) <= Duration::from_secs(1));
        assert!(backoff(5) >= Duration::from_secs(12));
        assert!(
            backoff(u32::MAX) <= Duration::from_secs(300) && backoff(u32::MAX) >= Duration::from_secs(200)
        );
    }
}
