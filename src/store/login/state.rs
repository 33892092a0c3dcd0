//! What is known of a token at a moment, and of the last login that was refused.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::{Fault, Refusal};
use crate::store::hold::{Hold, Tenure};
use crate::vault::auth::Lease;
use crate::vault::leased::Terms;
use crate::vault::transport::Token;

/// A refused login is tried again after this long, doubling up to [`REFUSED_MAX`].
const REFUSED_FIRST: Duration = Duration::from_secs(30);
const REFUSED_MAX: Duration = Duration::from_secs(300);
/// A login that failed by no fault of the identity is tried again after this long, doubling up to [`FAILING_MAX`].
const FAILING_FIRST: Duration = Duration::from_secs(5);
const FAILING_MAX: Duration = Duration::from_secs(60);
/// A login without a fit proof is tried again after this long, doubling to [`REFUSED_MAX`]. Soon at first, because an
/// API server that has just started refuses what it will allow; Vault hears nothing of it.
const UNFIT_FIRST: Duration = Duration::from_secs(2);
/// A login for which the API server did not give the proof is tried again after this long, doubling up to
/// [`UNPROVEN_MAX`]: Vault is not asked for it.
const UNPROVEN_FIRST: Duration = Duration::from_secs(1);
const UNPROVEN_MAX: Duration = Duration::from_secs(15);
/// Tokens that were replaced and are kept for the leases that hang on them. One more, and the oldest is left to its end.
const RETIRED_MAX: usize = 8;
/// After a few wrong passwords. Vault locks an account out at the fifth, and forgets them all 15 minutes after the
/// last one.
const REFUSED_LOCKING: Duration = Duration::from_secs(16 * 60);

/// The token's state.
#[derive(Default)]
pub(super) struct State {
    pub(super) held: Option<Held>,
    /// Counts logins, so that one dead token is replaced once however many readers saw it die.
    pub(super) serial: u64,
    /// The last login, if it was refused; a token of an earlier one may still live.
    pub(super) refused: Option<Refused>,
    /// Whether those who look after stores know that there is no token.
    pub(super) denied: bool,
    pub(super) relogin_at: Option<Instant>,
    pub(super) relogin_pause: Duration,
    /// Tokens that were replaced while leases hung on them.
    pub(super) retired: Vec<Retired>,
}

/// A token that is at hand. Whoever drops it renews it no more, and those who hold leases of it are told so.
pub(super) struct Held {
    pub(super) lease: Lease,
    pub(super) tenure: Arc<Tenure>,
    pub(super) ends: Option<Instant>,
    /// When to renew or replace it, at two thirds of its life; `None` if nothing is left to try.
    pub(super) renew_at: Option<Instant>,
    /// Whether Vault forbids it to look at itself, once that was asked.
    pub(super) blind: Option<bool>,
}

/// A token that was replaced.
pub(super) struct Retired {
    pub(super) held: Held,
    /// The number of the login that replaced it.
    pub(super) by: u64,
}

/// A token for one request, and what a lease that the answer brings hangs on.
pub struct Pass {
    /// The token.
    pub token: Token,
    /// The number of its login.
    pub serial: u64,
    tenure: Arc<Tenure>,
    ends: Option<Instant>,
}

impl Pass {
    /// The request was sent then, and its answer brought a lease.
    #[must_use]
    pub fn lease(self, terms: Terms, sent: Timestamp) -> Hold {
        let left = self
            .ends
            .map(|ends| ends.saturating_duration_since(Instant::now()));
        let ends = left.map(|left| Timestamp::now().checked_add(left).unwrap_or(Timestamp::MAX));
        self.tenure.lease(terms, sent, ends)
    }
}

/// A refused login. Until it is tried again everybody gets the same answer.
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) retry: Instant,
    pub(super) pause: Duration,
}

impl Held {
    pub(super) fn new(lease: Lease) -> Self {
        let mut held = Self {
            lease,
            tenure: Arc::default(),
            ends: None,
            renew_at: None,
            blind: None,
        };
        held.begin();
        held
    }

    /// Its life begins.
    fn begin(&mut self) {
        let now = Instant::now();
        // A life beyond what a clock can say has no end.
        self.ends = self.lease.ttl.and_then(|ttl| now.checked_add(ttl));
        self.renew_at = self.lease.ttl.and_then(|ttl| now.checked_add(ttl / 3 * 2));
        self.tenure.keep();
        if !self.lease.renewable {
            self.tenure.let_go(self.ends);
        }
    }

    /// It was renewed, with a life that is worth having.
    pub(super) fn renewed(&mut self, lease: Lease) {
        let revocable = self.lease.revocable;
        self.lease = Lease { revocable, ..lease };
        self.begin();
    }

    /// The life that a renewal must bring. One that brings less than was asked for was the last: where leases hang on
    /// the token, they need the time that is left.
    pub(super) fn worth_having(&self) -> Option<Duration> {
        let part = if self.tenure.is_leased() { 0.9 } else { 0.5 };
        self.lease.ttl.map(|ttl| ttl.mul_f64(part))
    }

    /// It was renewed for the last time, to live for so long.
    pub(super) fn capped(&mut self, ttl: Option<Duration>) {
        self.ends = ttl.and_then(|ttl| Instant::now().checked_add(ttl));
        self.lease.renewable = false;
        self.tenure.let_go(self.ends);
    }

    /// Whether somebody asks by it, or keeps values of a lease that was given by it.
    pub(super) fn is_used(&self) -> bool {
        Arc::strong_count(&self.tenure) > 1
    }

    /// Whether nobody needs it any more. Those who read a leased value before its target was read anew go on with it
    /// until its lease ends.
    pub(super) fn is_needless(&self) -> bool {
        !self.is_used() && !self.tenure.is_leased()
    }

    pub(super) fn is_alive(&self) -> bool {
        self.ends.is_none_or(|ends| ends > Instant::now()) && self.lease.uses != Some(0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.tenure.let_go(self.ends);
    }
}

impl State {
    /// Keeps a token that was replaced as long as leases hang on it. Gives it back if nobody needs it.
    pub(super) fn retire(&mut self, old: Option<Held>) -> Option<Held> {
        let old = old?;
        if old.is_needless() {
            return Some(old);
        }
        let by = self.serial;
        self.retired.push(Retired { held: old, by });
        if self.retired.len() > RETIRED_MAX {
            self.retired.remove(0);
        }
        None
    }

    /// The token that this login replaced, if leases hang on it.
    pub(super) fn replaced_by(&mut self, serial: u64) -> Option<Held> {
        let mut retired = self.retired.iter();
        let at = retired.position(|old| old.by == serial && old.held.tenure.is_leased())?;
        Some(self.retired.remove(at).held)
    }

    /// Whether one of the tokens that were replaced must be renewed, or is to go.
    pub(super) fn retired_due(&self) -> bool {
        let now = Instant::now();
        let due =
            |held: &Held| held.lease.renewable && held.is_used() && held.renew_at.is_some_and(|at| at <= now);
        let mut retired = self.retired.iter().map(|old| &old.held);
        retired.any(|held| due(held) || !held.is_alive() || held.is_needless())
    }

    /// Remembers a refused login.
    pub(super) fn refuse(&mut self, refusal: &Refusal) {
        let (first, max) = match refusal.fault {
            Fault::Identity | Fault::Counted => (REFUSED_FIRST, REFUSED_MAX),
            Fault::Proof => (UNFIT_FIRST, REFUSED_MAX),
            Fault::Server => (FAILING_FIRST, FAILING_MAX),
            Fault::Cluster => (UNPROVEN_FIRST, UNPROVEN_MAX),
        };
        let pause = match &self.refused {
            Some(last) if refusal.fault == Fault::Counted && last.pause > first => REFUSED_LOCKING,
            Some(last) => (last.pause * 2).clamp(first, max),
            None => first,
        };
        self.refused = Some(Refused {
            refusal: refusal.clone(),
            retry: Instant::now() + pause.mul_f64(rand::random_range(1.0..1.1)),
            pause,
        });
    }

    /// Whether the token has lived two thirds of its life.
    pub(super) fn renewal_due(&self) -> bool {
        let due = self.held.as_ref().and_then(|held| held.renew_at);
        due.is_some_and(|due| due <= Instant::now())
    }

    /// Whether a refused login may be tried again now.
    pub(super) fn refusal_over(&self) -> bool {
        let refused = self.refused.as_ref();
        self.denied && refused.is_some_and(|refused| refused.retry <= Instant::now())
    }

    pub(super) fn holds(&self, token: &Token) -> bool {
        self.held.as_ref().is_some_and(|held| held.lease.token == *token)
    }
}

/// The token of a login, for one of its uses.
pub(super) fn spend(held: &mut Held, serial: u64) -> Pass {
    if let Some(uses) = &mut held.lease.uses {
        *uses = uses.saturating_sub(1);
    }
    Pass {
        token: held.lease.token.clone(),
        serial,
        tenure: held.tenure.clone(),
        ends: held.ends,
    }
}
