#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::api::external_secret::{SyncWindow, SyncWindowKind, SyncWindows};
use serde_json::json;

const HOUR: Duration = Duration::from_secs(3600);

fn object(spec: serde_json::Value, synced: Option<(&str, &str)>) -> ExternalSecret {
    let status = synced.map(|(version, time)| json!({"syncedResourceVersion": version, "refreshTime": time}));
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
        template_changed: false,
        store_changed: false,
        target,
        lease_due: None,
        retry: None,
        pause: None,
        windows: None,
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
    let wait = due.duration_since("2026-01-01T00:00:00Z".parse().unwrap());
    assert!(wait.as_secs() >= 15 * 60 && wait.as_secs() <= 60 * 60, "{wait}");
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
fn leased_values_are_read_anew_after_two_thirds_of_their_life_and_at_most_once_a_second() {
    let from: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    for (life, wait) in [
        (3600, 2400),
        (15, 10),
        (2, 1),
        (1, 1),
        (0, 1),
        (-60, 1),
        (i64::from(u32::MAX), 2_863_311_530),
    ] {
        let ends = Timestamp::from_second(from.as_second() + life).unwrap();
        assert_eq!(
            of_lease(from, ends).duration_since(from).as_secs(),
            wait,
            "{life}"
        );
    }
    assert!(of_lease(from, Timestamp::MAX) > from);
    assert_eq!(of_lease(Timestamp::MAX, from), Timestamp::MAX);
}

#[test]
fn an_outage_leaves_ready_true_for_the_grace_and_no_longer_than_a_lease() {
    let at = |time: &str| -> Timestamp { format!("2026-01-01T{time}:00Z").parse().unwrap() };
    let ends = |lease: Option<Timestamp>| grace_ends(at("00:40"), HOUR / 6, lease);
    for (lease, wanted) in [
        (None, "00:50"),
        (Some("00:45"), "00:45"),
        (Some("01:00"), "00:50"),
    ] {
        assert_eq!(ends(lease.map(at)), at(wanted), "{lease:?}");
    }
    assert_eq!(grace_ends(at("00:40"), Duration::MAX, None), Timestamp::MAX);
}

#[test]
fn leased_values_are_due_whatever_the_interval_the_policy_and_the_windows_say() {
    let windows = denied_until("4h");
    let lease_due: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
    for (spec, interval) in [
        (json!({}), HOUR),
        (json!({}), Duration::ZERO),
        (json!({"refreshPolicy": "OnChange"}), HOUR),
        (json!({"refreshPolicy": "CreatedOnce"}), HOUR),
    ] {
        for windows in [None, Some(&windows)] {
            let object = object(spec.clone(), SYNCED);
            let mut known = at("2026-01-01T00:05:00Z", State::Intact);
            (known.lease_due, known.windows) = (Some(lease_due), windows);
            assert_eq!(need(&object, interval, &known), Need::At(lease_due), "{spec}");
            known.now = "2026-01-01T00:12:00Z".parse().unwrap();
            assert_eq!(need(&object, interval, &known), Need::Sync(lease_due), "{spec}");
        }
    }
}

#[test]
fn a_lease_puts_no_refresh_off_and_an_immutable_target_is_not_read_for_in_vain() {
    let mut known = at("2026-01-01T00:30:00Z", State::Intact);
    let own = need(&object(json!({}), SYNCED), HOUR, &known);
    known.lease_due = Some("2026-01-01T09:00:00Z".parse().unwrap());
    assert_eq!(need(&object(json!({}), SYNCED), HOUR, &known), own);
    known.lease_due = Some("2026-01-01T00:10:00Z".parse().unwrap());
    let frozen = object(json!({"target": {"immutable": true}}), SYNCED);
    assert_eq!(need(&frozen, HOUR, &known), own);
    // What was due before the lease is overdue since then.
    known.now = "2026-01-01T02:00:00Z".parse().unwrap();
    known.lease_due = Some("2026-01-01T01:30:00Z".parse().unwrap());
    let Need::Sync(since) = need(&object(json!({}), SYNCED), HOUR, &known) else {
        panic!("not due")
    };
    assert!(since <= "2026-01-01T01:00:00Z".parse().unwrap(), "{since}");
}

fn denied_until(end: &str) -> Windows {
    Windows::parse(&SyncWindows {
        kind: SyncWindowKind::Deny,
        windows: vec![SyncWindow {
            schedule: "0 0 * * *".into(),
            duration: end.into(),
        }],
    })
    .unwrap()
}

#[test]
fn a_store_that_changed_is_read_anew_by_what_is_refreshed_periodically_and_by_nothing_else() {
    let mut known = at("2026-01-01T00:10:00Z", State::Intact);
    known.store_changed = true;
    let synced = |spec| need(&object(spec, SYNCED), HOUR, &known);
    assert!(matches!(synced(json!({})), Need::Sync(_)));
    for policy in ["CreatedOnce", "OnChange"] {
        assert_eq!(
            synced(json!({"refreshPolicy": policy})),
            Need::Nothing,
            "{policy}"
        );
    }
}

#[test]
fn a_window_keeps_back_only_the_periodic_refresh_until_its_edge() {
    let windows = denied_until("4h");
    let object = object(json!({}), SYNCED);
    let mut known = at("2026-01-01T02:00:00Z", State::Intact);
    known.windows = Some(&windows);
    let edge = Need::At("2026-01-01T04:00:01Z".parse().unwrap());
    assert_eq!(need(&object, HOUR, &known), edge);
    // A refresh that failed before the window began waits too.
    known.pending = true;
    assert_eq!(need(&object, HOUR, &known), edge);
    known.version = "1-b";
    assert!(matches!(need(&object, HOUR, &known), Need::Sync(_)));
    known.version = "1-a";
    known.target = State::Harmed;
    assert!(matches!(need(&object, HOUR, &known), Need::Sync(_)));
}

#[test]
fn what_a_window_kept_back_is_overdue_only_when_it_may_be_done() {
    let windows = denied_until("4h");
    let mut known = at("2026-01-01T05:00:00Z", State::Intact);
    known.windows = Some(&windows);
    assert_eq!(
        need(&object(json!({}), SYNCED), HOUR, &known),
        Need::Sync(known.now)
    );
}

#[test]
fn a_new_object_waits_for_no_window() {
    let windows = denied_until("4h");
    let mut known = at("2026-01-01T02:00:00Z", State::Absent);
    known.windows = Some(&windows);
    assert!(matches!(
        need(&object(json!({}), None), HOUR, &known),
        Need::Sync(_)
    ));
}

#[test]
fn what_has_failed_waits_whoever_touches_its_target() {
    for target in [State::Intact, State::Harmed, State::Absent] {
        let mut known = at("2026-01-01T00:00:10Z", target);
        (known.pending, known.retry) = (true, Some(Duration::from_secs(5)));
        known.lease_due = Some("2026-01-01T00:00:00Z".parse().unwrap());
        let until = Need::At("2026-01-01T00:00:15Z".parse().unwrap());
        for synced in [SYNCED, None] {
            assert_eq!(
                need(&object(json!({}), synced), HOUR, &known),
                until,
                "{target:?}"
            );
        }
    }
}

#[test]
fn a_contested_target_waits_for_its_repair_and_for_nothing_else() {
    let held = |interval, time: &str, spec| {
        let mut known = at(time, State::Harmed);
        known.pause = Some(Duration::from_secs(64));
        known.pending = true;
        let waiting = need(&object(spec, SYNCED), interval, &known);
        known.version = "1-forced";
        let forced = need(&object(json!({}), SYNCED), interval, &known);
        assert!(matches!(forced, Need::Sync(_)), "{forced:?}");
        waiting
    };
    let until = |time: &str| Need::At(time.parse().unwrap());
    let (soon, later) = ("2026-01-01T00:00:10Z", "2026-01-01T01:00:10Z");
    let repaired = until("2026-01-01T00:01:14Z");
    assert_eq!(held(HOUR, soon, json!({})), repaired);
    assert_eq!(held(Duration::ZERO, soon, json!({})), repaired);
    assert_eq!(
        held(HOUR, soon, json!({"refreshPolicy": "CreatedOnce"})),
        repaired
    );
    assert!(matches!(held(HOUR, later, json!({})), Need::Sync(_)));
    let mut known = at(soon, State::Harmed);
    assert!(matches!(
        need(&object(json!({}), SYNCED), HOUR, &known),
        Need::Sync(_)
    ));
    known.target = State::Intact;
    known.pause = Some(Duration::from_secs(1));
    let untouched = need(&object(json!({}), SYNCED), HOUR, &known);
    assert!(
        matches!(untouched, Need::At(at) if at > "2026-01-01T00:10:00Z".parse().unwrap()),
        "{untouched:?}"
    );
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
fn a_template_that_changed_is_rendered_at_once_but_not_with_created_once() {
    for policy in ["Periodic", "OnChange", "CreatedOnce"] {
        let object = object(json!({"refreshPolicy": policy}), SYNCED);
        let mut known = at("2026-01-01T00:00:10Z", State::Intact);
        known.template_changed = true;
        let syncs = matches!(need(&object, HOUR, &known), Need::Sync(_));
        assert_eq!(syncs, policy != "CreatedOnce", "{policy}");
    }
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
fn objects_that_were_made_at_once_are_spread_over_the_whole_interval_and_none_waits_longer() {
    let minute = Duration::from_secs(60);
    let mut seconds = [0_u32; 60];
    for i in 0..600 {
        let mut object = object(json!({}), None);
        object.metadata.uid = Some(format!("uid-{i}"));
        let mut last: Timestamp = "2026-01-01T00:00:17.5Z".parse().unwrap();
        for round in 0..4 {
            let wait = wait(&object, minute, last);
            assert!(
                wait >= minute / EARLIEST && wait <= minute,
                "round {round}: {wait:?}"
            );
            assert!(round < 2 || wait == minute, "round {round}: {wait:?}");
            last += wait;
        }
        seconds[usize::try_from(last.as_second() % 60).unwrap()] += 1;
    }
    // Ten a second.
    assert!(seconds.iter().all(|count| *count < 30), "{seconds:?}");
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
    let cheap = |failures| backoff(failures, Duration::from_millis(1));
    assert!(cheap(1) <= Duration::from_secs(1));
    assert!(cheap(5) >= Duration::from_secs(12));
    assert!(cheap(u32::MAX) <= BACKOFF_MAX && cheap(u32::MAX) >= Duration::from_secs(200));
}

#[test]
fn failures_that_cost_much_are_not_tried_again_soon() {
    let first = backoff(1, Duration::from_millis(200));
    assert!(
        first >= Duration::from_secs(16) && first <= Duration::from_secs(20),
        "{first:?}"
    );
    assert!(backoff(1, Duration::from_secs(5)) >= Duration::from_secs(200));
    assert!(backoff(1, Duration::MAX) <= BACKOFF_MAX);
}

#[test]
fn what_is_kept_is_looked_at_each_refresh_and_every_ten_minutes_at_least() {
    let seconds = Duration::from_secs;
    for (interval, longest) in [
        (None, seconds(600)),
        (Some(HOUR), seconds(600)),
        (Some(seconds(60)), seconds(60)),
        (Some(Duration::from_nanos(1)), seconds(1)),
    ] {
        let wait = while_held(interval);
        assert!(wait >= longest / 2 && wait <= longest, "{interval:?}: {wait:?}");
    }
}
