//! How fast a connection may ask, learnt from Vault's rate limits (429). A limit concerns the connection as a whole,
//! not one object: whoever met it, all wait for its end, and then go on one after the other.

use std::time::Duration;

use tokio::time::Instant;

/// The pause after a 429 that says nothing of its own, doubled while nothing gets through.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// `Retry-After` is honoured up to this long.
const ASKED_MAX: Duration = Duration::from_secs(300);
/// Between two requests after the first limit; doubled by each further one, less by a tenth with each success.
const GAP_FIRST: Duration = Duration::from_millis(20);
const GAP_MAX: Duration = Duration::from_millis(500);
/// A shorter gap is none.
const GAP_LEAST: Duration = Duration::from_millis(5);

/// The pace of one connection.
#[derive(Debug, Default)]
pub struct Pace {
    until: Option<Instant>,
    pause: Duration,
    gap: Duration,
    next: Option<Instant>,
    limits: u64,
}

/// When a request may be sent, unless another limit was met meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// When.
    pub at: Instant,
    limits: u64,
}

impl Pace {
    /// Takes a turn. Ask then whether it still [holds](Self::holds).
    pub fn turn(&mut self, now: Instant) -> Turn {
        let at = [self.until, self.next]
            .into_iter()
            .flatten()
            .fold(now, Instant::max);
        self.next = (!self.gap.is_zero()).then(|| at + self.gap);
        Turn {
            at,
            limits: self.limits,
        }
    }

    /// Whether no limit was met since the turn was taken.
    #[must_use]
    pub fn holds(&self, turn: Turn) -> bool {
        turn.limits == self.limits
    }

    /// The end of the pause, if there is one now.
    #[must_use]
    pub fn pause_after(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// Vault said 429. Says how long the pause is, or nothing if there is one already: what was sent before it is no
    /// news.
    pub fn limited(&mut self, now: Instant, retry_after: Option<Duration>) -> Option<Duration> {
        if self.pause_after(now).is_some() {
            return None;
        }
        // Vault says 0 when less than a second is left: that is no reason to ask again at once.
        let asked = retry_after.filter(|wait| !wait.is_zero());
        self.pause = (self.pause * 2).clamp(PAUSE, PAUSE_MAX);
        let wait = asked.map_or(self.pause, |wait| wait.min(ASKED_MAX));
        self.until = Some(now + wait);
        self.gap = (self.gap * 2).clamp(GAP_FIRST, GAP_MAX);
        self.next = None;
        self.limits += 1;
        Some(wait)
    }

    /// Vault answered.
    pub fn succeeded(&mut self) {
        self.pause = Duration::ZERO;
        self.gap = self.gap.mul_f64(0.9);
        if self.gap < GAP_LEAST {
            self.gap = Duration::ZERO;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Vault that lets so many through in each second, and `Retry-After: 0` as Vault's own limiter does.
    struct Quota {
        began: Instant,
        window: u64,
        left: u32,
        rate: u32,
        refused: u32,
    }

    impl Quota {
        fn new(began: Instant, rate: u32) -> Self {
            Self {
                began,
                window: 0,
                left: rate,
                rate,
                refused: 0,
            }
        }

        fn allows(&mut self, at: Instant) -> bool {
            let window = (at - self.began).as_secs();
            if window != self.window {
                (self.window, self.left) = (window, self.rate);
            }
            if self.left == 0 {
                self.refused += 1;
                return false;
            }
            self.left -= 1;
            true
        }
    }

    /// Sends so many requests one after the other; says how long it took.
    fn send(pace: &mut Pace, quota: &mut Quota, mut now: Instant, mut count: u32) -> Duration {
        let began = now;
        while count > 0 {
            now = pace.turn(now).at;
            if quota.allows(now) {
                pace.succeeded();
                count -= 1;
            } else {
                pace.limited(now, Some(Duration::ZERO));
            }
            now += Duration::from_millis(2);
        }
        now - began
    }

    #[test]
    fn under_a_quota_of_ten_a_second_few_requests_are_refused_and_most_of_the_quota_is_used() {
        let now = Instant::now();
        let (mut pace, mut quota) = (Pace::default(), Quota::new(now, 10));
        let took = send(&mut pace, &mut quota, now, 200);
        assert!(quota.refused <= 40, "{} of 200 refused", quota.refused);
        assert!(took < Duration::from_secs(35), "200 requests took {took:?}");
    }

    #[test]
    fn after_the_limit_is_gone_the_connection_is_as_fast_as_before() {
        let now = Instant::now();
        let (mut pace, mut quota) = (Pace::default(), Quota::new(now, 5));
        let took = send(&mut pace, &mut quota, now, 50);
        let mut free = Quota::new(now, u32::MAX);
        let recovery = send(&mut pace, &mut free, now + took, 100);
        assert!(recovery < Duration::from_secs(10), "{recovery:?}");
        let then = now + took + recovery + Duration::from_secs(1);
        assert_eq!(pace.turn(then).at, then);
        assert_eq!(pace.turn(then).at, then);
    }

    #[test]
    fn what_vault_asks_for_is_honoured_and_a_burst_of_refusals_counts_once() {
        let now = Instant::now();
        let mut pace = Pace::default();
        let asked = Duration::from_secs(45);
        let before = pace.turn(now);
        assert_eq!(pace.limited(now, Some(asked)), Some(asked));
        assert!(!pace.holds(before));
        for _ in 0..50 {
            assert_eq!(pace.limited(now, Some(Duration::from_secs(1))), None);
        }
        assert_eq!(pace.turn(now).at, now + asked);
        assert_eq!(pace.turn(now).at, now + asked + GAP_FIRST);
        assert_eq!(
            pace.limited(now + asked, Some(Duration::from_secs(9999))),
            Some(ASKED_MAX)
        );
    }

    #[test]
    fn refusals_without_a_time_are_answered_by_ever_longer_pauses_until_one_gets_through() {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pauses.extend(pace.limited(now, None));
            now = pace.turn(now).at;
        }
        assert_eq!(pauses.first(), Some(&PAUSE));
        assert_eq!(pauses.last(), Some(&PAUSE_MAX));
        pace.succeeded();
        assert_eq!(pace.limited(now, None), Some(PAUSE));
    }
}
