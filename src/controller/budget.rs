//! A budget of writes that are for people alone: it is spent at once, and fills up again slowly.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// The budget.
pub struct Budget {
    size: f64,
    per_second: f64,
    left: Mutex<(f64, Instant)>,
}

impl Budget {
    /// Full: so many at once, and so many more in each second.
    #[must_use]
    pub fn new(size: f64, per_second: f64) -> Self {
        Self {
            size,
            per_second,
            left: Mutex::new((size, Instant::now())),
        }
    }

    /// Takes one, if there is one left.
    pub fn take(&self) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let since = now.saturating_duration_since(left.1).as_secs_f64();
        let filled = (left.0 + since * self.per_second).min(self.size);
        let enough = filled >= 1.0;
        *left = (if enough { filled - 1.0 } else { filled }, now);
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_spent_at_once_and_fills_up_slowly_and_never_over() {
        let budget = Budget::new(3.0, 2.0);
        let spend = || (0..10).filter(|_| budget.take()).count();
        assert_eq!(spend(), 3);
        tokio::time::advance(Duration::from_millis(600)).await;
        assert_eq!(spend(), 1);
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(spend(), 3);
    }
}
