//! Whether this process may write at this moment.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Says whether this process may write.
#[derive(Debug)]
pub struct Fence {
    until: Mutex<Option<Instant>>,
    leading: watch::Sender<bool>,
}

impl Fence {
    /// Closed at first.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            until: Mutex::new(None),
            leading: watch::Sender::new(false),
        })
    }

    /// Whether this process may write at this moment. Also true while time stood still for us: a
    /// paused process wakes up with its deadline passed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| Instant::now() < until)
    }

    /// Follows who leads.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    /// Opens it until then.
    pub fn open(&self, until: Instant) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        self.leading
            .send_if_modified(|leading| !std::mem::replace(leading, true));
    }

    /// Opens it for ever: there is no election.
    pub fn open_for_ever(&self) {
        self.open(Instant::now() + Duration::from_secs(60 * 60 * 24 * 365 * 30));
    }

    /// Closes it.
    pub fn close(&self) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.leading
            .send_if_modified(|leading| std::mem::replace(leading, false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fence_that_is_not_renewed_closes_by_itself() {
        let fence = Fence::new();
        assert!(!fence.is_open());
        fence.open(Instant::now() + Duration::from_secs(10));
        assert!(fence.is_open());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!fence.is_open());
    }
}
