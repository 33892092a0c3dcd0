//! What is known of a token at a moment, and of the last login that was refused.

use std::time::Duration;

use tokio::time::Instant;

use super::{Fault, Refusal};
use crate::vault::auth::Lease;
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
}

pub(super) struct Held {
    pub(super) lease: Lease,
    pub(super) ends: Option<Instant>,
    /// When to renew or replace it, at two thirds of its life; `None` if nothing is left to try.
    pub(super) renew_at: Option<Instant>,
    /// Whether Vault forbids it to look at itself, once that was asked.
    pub(super) blind: Option<bool>,
}

/// A refused login. Until it is tried again everybody gets the same answer.
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) retry: Instant,
    pub(super) pause: Duration,
}

impl Held {
    pub(super) fn new(lease: Lease) -> Self {
        let now = Instant::now();
        Self {
            // A life beyond what a clock can say has no end.
            ends: lease.ttl.and_then(|ttl| now.checked_add(ttl)),
            renew_at: lease.ttl.and_then(|ttl| now.checked_add(ttl / 3 * 2)),
            lease,
            blind: None,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.ends.is_none_or(|ends| ends > Instant::now()) && self.lease.uses != Some(0)
    }
}

impl State {
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

/// The token, for one of its uses.
pub(super) fn spend(held: &mut Held) -> Token {
    if let Some(uses) = &mut held.lease.uses {
        *uses = uses.saturating_sub(1);
    }
    held.lease.token.clone()
}
