//! The tries of one call: with several nodes behind one address, another try may meet another node.

use std::time::Duration;

use tokio::time::Instant;

use super::retries::Retries;
use crate::vault::error::{Outage, Unreachable, VaultError};
use crate::vault::health::ActiveNode;

/// A call that meets a node that does not serve is retried for this long; shorter elections are not noticed.
const RIDE_OUT: Duration = Duration::from_secs(2);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_millis(150);

/// What a suspicion found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A node that serves by itself.
    Active,
    /// A node that forwards to the active one at this address, as far as it knows.
    Standby(ActiveNode),
    /// Nodes that know of no active one.
    Election,
}

/// The tries of one call.
pub struct Trial {
    /// When the call began.
    pub begun: Instant,
    /// Those that a call deserves at once, if it is not plain that one node is at fault.
    early: Retries,
    retries: u32,
    /// When a node was seen that serves by itself.
    active: Option<Instant>,
    /// Whether a standby said that it finds no active node.
    pub electing: bool,
    /// Whether the last error may be that of one node among others.
    pub one_node: bool,
}

impl Trial {
    /// A call that begins now.
    #[must_use]
    pub fn new(early: Retries) -> Self {
        Self {
            begun: Instant::now(),
            early,
            retries: 0,
            active: None,
            electing: false,
            one_node: false,
        }
    }

    /// Takes note of a try that failed, and of what a suspicion found then.
    pub fn note(&mut self, error: &VaultError, seen: &Seen) {
        self.retries += 1;
        self.one_node = matches!(
            error,
            VaultError::Outage(_)
                | VaultError::Redirected
                | VaultError::Unreachable(Unreachable::Refused | Unreachable::Broken)
        );
        let unled = matches!(
            error,
            VaultError::Redirected | VaultError::Outage(Outage::NoActiveNode)
        );
        match seen {
            Seen::Active => self.active = self.active.or_else(|| Some(Instant::now())),
            Seen::Standby(_) | Seen::Election => self.electing |= unled,
        }
    }

    /// Whether it is one of the first tries, which any suspicion deserves at once.
    #[must_use]
    pub fn is_early(&self) -> bool {
        self.retries <= self.early.most
    }

    /// Whether enough was tried. The other nodes find a new leader some time after its election.
    #[must_use]
    pub fn over(&self) -> bool {
        self.active.unwrap_or(self.begun).elapsed() >= RIDE_OUT
    }

    /// The least time to wait before a try.
    #[must_use]
    pub fn least_pause(&self) -> Duration {
        self.early.pause
    }

    /// How long to wait before a try that is not one of the first.
    #[must_use]
    pub fn pause(&self) -> Duration {
        let doublings = self.retries.saturating_sub(self.early.most + 1).min(10);
        let pause = (RETRY_FIRST * 2_u32.pow(doublings)).min(RETRY_LAST);
        pause.max(self.early.pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_its_tries_two_seconds_after_its_begin_or_after_a_leader_was_seen() {
        let mut trial = Trial::new(Retries::default());
        trial.note(&VaultError::Redirected, &Seen::Election);
        tokio::time::advance(Duration::from_millis(1900)).await;
        assert!(trial.electing && !trial.over());
        trial.note(&VaultError::Redirected, &Seen::Active);
        tokio::time::advance(Duration::from_millis(1900)).await;
        assert!(!trial.over());
        tokio::time::advance(Duration::from_millis(200)).await;
        assert!(trial.over());
    }
}
