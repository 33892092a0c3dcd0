//! Leases, and the tokens on which they hang: a credential that an engine made for a read ends with its lease, and
//! with the token that asked for it. So whoever keeps such a value keeps a [`Hold`], and the login keeps the token
//! for as long as there are any.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use crate::vault::leased::Terms;

/// A lease whose values somebody keeps.
#[derive(Clone)]
pub struct Hold {
    /// When the lease ends. Nobody renews it: the values are read anew before.
    pub ends: Timestamp,
    /// When its token would have ended, had nobody renewed it any more after the values were read.
    pub token_ends: Option<Timestamp>,
    /// Its token.
    pub tenure: Arc<Tenure>,
}

impl Hold {
    /// Until when the values live for sure, whatever becomes of this process.
    #[must_use]
    pub fn sure_until(&self) -> Timestamp {
        self.token_ends.map_or(self.ends, |token| token.min(self.ends))
    }

    /// When the values end as far as it is known: with the lease, or with a token that is renewed no more.
    #[must_use]
    pub fn ends_at_last(&self) -> Timestamp {
        self.tenure.ends().map_or(self.ends, |token| token.min(self.ends))
    }
}

/// The time for which a token is kept. All that were given leases by it hold it in common.
#[derive(Default)]
pub struct Tenure(Mutex<State>);

#[derive(Default)]
struct State {
    /// When the last of the leases ends that were given by it.
    leases_end: Option<Instant>,
    /// When the token ends, once nobody renews it any more.
    ends: Option<Timestamp>,
}

impl Tenure {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lease was given by the token, by a request that was sent then.
    #[must_use]
    pub fn lease(self: Arc<Self>, terms: Terms, sent: Timestamp, token_ends: Option<Timestamp>) -> Hold {
        // Terms are bounded, so that neither clock is at its end.
        let end = Instant::now() + terms.lasts;
        let mut state = self.state();
        state.leases_end = state.leases_end.max(Some(end));
        drop(state);
        Hold {
            ends: sent.checked_add(terms.lasts).unwrap_or(Timestamp::MAX),
            token_ends,
            tenure: self,
        }
    }

    /// Whether a lease that was given by the token may live still.
    #[must_use]
    pub fn is_leased(&self) -> bool {
        self.state().leases_end.is_some_and(|end| end > Instant::now())
    }

    /// The token is renewed before it ends.
    pub fn keep(&self) {
        self.state().ends = None;
    }

    /// Nobody renews the token any more; it ends then, or never.
    pub fn let_go(&self, ends: Option<Instant>) {
        let Some(ends) = ends else { return };
        let left = ends.saturating_duration_since(Instant::now());
        self.end_in(left);
    }

    /// The token has ended.
    pub fn end(&self) {
        self.end_in(Duration::ZERO);
    }

    fn end_in(&self, left: Duration) {
        let ends = Timestamp::now().checked_add(left).unwrap_or(Timestamp::MAX);
        let mut state = self.state();
        state.ends = Some(state.ends.map_or(ends, |known| known.min(ends)));
    }

    /// When the token ends, if nobody renews it any more.
    #[must_use]
    pub fn ends(&self) -> Option<Timestamp> {
        self.state().ends
    }
}
