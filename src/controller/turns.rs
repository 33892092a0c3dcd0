//! Secrets before statuses: when many objects are new at once, the API server shall make their Secrets first, because
//! pods wait for a Secret, and only people for a status.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep, timeout_at};

/// Status writes at once.
const STATUSES: usize = 32;
/// Part of them that one takes that goes before the Secrets of others.
const IMPATIENT: u32 = 16;
/// How long a status waits for the Secrets of others.
const PATIENCE: Duration = Duration::from_secs(2);
/// Syncs that begin in shorter intervals than this are a flood: there is more to come.
const FLOOD: Duration = Duration::from_millis(20);
/// So long after the last Secret of a flood, it is over. A slow API server gives the objects more slowly than we make
/// their Secrets; without this, statuses would go in every gap, and slow it further.
const EBB: Duration = Duration::from_millis(250);

/// Who writes when.
pub struct Turns {
    statuses: Semaphore,
    making: watch::Sender<usize>,
    /// When the last sync began.
    last: Mutex<Option<Instant>>,
}

/// One sync that statuses wait for: its Secret is still to be made or changed, or is long due to be confirmed.
pub struct Making {
    all: watch::Sender<usize>,
    flood: bool,
}

impl Drop for Making {
    fn drop(&mut self) {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if self.flood => {
                let all = self.all.clone();
                runtime.spawn(async move {
                    sleep(EBB).await;
                    end(&all);
                });
            }
            _ => end(&self.all),
        }
    }
}

fn end(all: &watch::Sender<usize>) {
    all.send_if_modified(|count| {
        *count = count.saturating_sub(1);
        *count == 0
    });
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            statuses: Semaphore::new(STATUSES),
            making: watch::Sender::new(0),
            last: Mutex::default(),
        }
    }
}

impl Turns {
    /// A sync begins that statuses wait for; its Secret is as it must be, or not, when the guard is dropped.
    pub fn making(&self) -> Making {
        // Who waits waits for zero: thousands of statuses must not be woken to look at every other number.
        self.making.send_if_modified(|count| {
            *count += 1;
            false
        });
        let now = Instant::now();
        let last = self
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(now);
        Making {
            all: self.making.clone(),
            flood: last.is_some_and(|last| now.saturating_duration_since(last) < FLOOD),
        }
    }

    /// The turn to write a status, as soon as it comes. Who is not patient waits for statuses only.
    pub async fn status(&self, patient: bool) -> Option<SemaphorePermit<'_>> {
        if !patient {
            // The semaphore is never closed.
            return self.statuses.acquire().await.ok();
        }
        let mut making = self.making.subscribe();
        let end = Instant::now() + PATIENCE;
        loop {
            let idle = timeout_at(end, making.wait_for(|count| *count == 0))
                .await
                .is_ok();
            // The semaphore is never closed.
            let weight = if idle { 1 } else { IMPATIENT };
            let turn = self.statuses.acquire_many(weight).await.ok()?;
            // While many waited for a permit, others' Secrets may have come.
            if !idle || *making.borrow() == 0 {
                return Some(turn);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a status waits.
    async fn waited(turns: &Turns) -> Duration {
        let since = Instant::now();
        let _turn = turns.status(true).await;
        since.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_status_of_one_object_waits_for_nothing() {
        let turns = Turns::default();
        drop(turns.making());
        assert_eq!(waited(&turns).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_flood_statuses_wait_until_it_is_over() {
        let turns = Turns::default();
        for _ in 0..5 {
            drop(turns.making());
            sleep(Duration::from_millis(10)).await;
        }
        let wait = waited(&turns).await;
        assert!(wait > EBB - FLOOD && wait <= EBB, "{wait:?}");
        assert_eq!(waited(&turns).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_waits_no_longer_than_its_patience_for_a_permit_of_a_few() {
        let turns = Turns::default();
        let _making = turns.making();
        let (first, second) = tokio::join!(turns.status(true), turns.status(true));
        assert!(first.is_some() && second.is_some());
        let third = tokio::time::timeout(2 * PATIENCE, turns.status(true)).await;
        assert!(third.is_err(), "a third one went before a Secret");
        drop(first);
        assert!(turns.status(false).await.is_some());
    }
}
