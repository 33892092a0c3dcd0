//! Tugs of war over a target: somebody else changes it as often as it is repaired. Pure; the clock is handed in.

use std::time::Duration;

use tokio::time::Instant;

/// The repair that begins a pause is the third within this time.
const SHORT: Duration = Duration::from_secs(60);
const REPAIRS: usize = 3;
/// Longest pause between two repairs.
pub const LONGEST: Duration = Duration::from_secs(300);
/// After such a time without a repair all is forgotten.
const CALM: Duration = Duration::from_secs(600);

/// The repairs of one target.
#[derive(Clone, Debug, Default)]
pub struct Contest {
    /// The last ones.
    repairs: Vec<Instant>,
    /// Pauses that were begun.
    pauses: u32,
    rival: Option<Box<str>>,
}

impl Contest {
    /// The target is repaired.
    pub fn repair(&mut self, now: Instant) {
        if self.is_calm(now) {
            *self = Self::default();
        }
        if self.repairs.len() == REPAIRS {
            self.repairs.remove(0);
        }
        self.repairs.push(now);
        let first = self.repairs[0];
        let short = self.repairs.len() == REPAIRS && now.saturating_duration_since(first) <= SHORT;
        if short || self.pauses > 0 {
            self.pauses = self.pauses.saturating_add(1);
        }
    }

    /// How long the next repair waits yet.
    #[must_use]
    pub fn pause(&self, now: Instant) -> Option<Duration> {
        let last = self.repairs.last().filter(|_| self.pauses > 0)?;
        let pause = Duration::from_secs(1 << (self.pauses - 1).min(9)).min(LONGEST);
        let left = (*last + pause).saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// When it ends, if nothing happens; none if there is none.
    #[must_use]
    pub fn end(&self, now: Instant) -> Option<Instant> {
        let last = self
            .repairs
            .last()
            .filter(|_| self.pauses > 0 && !self.is_calm(now))?;
        Some(*last + CALM)
    }

    fn is_calm(&self, now: Instant) -> bool {
        let last = self.repairs.last();
        last.is_some_and(|last| now.saturating_duration_since(*last) >= CALM)
    }

    /// Takes note of who changes what; says whether nothing was known of it.
    pub fn name(&mut self, rival: &str) -> bool {
        let news = self.rival.is_none();
        self.rival = Some(rival.into());
        news
    }

    /// Who changes what.
    #[must_use]
    pub fn rival(&self) -> Option<&str> {
        self.rival.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Pauses after repairs that come so many seconds after each other.
    fn pauses(after: &[u64]) -> Vec<u64> {
        let (mut contest, mut now) = (Contest::default(), Instant::now());
        let repaired = after.iter().map(|seconds| {
            now += Duration::from_secs(*seconds);
            contest.repair(now);
            contest.pause(now).map_or(0, |pause| pause.as_secs())
        });
        repaired.collect()
    }

    #[test]
    fn the_third_repair_within_a_minute_begins_pauses_that_double_to_five_minutes() {
        for (after, wanted) in [
            (vec![0, 1, 1, 1, 2, 4], vec![0, 0, 1, 2, 4, 8]),
            (vec![0, 30, 30, 30], vec![0, 0, 1, 2]),
            (vec![0, 31, 30, 31, 30], vec![0; 5]),
            // Once it is one, whoever is slow is met as slowly.
            (vec![0, 1, 1, 599, 599], vec![0, 0, 1, 2, 4]),
            (vec![0, 1, 1, 600, 1, 1], vec![0, 0, 1, 0, 0, 1]),
            (
                vec![1; 13],
                vec![0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300],
            ),
        ] {
            assert_eq!(pauses(&after), wanted, "{after:?}");
        }
        assert_eq!(pauses(&[1; 5000]).last(), Some(&300));
    }

    #[test]
    fn a_rival_that_answers_at_once_is_met_twelve_times_in_the_first_ten_minutes() {
        let (mut contest, start) = (Contest::default(), Instant::now());
        let (mut now, mut repairs) = (start, 0);
        while now < start + CALM {
            contest.repair(now);
            repairs += 1;
            now += contest.pause(now).unwrap_or_default() + SECOND / 100;
        }
        assert_eq!(repairs, 12);
    }

    #[test]
    fn a_contest_ends_ten_minutes_after_the_last_repair() {
        let (mut contest, now) = (Contest::default(), Instant::now());
        assert_eq!(contest.end(now), None);
        (0..3).for_each(|_| contest.repair(now));
        assert_eq!(contest.end(now), Some(now + CALM));
        assert_eq!(contest.end(now + CALM), None);
        assert_eq!(contest.pause(now + SECOND), None);
        assert!(contest.name("a") && !contest.name("b"));
        assert_eq!(contest.rival(), Some("b"));
    }
}
