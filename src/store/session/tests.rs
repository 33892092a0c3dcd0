//! What is shared among readers, and what is not, against a server of a few lines.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::join_all;
use serde_json::{Value, json};

use super::*;
use crate::api::vault::KvVersion;
use crate::store::login::tests::{Answer, Seen, connection_of, login, server, user_pass};
use crate::vault::kv::Kv;

/// A credential for each read of `creds`, and what everybody may share below `kv`.
fn engine(seen: &Seen) -> (u16, Value) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    match seen.path.as_str() {
        "/v1/database/creds/app" => {
            let lease = format!("database/creds/app/{number}");
            (
                200,
                json!({"lease_id": lease, "lease_duration": 3600, "renewable": true, "data": {"user": lease}}),
            )
        }
        "/v1/database/kv" => (
            200,
            json!({"lease_id": "", "lease_duration": 2_764_800, "data": {"user": number}}),
        ),
        _ => (
            200,
            json!({"auth": {"client_token": "t", "lease_duration": 60, "renewable": true}}),
        ),
    }
}

async fn session(answer: Answer) -> (Arc<Session>, Arc<Mutex<Vec<Seen>>>) {
    let (url, seen) = server(answer).await;
    let login = login(&url, &user_pass(), &[("apps/s/p", "pw")]);
    let connection = connection_of(&login);
    (Session::new(connection, login, Retries::default()), seen)
}

fn path(key: &str) -> SecretPath {
    let (mount, version) = (Some("database".into()), KvVersion::V1);
    Kv { mount, version }.locate(key).unwrap()
}

/// The values that so many get who ask for a path at one time, and how many of them hold a lease.
async fn ask_at_once(session: &Arc<Session>, key: &str, readers: usize) -> (BTreeSet<String>, usize) {
    let who = Arc::from("n");
    let asked = (0..readers).map(|_| session.ask(&who, path(key), Question::Value(None)));
    let mut values = BTreeSet::new();
    let mut leased = 0;
    for answered in join_all(asked).await {
        let answered = answered.unwrap();
        leased += usize::from(answered.hold.is_some());
        if let KvAnswer::Found(json) = answered.answer {
            values.insert(json.to_go_string());
        }
    }
    (values, leased)
}

#[tokio::test]
async fn readers_of_one_path_at_one_time_get_a_lease_each_also_before_it_is_known_that_it_leases() {
    let (session, seen) = session(engine).await;
    for round in 1..=2 {
        let (values, leased) = ask_at_once(&session, "creds/app", 8).await;
        assert_eq!((values.len(), leased), (8, 8), "round {round}");
    }
    let reads = |path: &str| {
        seen.lock()
            .unwrap()
            .iter()
            .filter(|seen| seen.path == path)
            .count()
    };
    assert_eq!(reads("/v1/database/creds/app"), 16);
    let (values, leased) = ask_at_once(&session, "kv", 8).await;
    assert_eq!((values.len(), leased), (1, 0));
    assert_eq!(reads("/v1/database/kv"), 1);
}

#[tokio::test]
async fn a_lease_whose_reader_went_away_is_the_next_ones() {
    let (session, seen) = session(engine).await;
    let (gone, _) = oneshot::channel();
    let (next, receiver) = oneshot::channel();
    let key = ReadKey {
        path: path("creds/app"),
        question: Question::Value(None),
    };
    let who = Arc::from("n");
    let place = session.connection.place(&who, &lane_of(&key)).await;
    let answer = session.request(&key, &place).await;
    session.hand_out(&who, &key, vec![gone, next], answer);
    assert!(receiver.await.unwrap().unwrap().hold.is_some());
    assert_eq!(seen.lock().unwrap().len(), 2, "a login and a read");
}

#[tokio::test]
async fn a_path_that_leases_no_more_is_shared_again() {
    let (session, _seen) = session(engine).await;
    let key = ReadKey {
        path: path("kv"),
        question: Question::Value(None),
    };
    session.leasing().insert(key);
    ask_at_once(&session, "kv", 1).await;
    assert!(session.leasing().is_empty());
}

/// A text of so many bytes as the path says.
fn texts(seen: &Seen) -> (u16, Value) {
    match seen.path.strip_prefix("/v1/database/") {
        Some(bytes) => (200, json!({"data": {"v": "x".repeat(bytes.parse().unwrap())}})),
        None => engine(seen),
    }
}

#[tokio::test]
async fn a_large_answer_is_asked_for_again_with_room_for_it_and_at_once_the_next_time() {
    let (session, seen) = session(texts).await;
    let read = async |bytes: &str| {
        let before = seen.lock().unwrap().len();
        let answer = session.ask(&"n".into(), path(bytes), Question::Value(None)).await;
        (answer.map(drop), seen.lock().unwrap().len() - before)
    };
    read("1").await.0.unwrap();
    for (bytes, first) in [("1000", 1), ("100000", 2), ("1000000", 2), ("3000000", 3)] {
        assert_eq!(read(bytes).await, (Ok(()), first), "{bytes}");
        assert_eq!(read(bytes).await, (Ok(()), 1), "{bytes}");
    }
    let (told, asked) = read("9000000").await;
    assert_eq!(
        (told.unwrap_err(), asked),
        (ReadError::Vault(VaultError::Larger(LARGEST)), 3)
    );
}
