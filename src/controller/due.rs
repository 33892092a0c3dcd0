//! Whether an ExternalSecret needs a sync now, and if not, when. Pure: the clock is handed in.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::targets::State;
use crate::api::duration::SHORTEST_REFRESH;
use crate::api::external_secret::{CreationPolicy, ExternalSecret, RefreshPolicy};
use crate::sync::windows::{Opening, Windows};

/// The first refresh after a change comes no earlier than after this part of the interval.
const EARLIEST: u32 = 4;

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
    /// An object that holds a template of the target changed since it was rendered.
    pub template_changed: bool,
    /// A store that the object reads from is another one than at the last sync.
    pub store_changed: bool,
    /// The target.
    pub target: State,
    /// When the target's values are to be read anew, if they are leased.
    pub lease_due: Option<Timestamp>,
    /// How long what has failed is not tried again.
    pub retry: Option<Duration>,
    /// How long a target that somebody changes all the time is not repaired yet.
    pub pause: Option<Duration>,
    /// When a periodic refresh may happen; none means always.
    pub windows: Option<&'a Windows>,
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
///
/// Values that are leased are read anew before they end, whatever the interval, the policy and the windows say: a
/// credential that is dead serves nobody. An immutable target could not take new ones.
#[must_use]
pub fn need(object: &ExternalSecret, interval: Duration, known: &Circumstances<'_>) -> Need {
    if let Some(at) = known.retry.and_then(|left| known.now.checked_add(left).ok()) {
        return Need::At(at);
    }
    let need = without_leases(object, interval, known);
    match known.lease_due.filter(|_| !object.spec.is_immutable()) {
        None => need,
        Some(due) if due <= known.now => match need {
            Need::Sync(since) => Need::Sync(since.min(due)),
            Need::At(_) | Need::Nothing => Need::Sync(due),
        },
        Some(due) => match need {
            Need::Sync(_) => need,
            Need::At(at) => Need::At(at.min(due)),
            Need::Nothing => Need::At(due),
        },
    }
}

fn without_leases(object: &ExternalSecret, interval: Duration, known: &Circumstances<'_>) -> Need {
    let status = object.status.clone().unwrap_or_default();
    let in_status = status.refresh_time.map(|time| time.0);
    let last = known
        .last_success
        .max(in_status)
        .filter(|last| *last <= known.now);
    let never = status.synced_resource_version.is_none() || last.is_none();
    let changed = known.template_changed || status.synced_resource_version.as_deref() != Some(known.version);
    let Some(last) = last.filter(|_| !never) else {
        return Need::Sync(known.now);
    };
    let harmed = harmed(object, known.target);
    let held = known.pause.filter(|_| harmed && !changed);
    match held.map(|pause| known.now.checked_add(pause)) {
        None if harmed => Need::Sync(known.now),
        None => unless_harmed(object, interval, known, (last, changed)),
        Some(until) => {
            // A refresh comes when it is due all the same.
            let known = Circumstances {
                pending: false,
                ..*known
            };
            match (unless_harmed(object, interval, &known, (last, changed)), until) {
                (Need::At(due), Ok(until)) => Need::At(due.min(until)),
                (Need::Nothing, Ok(until)) => Need::At(until),
                (need, _) => need,
            }
        }
    }
}

/// Whether all that a sync does is to set back what somebody else did to the target.
#[must_use]
pub fn is_repair(object: &ExternalSecret, version: &str, target: State) -> bool {
    let synced = object
        .status
        .as_ref()
        .and_then(|status| status.synced_resource_version.as_deref());
    harmed(object, target) && synced == Some(version)
}

/// The same of an object whose target is as it was left, or may be left as it is.
fn unless_harmed(
    object: &ExternalSecret,
    interval: Duration,
    known: &Circumstances<'_>,
    (last, changed): (Timestamp, bool),
) -> Need {
    // A target of Merge that is not there yet is looked for at every interval, as in ESO: without our
    // label, nothing tells of its coming.
    let awaited = object.spec.creation_policy() == CreationPolicy::Merge && known.target == State::Absent;
    match object.spec.refresh_policy() {
        RefreshPolicy::CreatedOnce | RefreshPolicy::OnChange if known.pending => Need::Sync(known.now),
        RefreshPolicy::CreatedOnce if !awaited => Need::Nothing,
        _ if changed => Need::Sync(known.now),
        RefreshPolicy::OnChange if !awaited => Need::Nothing,
        _ if known.pending || known.store_changed => in_window(known, known.now),
        _ if interval.is_zero() => Need::Nothing,
        _ => {
            // An interval beyond the end of time never comes.
            match last.checked_add(wait(object, interval, last)) {
                Ok(due) if due <= known.now => in_window(known, due),
                Ok(due) => Need::At(due),
                Err(_) => Need::Nothing,
            }
        }
    }
}

/// A periodic refresh that is due since then. One that a window kept back is overdue only from now on.
fn in_window(known: &Circumstances<'_>, due: Timestamp) -> Need {
    match known.windows.map(|windows| windows.opening(known.now)) {
        None => Need::Sync(due),
        Some(Opening::Now) => Need::Sync(known.now),
        Some(Opening::At(edge)) => Need::At(edge),
        Some(Opening::Never) => Need::Nothing,
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

/// From the last sync to the next refresh, never longer than the interval.
///
/// Each object has its own moment in the interval, by its UID, and is refreshed at that moment whenever it was changed
/// or forced: a thousand that were made at once, or woken by a store that came back, are spread over the whole
/// interval from the second refresh on. (A part of the interval by which each comes early, as DESIGN has it, leaves
/// them six times as dense as the mean minutes later: measured.) One whose moment is near waits half an interval
/// longer, so that it is not read twice in short.
fn wait(object: &ExternalSecret, interval: Duration, last: Timestamp) -> Duration {
    let digest = Sha256::digest(object.metadata.uid.as_deref().unwrap_or_default().as_bytes());
    let share = f64::from(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]))
        / (f64::from(u32::MAX) + 1.0);
    let into = Duration::from_nanos_u128(last.as_nanosecond().unsigned_abs() % interval.as_nanos().max(1));
    let moment = interval.mul_f64(share);
    let wait = if moment > into {
        moment - into
    } else {
        (interval - into).saturating_add(moment)
    };
    if wait > interval / EARLIEST {
        wait
    } else {
        wait + interval / 2
    }
}

/// When values that are known since `from` and end at `ends` are read anew: after two thirds of what is left of their
/// life, and not sooner than any object is refreshed again.
#[must_use]
pub fn of_lease(from: Timestamp, ends: Timestamp) -> Timestamp {
    let left = ends.duration_since(from);
    let wait = if left.is_negative() {
        Duration::ZERO
    } else {
        left.unsigned_abs() / 3 * 2
    };
    from.checked_add(wait.max(SHORTEST_REFRESH))
        .unwrap_or(Timestamp::MAX)
}

/// Until when an outage leaves Ready True that has kept a sync back since `overdue`. A credential whose lease has ended
/// is known to be dead.
#[must_use]
pub fn grace_ends(overdue: Timestamp, grace: Duration, lease_ends: Option<Timestamp>) -> Timestamp {
    let ends = overdue.checked_add(grace).unwrap_or(Timestamp::MAX);
    lease_ends.map_or(ends, |lease| lease.min(ends))
}

/// Longest wait of an object that failed by its own fault.
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// Such an object may cost one part in so many of a processor.
const COST_PART: u32 = 100;

/// Wait before the next try of an object that failed by its own fault: 1 s doubling to 5 min, jittered. One whose
/// tries cost much (templates, rewrites, megabytes that are read) waits in proportion.
#[must_use]
pub fn backoff(failures: u32, cost: Duration) -> Duration {
    let base = Duration::from_secs(1 << failures.saturating_sub(1).min(8));
    let base = base.max(cost.saturating_mul(COST_PART)).min(BACKOFF_MAX);
    base.mul_f64(rand::random_range(0.8..1.0))
}

/// One whose target the deletion brake keeps is looked at again at each refresh, and at least this often: its values
/// may have been put back.
const HELD_MAX: Duration = Duration::from_secs(600);

/// Wait before the next look at such an object, jittered.
#[must_use]
pub fn while_held(interval: Option<Duration>) -> Duration {
    let wait = interval.unwrap_or(HELD_MAX).clamp(SHORTEST_REFRESH, HELD_MAX);
    wait.mul_f64(rand::random_range(0.8..1.0))
}

#[cfg(test)]
mod tests;
