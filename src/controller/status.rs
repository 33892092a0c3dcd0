//! What the status must say, and whether that is worth a write. Pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{Timestamp, Unit};
use serde_json::{Value, json};

use crate::api::external_secret::ExternalSecretStatus;
use crate::api::meta::{Condition, LocalName};

/// Type of the one condition.
pub const READY: &str = "Ready";
/// Reason of an ExternalSecret that could not be synced, as in ESO.
pub const SYNC_ERROR: &str = "SecretSyncedError";
/// The same of one with a generic target.
pub const RESOURCE_SYNC_ERROR: &str = "ResourceSyncedError";
/// Reason of one whose target the deletion brake keeps.
pub const DELETION_HELD: &str = "DeletionHeld";
/// A refresh that changed nothing writes `refreshTime` at most this often (promise 5).
pub const HEARTBEAT: Duration = Duration::from_secs(300);
/// Longest message, in characters; the API server takes 32 KiB. Messages name fields, which a tenant may make as long
/// as an object may be, and they are logged too.
const MESSAGE_MAX: usize = 2048;

/// The Ready condition as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// `True` or `False`.
    pub status: bool,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl Ready {
    /// True.
    #[must_use]
    pub fn yes(reason: &str, message: impl Into<String>) -> Self {
        Self {
            status: true,
            reason: reason.into(),
            message: bounded(message.into()),
        }
    }

    /// False.
    #[must_use]
    pub fn no(reason: &str, message: impl Into<String>) -> Self {
        Self {
            status: false,
            reason: reason.into(),
            message: bounded(message.into()),
        }
    }
}

/// The middle of a longer one is left out: the beginning names the place, the end what to do.
fn bounded(message: String) -> String {
    let count = message.chars().count();
    if count <= MESSAGE_MAX {
        return message;
    }
    let (head, tail) = (MESSAGE_MAX * 3 / 4, MESSAGE_MAX / 4 - 3);
    let head = message.chars().take(head);
    head.chain(" … ".chars())
        .chain(message.chars().skip(count - tail))
        .collect()
}

/// What a successful sync leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// Its start.
    pub at: Timestamp,
    /// `syncedResourceVersion`.
    pub version: String,
    /// Name of the Secret that was written; `None` leaves what is there.
    pub binding: Option<String>,
}

/// Times of the API are whole seconds.
#[must_use]
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    time.round(Unit::Second)
        .ok()
        .filter(|rounded| *rounded <= time)
        .unwrap_or_else(|| Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// Whether these conditions say Ready=True.
#[must_use]
pub fn is_ready(conditions: &[Condition]) -> bool {
    ready(conditions) == Some(true)
}

/// What these conditions say of Ready; `None` if nothing.
#[must_use]
pub fn ready(conditions: &[Condition]) -> Option<bool> {
    let ready = conditions.iter().find(|condition| condition.type_ == READY);
    ready.map(|ready| ready.status == "True")
}

/// The conditions with this one in place; `None` if nothing changes. `lastTransitionTime` stays
/// unless the status flips.
#[must_use]
pub fn conditions(old: &[Condition], ready: &Ready, now: Timestamp) -> Option<Vec<Condition>> {
    let status = if ready.status { "True" } else { "False" };
    let message = &ready.message;
    let known = old.iter().find(|condition| condition.type_ == READY);
    if known.is_some_and(|known| {
        known.status == status
            && known.reason.as_deref() == Some(&ready.reason)
            && known.message.as_ref() == Some(message)
    }) {
        return None;
    }
    let kept = known
        .filter(|known| known.status == status)
        .and_then(|known| known.last_transition_time.clone());
    let mut all: Vec<Condition> = old
        .iter()
        .filter(|condition| condition.type_ != READY)
        .cloned()
        .collect();
    all.push(Condition {
        type_: READY.into(),
        status: status.into(),
        reason: Some(ready.reason.clone()),
        message: Some(message.clone()),
        last_transition_time: Some(kept.unwrap_or_else(|| Time(whole_seconds(now)))),
    });
    Some(all)
}

/// Whether a success at this time writes `refreshTime` whatever else it says.
#[must_use]
pub fn beats(old: &ExternalSecretStatus, at: Timestamp) -> bool {
    old.refresh_time.as_ref().is_none_or(|last| {
        let age = at.duration_since(last.0);
        age.is_negative() || age.unsigned_abs() >= HEARTBEAT
    })
}

/// The merge patch of an ExternalSecret's status; `None` if it is not worth a write.
#[must_use]
pub fn patch(
    old: &ExternalSecretStatus,
    ready: &Ready,
    synced: Option<&Synced>,
    now: Timestamp,
) -> Option<Value> {
    let mut status = serde_json::Map::new();
    if let Some(conditions) = conditions(&old.conditions, ready, now) {
        status.insert("conditions".into(), json!(conditions));
    }
    if let Some(synced) = synced {
        let binding = synced.binding.clone().map(|name| LocalName { name });
        let changed = old.synced_resource_version.as_deref() != Some(&synced.version)
            || (binding.is_some() && old.binding != binding);
        if !status.is_empty() || changed || beats(old, synced.at) {
            status.insert("refreshTime".into(), json!(Time(whole_seconds(synced.at))));
            status.insert("syncedResourceVersion".into(), json!(synced.version));
            if let Some(binding) = binding {
                status.insert("binding".into(), json!(binding));
            }
        }
    }
    (!status.is_empty()).then(|| json!({ "status": status }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    fn synced(time: &str) -> Synced {
        Synced {
            at: at(time),
            version: "1-a".into(),
            binding: Some("t".into()),
        }
    }

    fn ok() -> Ready {
        Ready::yes("SecretSynced", "secret synced")
    }

    fn after(patch: Value) -> ExternalSecretStatus {
        serde_json::from_value(patch["status"].clone()).unwrap()
    }

    #[test]
    fn a_refresh_that_changed_nothing_writes_nothing_but_a_bounded_heartbeat() {
        let t0 = "2026-01-01T00:00:00Z";
        let old = after(patch(&ExternalSecretStatus::default(), &ok(), Some(&synced(t0)), at(t0)).unwrap());
        let soon = "2026-01-01T00:01:00Z";
        assert_eq!(patch(&old, &ok(), Some(&synced(soon)), at(soon)), None);
        let later = "2026-01-01T00:05:00Z";
        let beat = patch(&old, &ok(), Some(&synced(later)), at(later)).unwrap();
        assert_eq!(beat["status"]["refreshTime"], later);
        assert!(beat["status"].get("conditions").is_none());
    }

    #[test]
    fn a_message_is_no_longer_than_its_bound_in_whatever_script() {
        let long = Ready::no(SYNC_ERROR, "é".repeat(1 << 20)).message;
        assert_eq!(long.chars().count(), MESSAGE_MAX);
        let named = Ready::no(SYNC_ERROR, format!("key {} is missing", "x".repeat(5_000))).message;
        assert!(named.starts_with("key xxx") && named.ends_with("xxx is missing"));
        assert_eq!(Ready::yes("SecretSynced", "short").message, "short");
    }

    #[test]
    fn the_transition_time_stays_while_the_status_stays() {
        let t0 = at("2026-01-01T00:00:00Z");
        let first = conditions(&[], &Ready::no(SYNC_ERROR, "a"), t0).unwrap();
        let second = conditions(&first, &Ready::no(SYNC_ERROR, "b"), at("2026-01-01T01:00:00Z")).unwrap();
        assert_eq!(second[0].last_transition_time, first[0].last_transition_time);
        let third = conditions(&second, &ok(), at("2026-01-01T02:00:00Z")).unwrap();
        assert_ne!(third[0].last_transition_time, first[0].last_transition_time);
        assert_eq!(conditions(&third, &ok(), at("2026-01-01T03:00:00Z")), None);
    }

    #[test]
    fn a_failure_leaves_refresh_time_and_synced_version_alone() {
        let failed = patch(
            &ExternalSecretStatus::default(),
            &Ready::no(SYNC_ERROR, "x"),
            None,
            at("2026-01-01T00:00:00Z"),
        );
        let status = failed.unwrap()["status"].clone();
        assert!(status.get("refreshTime").is_none() && status.get("syncedResourceVersion").is_none());
    }

    #[test]
    fn times_are_whole_seconds_and_never_in_the_future() {
        assert_eq!(
            whole_seconds(at("2026-01-01T00:00:00.9Z")),
            at("2026-01-01T00:00:00Z")
        );
    }
}
