//! Budgets of writes that are for people alone: they are spent at once, and fill up again slowly.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// Namespaces that are told apart. One beyond shares what is not reserved.
const KNOWN_MAX: usize = 1_000;

/// How much there is at most, and how much more in each second.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// So many at once.
    pub size: f64,
    /// So many more in each second.
    pub per_second: f64,
}

/// What is left of a budget, and when that was so.
#[derive(Clone, Copy)]
struct Left(f64, Instant);

impl Left {
    fn now(self, rate: Rate, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.1).as_secs_f64();
        (self.0 + since * rate.per_second).min(rate.size)
    }
}

/// One budget.
pub struct Budget {
    rate: Rate,
    left: Mutex<Left>,
}

impl Budget {
    /// Full: so many at once, and so many more in each second.
    #[must_use]
    pub fn new(size: f64, per_second: f64) -> Self {
        Self {
            rate: Rate { size, per_second },
            left: Mutex::new(Left(size, Instant::now())),
        }
    }

    /// Takes one, if there is one left.
    pub fn take(&self) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let filled = left.now(self.rate, now);
        let enough = filled >= 1.0;
        *left = Left(if enough { filled - 1.0 } else { filled }, now);
        enough
    }
}

/// A budget for all, and one for each namespace within it. The last part of the common one is for namespaces that have
/// used little of their own: however many are noisy, one that is quiet is heard.
pub struct Shares {
    all: Rate,
    each: Rate,
    reserve: f64,
    left: Left,
    /// Namespaces whose own budget is not full, so many at most.
    own: HashMap<Arc<str>, Left>,
}

impl Shares {
    /// All of them full.
    #[must_use]
    pub fn new(all: Rate, each: Rate, reserve: f64, now: Instant) -> Self {
        Self {
            all,
            each,
            reserve,
            left: Left(all.size, now),
            own: HashMap::new(),
        }
    }

    /// Takes one for a namespace, if there is one for it. Asking costs it one of its own either way: who asks all the
    /// time and gets nothing is not quiet.
    pub fn take(&mut self, namespace: &str, now: Instant) -> bool {
        if !self.own.contains_key(namespace) {
            self.own
                .retain(|_, left| left.now(self.each, now) < self.each.size);
        }
        let own = self.own.get(namespace);
        let own = own.map_or(self.each.size, |left| left.now(self.each, now));
        if own < 1.0 {
            return false;
        }
        let known = self.own.len() < KNOWN_MAX || self.own.contains_key(namespace);
        if known {
            self.own.insert(namespace.into(), Left(own - 1.0, now));
        }
        let quiet = known && own >= self.each.size / 2.0;
        let kept = if quiet { 0.0 } else { self.reserve };
        let common = self.left.now(self.all, now);
        if common < kept + 1.0 {
            return false;
        }
        self.left = Left(common - 1.0, now);
        true
    }

    #[cfg(test)]
    fn known(&self) -> usize {
        self.own.len()
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

    fn shares(now: Instant) -> Shares {
        let rate = |size, per_second| Rate { size, per_second };
        Shares::new(rate(20.0, 1.0), rate(6.0, 0.5), 4.0, now)
    }

    /// How many of so many tries each of so many namespaces has.
    fn spend(shares: &mut Shares, namespaces: usize, tries: usize, now: Instant) -> Vec<usize> {
        let each = |namespace| {
            let name = format!("n{namespace}");
            (0..tries).filter(|_| shares.take(&name, now)).count()
        };
        (0..namespaces).map(each).collect()
    }

    #[test]
    fn a_namespace_that_is_noisy_takes_its_own_share_and_what_a_quiet_one_needs_is_left() {
        let start = Instant::now();
        for (namespaces, tries, wanted) in [
            // One cannot take more than its own.
            (1, 1_000, vec![6]),
            (2, 1_000, vec![6, 6]),
            // The last part is for those that have used less than half.
            (4, 1_000, vec![6, 6, 4, 4]),
        ] {
            let mut shares = shares(start);
            assert_eq!(spend(&mut shares, namespaces, tries, start), wanted);
        }
        let mut noisy = shares(start);
        let mut heard = 0;
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            // These three have asked for more than there is, all the time.
            for namespace in ["a", "b", "c"] {
                for _ in 0..100 {
                    noisy.take(namespace, now);
                }
            }
            if second % 30 == 0 {
                heard += usize::from(noisy.take("quiet", now));
            }
        }
        assert_eq!(heard, 20, "each time");
    }

    #[test]
    fn thousands_of_namespaces_at_once_are_no_thousands_of_writes_and_what_is_idle_is_forgotten() {
        let start = Instant::now();
        let mut shares = shares(start);
        let all: usize = spend(&mut shares, 2_000, 1, start).iter().sum();
        assert_eq!(all, 20, "the common budget");
        assert_eq!(shares.known(), KNOWN_MAX);
        let minute = start + Duration::from_secs(60);
        assert!(shares.take("other", minute));
        assert_eq!(shares.known(), 1);
    }
}
