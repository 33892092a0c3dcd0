//! How fast a connection may ask, learnt from Vault's rate limits (429). A limit concerns what its quota is about, and
//! not one object: all who ask the same mount wait for its end, and then go on one after the other. Only a limit that
//! several mounts meet slows all of them: a tenant's own quota is no affair of its neighbours.

use std::collections::HashMap;
use std::sync::Arc;
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

/// Two mounts that are limited within this time meet a limit of the server.
const TOGETHER: Duration = Duration::from_secs(10);
/// Mounts and roles of which the pace is known; further ones count as all of them.
const LANES_MAX: usize = 256;

/// What a quota may be about: a mount, or the role of a login.
pub type Lane = Arc<str>;

/// The paces of one connection.
#[derive(Debug, Default)]
pub struct Paces {
    lanes: HashMap<Lane, Pace>,
    whole: Pace,
}

/// A turn of a lane, and one of the connection.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    /// When a request may be sent.
    pub at: Instant,
    lane: Option<Turn>,
    whole: Turn,
}

impl Paces {
    /// Takes a turn. Ask then whether it still [holds](Self::holds).
    pub fn turn(&mut self, lane: &Lane, now: Instant) -> Turns {
        let own = self.lanes.get_mut(lane).map(|pace| pace.turn(now));
        let whole = self.whole.turn(own.map_or(now, |own| own.at));
        Turns {
            at: whole.at,
            lane: own,
            whole,
        }
    }

    /// Whether no limit was met since the turn was taken.
    #[must_use]
    pub fn holds(&self, lane: &Lane, turns: &Turns) -> bool {
        let own = match (self.lanes.get(lane), turns.lane) {
            (Some(pace), Some(turn)) => pace.holds(turn),
            (Some(_), None) => false,
            (None, _) => true,
        };
        own && self.whole.holds(turns.whole)
    }

    /// The end of the pause of this lane, if there is one now.
    #[must_use]
    pub fn pause_after(&self, lane: &Lane, now: Instant) -> Option<Instant> {
        let own = self.lanes.get(lane).and_then(|pace| pace.pause_after(now));
        own.max(self.whole.pause_after(now))
    }

    /// Vault said 429 to a request of this lane. Says how long the pause is, or nothing if there is one already.
    pub fn limited(&mut self, lane: &Lane, now: Instant, retry_after: Option<Duration>) -> Option<Duration> {
        if self.lanes.len() >= LANES_MAX && !self.lanes.contains_key(lane) {
            self.lanes.retain(|_, pace| pace.is_slow(now));
            if self.lanes.len() >= LANES_MAX {
                return self.whole.limited(now, retry_after);
            }
        }
        let others = self.lanes.iter().filter(|(other, _)| *other != lane);
        let together = others.fold(false, |any, (_, pace)| any || pace.was_limited(now));
        let pause = self
            .lanes
            .entry(lane.clone())
            .or_default()
            .limited(now, retry_after);
        if together {
            self.whole.limited(now, retry_after);
        }
        pause
    }

    /// Vault answered a request of this lane.
    pub fn succeeded(&mut self, lane: &Lane, now: Instant) {
        self.whole.succeeded();
        if let Some(pace) = self.lanes.get_mut(lane) {
            pace.succeeded();
            if !pace.is_slow(now) {
                self.lanes.remove(lane);
            }
        }
    }
}

/// The pace of one lane.
#[derive(Debug, Default)]
pub struct Pace {
    until: Option<Instant>,
    pause: Duration,
    gap: Duration,
    next: Option<Instant>,
    limits: u64,
    /// When the last limit was met.
    limited: Option<Instant>,
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

    /// Whether a limit was met a moment ago.
    fn was_limited(&self, now: Instant) -> bool {
        self.limited
            .is_some_and(|limited| now.saturating_duration_since(limited) < TOGETHER)
    }

    /// Whether anything is left of a limit.
    fn is_slow(&self, now: Instant) -> bool {
        !self.gap.is_zero() || self.pause_after(now).is_some() || self.was_limited(now)
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
        self.limited = Some(now);
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
    fn a_limit_of_one_mount_slows_that_mount_only() {
        let now = Instant::now();
        let (a, b): (Lane, Lane) = ("a".into(), "b".into());
        let mut paces = Paces::default();
        let before = [paces.turn(&a, now), paces.turn(&b, now)];
        let asked = Duration::from_secs(20);
        assert_eq!(paces.limited(&a, now, Some(asked)), Some(asked));
        assert!(!paces.holds(&a, &before[0]) && paces.holds(&b, &before[1]));
        assert_eq!(
            (paces.turn(&a, now).at, paces.turn(&b, now).at),
            (now + asked, now)
        );
        assert_eq!(paces.pause_after(&b, now), None);
        // However long it goes on.
        let later = now + asked;
        paces.limited(&a, later, Some(asked));
        assert_eq!(paces.turn(&b, later).at, later);
    }

    #[test]
    fn a_limit_that_several_mounts_meet_slows_the_connection() {
        let now = Instant::now();
        let lanes = ["a", "b", "c"].map(Lane::from);
        let mut paces = Paces::default();
        let asked = Some(Duration::from_secs(20));
        paces.limited(&lanes[0], now, asked);
        paces.limited(&lanes[1], now + TOGETHER, asked);
        assert_eq!(
            paces.pause_after(&lanes[2], now + TOGETHER),
            None,
            "each by itself"
        );
        let then = now + 3 * TOGETHER;
        paces.limited(&lanes[0], then, asked);
        paces.limited(&lanes[1], then, asked);
        assert_eq!(
            paces.pause_after(&lanes[2], then),
            Some(then + Duration::from_secs(20))
        );
    }

    #[test]
    fn what_is_known_of_mounts_is_bounded_and_goes_when_nothing_is_left_of_a_limit() {
        let mut now = Instant::now();
        let mut paces = Paces::default();
        for i in 0..10 * LANES_MAX {
            paces.limited(&i.to_string().into(), now, Some(Duration::from_secs(300)));
        }
        assert_eq!(paces.lanes.len(), LANES_MAX);
        now += Duration::from_secs(301);
        for i in 0..LANES_MAX {
            for _ in 0..30 {
                paces.succeeded(&i.to_string().into(), now);
            }
        }
        assert!(paces.lanes.is_empty());
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
