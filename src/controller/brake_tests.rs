#![allow(clippy::unwrap_used)]

use super::*;
use crate::api::external_secret::StoreKind;
use crate::controller::outcome;
use serde_json::json;

const TEN: Setting = Setting::Limit { share: 25, count: 10 };

#[test]
fn a_target_goes_unless_too_many_of_its_store_would_go_or_some_are_kept() {
    let facts = |gone, targets| Facts {
        gone,
        targets,
        ..Facts::default()
    };
    let kept = Facts {
        held: true,
        ..facts(0, 1000)
    };
    let limit = |share, count| Setting::Limit { share, count };
    for (setting, facts, holds) in [
        // Up to the count, whatever the share, and up to the share, whatever the count.
        (TEN, facts(0, 1), false),
        (TEN, facts(9, 10), false),
        (TEN, facts(10, 11), true),
        (TEN, facts(10, 43), true),
        (TEN, facts(10, 44), false),
        (TEN, facts(24, 100), false),
        (TEN, facts(25, 100), true),
        (TEN, facts(2_499, 10_000), false),
        (TEN, facts(2_500, 10_000), true),
        (limit(0, 0), facts(0, 1000), true),
        (limit(0, 3), facts(2, 1000), false),
        (limit(0, 3), facts(3, 1000), true),
        (limit(100, 0), facts(999, 1000), false),
        (limit(100, usize::MAX), facts(usize::MAX, 0), false),
        (Setting::Off, facts(9_999, 10_000), false),
        // While one is kept, so is every other.
        (TEN, kept, true),
        (Setting::Off, kept, false),
        (
            TEN,
            Facts {
                released: true,
                ..kept
            },
            false,
        ),
        (TEN, Facts { let_go: true, ..kept }, false),
        (
            TEN,
            Facts {
                released: true,
                ..facts(10, 11)
            },
            false,
        ),
        (
            TEN,
            Facts {
                let_go: true,
                ..facts(10, 11)
            },
            false,
        ),
    ] {
        assert_eq!(setting.holds(facts), holds, "{setting} {facts:?}");
    }
}

#[test]
fn a_setting_is_a_share_and_a_count_or_off() {
    for text in ["off", "25%,10", "0%,0", "100%,1000000"] {
        assert_eq!(text.parse::<Setting>().unwrap().to_string(), text);
    }
    for text in [
        "", "on", "25,10", "25%", "10", "25%, 10", "101%,10", "-1%,10", "25%,-1", "2.5%,10", "+5%,+1", "%,",
        "25%,10,",
    ] {
        assert!(text.parse::<Setting>().is_err(), "{text:?}");
    }
}

#[test]
fn a_release_is_in_force_until_its_time_and_for_a_day_at_most() {
    let now: Timestamp = "2026-12-01T12:00:00Z".parse().unwrap();
    for (until, released) in [
        (Some("2026-12-01T12:00:01Z"), true),
        (Some(" 2026-12-01T14:00:00+01:00\n"), true),
        (Some("2026-12-02T12:00:00Z"), true),
        (Some("2026-12-02T12:00:01Z"), false),
        (Some("9999-01-01T00:00:00Z"), false),
        (Some("2026-12-01T12:00:00Z"), false),
        (Some("2026-12-01T11:00:00Z"), false),
        (Some("true"), false),
        (Some(""), false),
        (None, false),
    ] {
        assert_eq!(is_released(until, now), released, "{until:?}");
    }
}

fn store(name: &str) -> StoreKey {
    StoreKey {
        kind: StoreKind::ClusterSecretStore,
        namespace: None,
        name: name.into(),
    }
}

fn key(number: usize) -> ObjectKey {
    ObjectKey::new("n", &number.to_string())
}

fn object(number: usize, reason: &str) -> ExternalSecret {
    serde_json::from_value(json!({
        "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
        "metadata": {"namespace": "n", "name": number.to_string()}, "spec": {},
        "status": {
            "refreshTime": "2026-12-01T12:00:00Z",
            "conditions": [{"type": "Ready", "status": "True", "reason": reason}],
        },
    }))
    .unwrap()
}

/// Objects 0 to this of a store, all of which have a target and these of which are kept, as their conditions say.
fn users(count: usize, held: std::ops::Range<usize>) -> impl Fn(&StoreKey) -> Vec<User> {
    move |_| {
        let reason = |number| {
            if held.contains(&number) {
                DELETION_HELD
            } else {
                "SecretSynced"
            }
        };
        let users = (0..count).map(|number| User::of(key(number), &object(number, reason(number))));
        users.collect()
    }
}

/// Of these objects, those that may go.
fn going(
    brake: &Brake,
    numbers: impl IntoIterator<Item = usize>,
    now: Instant,
    users: &impl Fn(&StoreKey) -> Vec<User>,
) -> Vec<usize> {
    let stores = [(store("a"), false)];
    let asked = numbers.into_iter();
    asked
        .filter(|number| brake.ask(&key(*number), &stores, false, now, users).is_ok())
        .collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<usize> {
    range.collect()
}

#[test]
fn what_is_kept_does_not_trickle_away_with_the_windows() {
    let (brake, users, mut now) = (Brake::new(TEN), users(30, 0..0), Instant::now());
    assert_eq!(going(&brake, 0..30, now, &users), numbers(0..10));
    for _ in 0..5 {
        now += WINDOW;
        assert_eq!(going(&brake, 10..30, now, &users), numbers(0..0));
    }
    assert_eq!(brake.held(&store("a")).len(), 20);
    // The values of all are found again: a single secret that is gone later is nothing to stop for.
    (10..30).for_each(|number| brake.free(&key(number)));
    assert_eq!(going(&brake, [10], now, &users), [10]);
}

#[test]
fn deletions_count_for_five_minutes_and_one_target_counts_once() {
    let (brake, users, begin) = (Brake::new(TEN), users(30, 0..0), Instant::now());
    for round in 0..3 {
        let now = begin + Duration::from_secs(round);
        assert_eq!(going(&brake, 0..10, now, &users), numbers(0..10));
    }
    let later = begin + WINDOW + Duration::from_secs(3);
    assert_eq!(going(&brake, 10..20, later, &users), numbers(10..20));
    assert_eq!(going(&brake, 20..30, later, &users), numbers(0..0));
}

#[test]
fn what_a_condition_says_is_kept_stays_so_after_a_restart() {
    let (users, now) = (users(30, 10..30), Instant::now());
    let brake = Brake::new(TEN);
    // Also one that was not kept before: something is wrong with its store.
    assert_eq!(going(&brake, [5], now, &users), numbers(0..0));
    let stores = [(store("b"), false)];
    let nobody = |_: &StoreKey| Vec::new();
    assert!(brake.ask(&key(10), &stores, true, now, nobody).is_err());
}

#[test]
fn a_release_lets_go_what_it_is_for_and_counts_for_nothing() {
    let (brake, users, now) = (Brake::new(TEN), users(40, 0..0), Instant::now());
    let released = [(store("a"), true)];
    let ask = |number| brake.ask(&key(number), &released, true, now, &users);
    assert!((0..10).all(|number| ask(number).is_ok()));
    assert_eq!(going(&brake, 10..30, now, &users), numbers(10..20));
    assert_eq!(brake.held(&store("a")).len(), 10);
    assert!(ask(25).is_ok());
    assert_eq!(brake.held(&store("a")).len(), 9);
    assert_eq!(going(&brake, [30], now, &users), numbers(0..0));
}

#[test]
fn an_object_of_two_stores_is_kept_for_the_one_that_loses_too_much() {
    let (brake, users, now) = (Brake::new(TEN), users(30, 0..0), Instant::now());
    assert_eq!(going(&brake, 0..11, now, &users), numbers(0..10));
    let both = [(store("b"), false), (store("a"), false)];
    assert_eq!(brake.ask(&key(20), &both, false, now, &users), Err(store("a")));
    // It did not go, and so it counts for neither.
    let stores = [(store("b"), false)];
    let gone = (0..15).filter(|number| brake.ask(&key(*number), &stores, false, now, &users).is_ok());
    assert_eq!(gone.count(), 10);
}

#[test]
fn the_share_is_of_targets_that_are_there_or_went_within_the_window() {
    let now = Instant::now();
    let mostly_gone = |_: &StoreKey| -> Vec<User> {
        let reason = |number| {
            if number < 40 {
                "SecretSynced"
            } else {
                "SecretDeleted"
            }
        };
        let users = (0..1000).map(|number| User::of(key(number), &object(number, reason(number))));
        users.collect()
    };
    let brake = Brake::new(TEN);
    assert_eq!(going(&brake, 0..40, now, &mostly_gone), numbers(0..10));
    // Those that went stay counted when the users are looked through again.
    let brake = Brake::new(TEN);
    assert_eq!(going(&brake, [0], now, &users(60, 0..0)), [0]);
    let later = now + WINDOW - Duration::from_secs(1);
    assert_eq!(going(&brake, 1..5, later, &users(60, 0..0)), numbers(1..5));
    let rest = |_: &StoreKey| {
        (5..60)
            .map(|number| User::of(key(number), &object(number, "")))
            .collect()
    };
    let later = now + WINDOW;
    assert_eq!(going(&brake, 5..60, later, &rest), numbers(5..14));
}

#[test]
fn the_memory_ends_with_what_it_is_about() {
    let (brake, users, now) = (Brake::new(TEN), users(30, 0..0), Instant::now());
    going(&brake, 0..30, now, &users);
    assert_eq!(brake.entries(), 31);
    (0..30).for_each(|number| brake.forget(&key(number)));
    let stores = [(store("b"), false)];
    assert!(brake.ask(&key(0), &stores, false, now, &users).is_ok());
    assert_eq!(brake.entries(), 2);
    let brake = Brake::new(Setting::Off);
    assert_eq!(going(&brake, 0..30, now, &users).len(), 30);
    assert_eq!(brake.entries(), 0);
}

#[test]
fn what_is_kept_says_so_whatever_fails_meanwhile_and_is_tried_again_after_a_restart() {
    for (is, told, failed) in [
        ("DeletionHeld", "DeletionHeld", true),
        ("SecretSyncedError", "SecretSyncedError", true),
        ("SecretSynced", "SecretSyncedError", false),
    ] {
        let mut object = object(0, is);
        for condition in object.status.iter_mut().flat_map(|status| &mut status.conditions) {
            condition.status = "False".into();
        }
        assert_eq!(outcome::error_reason(&object), told);
        assert_eq!(outcome::has_failed(&object), failed, "{is}");
    }
}
