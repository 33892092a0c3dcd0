//! Whether this process may write at this moment.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::clock::{Clock, Machine, Moment};
use super::writes::Writes;

/// Longer than any process runs.
const FOR_EVER: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 1000);

/// Says whether this process may write.
#[derive(Debug)]
pub struct Fence {
    clock: Arc<dyn Clock>,
    /// Since when, and for how long.
    open: Mutex<Option<(Moment, Duration)>>,
    leading: watch::Sender<bool>,
    writes: Writes,
}

impl Fence {
    /// Closed at first, by the clocks of the machine.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with(Arc::new(Machine))
    }

    /// Closed at first, by these clocks.
    #[must_use]
    pub fn with(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            open: Mutex::new(None),
            leading: watch::Sender::new(false),
            writes: Writes::default(),
        })
    }

    /// Whether this process may write at this moment. A process that was paused, or whose machine was, wakes up with
    /// its time passed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let open = *self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.is_some_and(|(since, life)| since.until(&self.clock.now()) < life)
    }

    /// Follows who leads.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    /// The writes that have left.
    #[must_use]
    pub fn writes(&self) -> &Writes {
        &self.writes
    }

    /// What its clocks show, for [`open`](Self::open).
    #[must_use]
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Opens it from then on for so long.
    pub fn open(&self, since: Moment, life: Duration) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some((since, life));
        self.leading
            .send_if_modified(|leading| !std::mem::replace(leading, true));
    }

    /// Opens it for ever: there is no election.
    pub fn open_for_ever(&self) {
        self.open(self.now(), FOR_EVER);
    }

    /// Closes it.
    pub fn close(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.leading
            .send_if_modified(|leading| std::mem::replace(leading, false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(10);

    /// The clock of the process stands still, the others go on by so much.
    #[derive(Debug)]
    struct Suspended {
        begin: Moment,
        slept: Mutex<(Duration, Duration)>,
    }

    impl Suspended {
        fn sleep(&self, since_boot: Duration, wall: Duration) {
            *self.slept.lock().unwrap_or_else(PoisonError::into_inner) = (since_boot, wall);
        }
    }

    impl Clock for Suspended {
        fn now(&self) -> Moment {
            let (since_boot, wall) = *self.slept.lock().unwrap_or_else(PoisonError::into_inner);
            Moment {
                running: self.begin.running,
                since_boot: self.begin.since_boot + since_boot,
                wall: self.begin.wall + wall,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fence_that_is_not_renewed_closes_by_itself() {
        let fence = Fence::new();
        assert!(!fence.is_open());
        fence.open(fence.now(), LIFE);
        assert!(fence.is_open());
        tokio::time::advance(LIFE).await;
        assert!(!fence.is_open());
    }

    #[test]
    fn a_machine_that_was_suspended_wakes_up_with_a_closed_fence() {
        for (since_boot, wall) in [(LIFE, Duration::ZERO), (Duration::ZERO, LIFE)] {
            let clock = Arc::new(Suspended {
                begin: Machine.now(),
                slept: Mutex::default(),
            });
            let fence = Fence::with(clock.clone());
            fence.open(fence.now(), LIFE);
            clock.sleep(since_boot / 2, wall / 2);
            assert!(fence.is_open());
            clock.sleep(since_boot, wall);
            assert!(!fence.is_open());
            fence.open(fence.now(), LIFE);
            assert!(fence.is_open());
        }
    }
}
