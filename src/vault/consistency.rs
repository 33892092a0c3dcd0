//! Reading what was written, in a cluster whose standbys answer by themselves (Vault Enterprise): an answer shows
//! the state of the storage that it saw, and a later request asks for one that is no older. A node that is behind
//! answers 412.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

const INDEX: HeaderName = HeaderName::from_static("x-vault-index");
const INCONSISTENT: HeaderName = HeaderName::from_static("x-vault-inconsistent");
/// Of the error that Vault answers if it does not forward.
const REFUSAL: &[u8] = b"forwarding via header X-Vault-Inconsistent";
/// States of one cluster of which none is the newest are two at most: one for each kind of storage.
const STATES_MAX: usize = 2;

/// What a store asks of a cluster whose nodes may be behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// Nothing.
    #[default]
    Eventual,
    /// `readYourWrites`: no answer older than one that was seen; a node that is behind answers 412.
    ReadYourWrites,
    /// `forwardInconsistent`: the same, and a node that is behind asks the active one.
    Forwarded,
}

/// The states that the answers of one server showed.
#[derive(Default)]
pub struct States {
    seen: Mutex<Vec<HeaderValue>>,
    /// Set once the server has said that it forwards nothing.
    unforwarded: AtomicBool,
}

/// `v1:<cluster>:<local index>:<replicated index>:<hmac>`, in base64.
#[derive(PartialEq, Eq)]
struct State {
    cluster: String,
    local: u64,
    replicated: u64,
}

impl State {
    fn parse(header: &HeaderValue) -> Option<Self> {
        let text = String::from_utf8(STANDARD.decode(header.as_bytes()).ok()?).ok()?;
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            ["v1", cluster, local, replicated, _hmac] if !cluster.is_empty() => Some(Self {
                cluster: (*cluster).into(),
                local: local.parse().ok()?,
                replicated: replicated.parse().ok()?,
            }),
            _ => None,
        }
    }

    /// Whether this state has all that the other has.
    fn covers(&self, other: &Self) -> bool {
        self.local >= other.local && self.replicated >= other.replicated
    }
}

impl States {
    /// Adds to a request what the store asks for.
    pub(super) fn require(&self, consistency: Consistency, headers: &mut HeaderMap) {
        if consistency == Consistency::Eventual {
            return;
        }
        for state in self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            headers.append(INDEX, state.clone());
        }
        if consistency == Consistency::Forwarded && !self.unforwarded.load(Ordering::Relaxed) {
            headers.insert(INCONSISTENT, HeaderValue::from_static("forward-active-node"));
        }
    }

    /// Whether the server refused a request only because it does not forward (`allow_forwarding_via_header` in its
    /// configuration), so that it is worth asking without that. It costs time, not truth: a node that is behind is
    /// asked again.
    pub(super) fn forwarding_refused(&self, consistency: Consistency, status: u16, body: &[u8]) -> bool {
        consistency == Consistency::Forwarded
            && status == 400
            && body.windows(REFUSAL.len()).any(|window| window == REFUSAL)
            && !self.unforwarded.swap(true, Ordering::Relaxed)
    }

    /// Takes note of the state that an answer showed.
    pub(super) fn remember(&self, consistency: Consistency, headers: &HeaderMap) {
        if consistency != Consistency::Eventual
            && let Some(new) = headers.get(INDEX)
        {
            merge(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner), new);
        }
    }
}

/// Keeps the newest states of one cluster, by the rule of Vault's own client: what cannot be compared (another
/// cluster, another form) takes the place of all.
fn merge(states: &mut Vec<HeaderValue>, new: &HeaderValue) {
    let known: Option<Vec<State>> = states.iter().map(State::parse).collect();
    let compared = State::parse(new).zip(known);
    let Some((newest, known)) =
        compared.filter(|(newest, known)| known.iter().all(|state| state.cluster == newest.cluster))
    else {
        *states = vec![new.clone()];
        return;
    };
    if known.iter().any(|state| state.covers(&newest)) {
        return;
    }
    let mut known = known.iter();
    states.retain(|_| known.next().is_some_and(|state| !newest.covers(state)));
    if states.len() >= STATES_MAX {
        states.clear();
    }
    states.push(new.clone());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn index(cluster: &str, local: u64, replicated: u64) -> HeaderValue {
        let text = STANDARD.encode(format!("v1:{cluster}:{local}:{replicated}:0a0b"));
        HeaderValue::from_str(&text).unwrap()
    }

    fn after(answers: &[&HeaderValue]) -> Vec<HeaderValue> {
        let mut states = Vec::new();
        for answer in answers {
            merge(&mut states, answer);
        }
        states
    }

    #[test]
    fn the_newest_state_of_a_cluster_is_kept_whatever_the_order_of_answers() {
        let (old, new) = (&index("a", 1, 1), &index("a", 2, 1));
        assert_eq!(after(&[old, new]), [new]);
        assert_eq!(after(&[new, old]), [new]);
        assert_eq!(after(&[new, new]), [new]);
    }

    #[test]
    fn two_states_of_which_none_is_newer_are_both_required_until_one_is_newer_than_both() {
        let (local, replicated, both) = (&index("a", 5, 1), &index("a", 1, 5), &index("a", 5, 5));
        assert_eq!(after(&[local, replicated]), [local, replicated]);
        assert_eq!(after(&[local, replicated, both]), [both]);
        // A third one would let the list grow.
        let third = &index("a", 3, 3);
        assert_eq!(after(&[local, replicated, third]), [third]);
    }

    #[test]
    fn a_state_of_another_cluster_or_of_an_unknown_form_takes_the_place_of_all() {
        let (here, there) = (&index("a", 9, 9), &index("b", 1, 1));
        assert_eq!(after(&[here, there]), [there]);
        for odd in ["", "????", "djI6YToxOjE6MGE=", "v1:a:1:1:0a"] {
            let odd = &HeaderValue::from_str(odd).unwrap();
            assert_eq!(after(&[here, odd]), [odd], "{odd:?}");
            assert_eq!(after(&[odd, here]), [here]);
        }
    }

    #[test]
    fn a_server_that_does_not_forward_is_no_longer_asked_to() {
        use Consistency::{Forwarded, ReadYourWrites};
        let body = br#"{"errors":["forwarding via header X-Vault-Inconsistent=forward-active-node disabled in configuration"]}"#;
        let states = States::default();
        assert!(!states.forwarding_refused(ReadYourWrites, 400, body));
        assert!(!states.forwarding_refused(Forwarded, 400, b"{}"));
        assert!(!states.forwarding_refused(Forwarded, 500, body));
        assert!(states.forwarding_refused(Forwarded, 400, body));
        let mut headers = HeaderMap::new();
        states.require(Forwarded, &mut headers);
        assert!(headers.is_empty());
        assert!(!states.forwarding_refused(Forwarded, 400, body), "once is enough");
    }

    #[test]
    fn a_store_that_does_not_ask_for_it_neither_sends_nor_remembers_states() {
        let mut answer = HeaderMap::new();
        answer.insert(INDEX, index("a", 1, 1));
        let sent = |seen: Consistency, asked: Consistency| {
            let states = States::default();
            states.remember(seen, &answer);
            let mut headers = HeaderMap::new();
            states.require(asked, &mut headers);
            (headers.contains_key(INDEX), headers.contains_key(INCONSISTENT))
        };
        use Consistency::{Eventual, Forwarded, ReadYourWrites};
        assert_eq!(sent(Eventual, ReadYourWrites), (false, false));
        assert_eq!(sent(ReadYourWrites, Eventual), (false, false));
        assert_eq!(sent(ReadYourWrites, ReadYourWrites), (true, false));
        assert_eq!(sent(Forwarded, Forwarded), (true, true));
    }
}
