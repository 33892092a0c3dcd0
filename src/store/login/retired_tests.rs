//! What becomes of tokens on which leases hang, against a server of a few lines.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::jiff::Timestamp;

use super::tests::{Seen, login, server, user_pass};
use super::*;
use crate::store::hold::Hold;
use crate::vault::leased::Terms;
use serde_json::{Value, json};

const HOUR: Duration = Duration::from_secs(3600);

/// A new token for each login, and a good word for the rest.
fn logins(seen: &Seen) -> (u16, Value) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let auth = json!({"client_token": format!("t{number}"), "lease_duration": 60, "renewable": true});
    match seen.path.as_str() {
        "/v1/auth/token/lookup-self" => (200, json!({"data": {"ttl": 60, "renewable": true}})),
        _ => (200, json!({"auth": auth})),
    }
}

/// The same, where tokens are dead as soon as another one is asked for.
fn dead(seen: &Seen) -> (u16, Value) {
    match seen.path.as_str() {
        "/v1/auth/token/lookup-self" => (403, json!({"errors": ["permission denied", "invalid token"]})),
        _ => logins(seen),
    }
}

/// The same, where no renewal brings more than most of a life.
fn capped(seen: &Seen) -> (u16, Value) {
    match seen.path.as_str() {
        "/v1/auth/token/renew-self" => (
            200,
            json!({"auth": {"client_token": "t", "lease_duration": 40, "renewable": true}}),
        ),
        _ => logins(seen),
    }
}

fn denied(phrase: &'static str) -> VaultError {
    VaultError::Denied { phrase: Some(phrase) }
}

/// A lease of a moment or of an hour, as a read brings it.
async fn leased(login: &Login, lasts: Duration) -> Hold {
    login
        .token()
        .await
        .unwrap()
        .lease(Terms { lasts }, Timestamp::now())
}

/// How often each of these was asked of the server.
fn asked(seen: &std::sync::Mutex<Vec<Seen>>, what: &str) -> usize {
    let seen = seen.lock().unwrap();
    seen.iter().filter(|request| request.path.ends_with(what)).count()
}

async fn held(login: &Login) -> Token {
    login
        .state
        .lock()
        .await
        .held
        .as_ref()
        .unwrap()
        .lease
        .token
        .clone()
}

async fn retired(login: &Login) -> usize {
    login.state.lock().await.retired.len()
}

#[tokio::test]
async fn a_token_under_which_a_lease_was_given_is_not_revoked_at_shutdown_and_another_is() {
    for (lasts, revoked) in [(HOUR, 0), (Duration::ZERO, 1)] {
        let (url, seen) = server(logins).await;
        let login = login(&url, &user_pass(), &[("apps/s/p", "pw")]);
        let hold = leased(&login, lasts).await;
        login.close().await;
        assert_eq!(asked(&seen, "revoke-self"), revoked);
        drop(hold);
    }
}

#[tokio::test]
async fn a_403_that_a_new_login_does_not_cure_leaves_the_token_of_the_leases_where_it_is() {
    let (url, seen) = server(logins).await;
    let login = login(&url, &user_pass(), &[("apps/s/p", "pw")]);
    let hold = leased(&login, HOUR).await;
    let old = held(&login).await;
    let new = login
        .after_403(1, &denied("permission denied"))
        .await
        .unwrap()
        .unwrap();
    assert!(held(&login).await != old);
    let serial = new.serial;
    drop(new);
    login.not_helped(serial).await;
    assert!(held(&login).await == old, "the token was replaced for nothing");
    assert_eq!(
        (
            asked(&seen, "revoke-self"),
            retired(&login).await,
            hold.tenure.ends()
        ),
        (1, 0, None)
    );
}

#[tokio::test]
async fn a_token_that_was_replaced_is_revoked_only_when_its_last_lease_has_gone() {
    let (url, seen) = server(logins).await;
    let login = login(&url, &user_pass(), &[("apps/s/p", "pw")]);
    let hold = leased(&login, Duration::from_millis(300)).await;
    drop(login.after_403(1, &denied("permission denied")).await.unwrap());
    login.keep().await;
    // Kept also when its lease has ended, while a target holds the values.
    tokio::time::sleep(Duration::from_millis(400)).await;
    login.keep().await;
    assert_eq!((asked(&seen, "revoke-self"), retired(&login).await), (0, 1));
    assert!(!login.is_due());
    drop(hold);
    assert!(login.is_due());
    login.keep().await;
    assert_eq!((asked(&seen, "revoke-self"), retired(&login).await), (1, 0));
}

#[tokio::test]
async fn a_token_that_was_replaced_is_renewed_while_its_leases_are_held_and_no_longer() {
    let (url, seen) = server(logins).await;
    let login = login(&url, &user_pass(), &[("apps/s/p", "pw")]);
    let hold = leased(&login, HOUR).await;
    drop(login.after_403(1, &denied("permission denied")).await.unwrap());
    let age = async || login.state.lock().await.retired[0].held.renew_at = Some(Instant::now());
    age().await;
    assert!(login.is_due());
    login.keep().await;
    assert_eq!(asked(&seen, "renew-self"), 1);
    assert!(!login.is_due());
    age().await;
    drop(hold);
    login.keep().await;
    assert_eq!((asked(&seen, "renew-self"), retired(&login).await), (1, 1));
}

#[tokio::test]
async fn a_renewal_that_brings_less_tells_the_leases_when_their_token_ends_and_matters_to_no_other_token() {
    let (url, seen) = server(capped).await;
    let login = login(&url, &user_pass(), &[("apps/s/p", "pw")]);
    let hold = leased(&login, HOUR).await;
    login.renew().await.unwrap();
    let left = hold.tenure.ends().unwrap().duration_since(Timestamp::now());
    assert!((38..=40).contains(&left.as_secs()), "{left}");
    assert_eq!((asked(&seen, "revoke-self"), retired(&login).await), (0, 1));
    login.renew().await.unwrap();
    assert_eq!((asked(&seen, "login/alice"), retired(&login).await), (2, 1));
}

#[tokio::test]
async fn leases_of_a_token_that_is_dead_are_known_to_have_ended() {
    // Vault says it, or a look at the token does.
    for phrase in ["invalid token", "permission denied"] {
        let (url, _seen) = server(dead).await;
        let login = login(&url, &user_pass(), &[("apps/s/p", "pw")]);
        let hold = leased(&login, HOUR).await;
        let pass = login.after_403(1, &denied(phrase)).await.unwrap().unwrap();
        login.not_helped(pass.serial).await;
        let ends = hold.tenure.ends().unwrap();
        assert!(ends <= Timestamp::now(), "{phrase}");
        assert_eq!(retired(&login).await, 0);
    }
}

#[tokio::test]
async fn of_tokens_that_are_kept_for_leases_there_are_few_and_the_oldest_is_left_to_its_end() {
    let (url, seen) = server(logins).await;
    let login = login(&url, &user_pass(), &[("apps/s/p", "pw")]);
    let mut holds = Vec::new();
    for _ in 0..10 {
        holds.push(leased(&login, HOUR).await);
        let mut state = login.state.lock().await;
        state.relogin_pause = Duration::ZERO;
        let serial = state.serial;
        drop(state);
        drop(
            login
                .after_403(serial, &denied("permission denied"))
                .await
                .unwrap(),
        );
    }
    assert_eq!((asked(&seen, "revoke-self"), retired(&login).await), (0, 8));
    let known: Vec<bool> = holds.iter().map(|hold| hold.tenure.ends().is_some()).collect();
    assert_eq!(known, [[true; 2].as_slice(), &[false; 8]].concat());
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_tells_its_leases_from_the_first_when_it_ends() {
    let batch = |seen: &Seen| match seen.path.as_str() {
        "/v1/auth/userpass/login/alice" => (
            200,
            json!({"auth": {"client_token": "b", "lease_duration": 60, "token_type": "batch"}}),
        ),
        _ => (500, Value::Null),
    };
    let (url, _) = server(batch).await;
    let login = login(&url, &user_pass(), &[("apps/s/p", "pw")]);
    let hold = leased(&login, HOUR).await;
    let left = hold.ends_at_last().duration_since(Timestamp::now());
    assert!(left.as_secs() <= 60, "{left}");
}
