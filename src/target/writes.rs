//! Writes that the API server has not answered. The lease is not handed on before they are: another replica must not
//! begin while it is not known what ours still does.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// So long after its caller gave it up, the API server may still carry a request out: its own limit.
const LIMIT: Duration = Duration::from_secs(60);

/// Counts them.
#[derive(Debug)]
pub struct Writes {
    under_way: watch::Sender<usize>,
    /// When the last one was given up without an answer.
    lost: Mutex<Option<Instant>>,
}

/// One write, until it is dropped. One that is dropped without an answer is lost.
pub struct Write<'a> {
    of: &'a Writes,
    answered: bool,
}

impl Default for Writes {
    fn default() -> Self {
        Self {
            under_way: watch::Sender::new(0),
            lost: Mutex::default(),
        }
    }
}

impl Writes {
    /// A write leaves.
    pub fn begin(&self) -> Write<'_> {
        self.under_way.send_modify(|count| *count += 1);
        Write {
            of: self,
            answered: false,
        }
    }

    /// Whether every write has its answer, at the latest after this time.
    pub async fn settle(&self, patience: Duration) -> bool {
        let mut under_way = self.under_way.subscribe();
        // The sender lives as long as this.
        let idle = timeout(patience, under_way.wait_for(|count| *count == 0))
            .await
            .is_ok();
        idle && self.lost().is_none_or(|lost| lost.elapsed() >= LIMIT)
    }

    fn lost(&self) -> Option<Instant> {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write<'_> {
    /// The API server answered, or never saw it.
    pub fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        if !self.answered {
            *self.of.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        self.of
            .under_way
            .send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn nothing_is_settled_before_the_last_write_has_its_answer() {
        let writes = Writes::default();
        assert!(writes.settle(PATIENCE).await);
        let (one, other) = (writes.begin(), writes.begin());
        one.answered();
        let since = Instant::now();
        assert!(!writes.settle(PATIENCE).await);
        assert_eq!(since.elapsed(), PATIENCE);
        let answer = async {
            tokio::time::sleep(PATIENCE / 2).await;
            other.answered();
        };
        let (settled, ()) = tokio::join!(writes.settle(PATIENCE), answer);
        assert!(settled);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_was_given_up_may_still_be_carried_out_for_a_minute() {
        let writes = Writes::default();
        drop(writes.begin());
        assert!(!writes.settle(PATIENCE).await);
        tokio::time::sleep(LIMIT).await;
        assert!(writes.settle(PATIENCE).await);
    }
}
