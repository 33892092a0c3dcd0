//! How often a server that is out of service is asked for its health.

use std::time::Duration;

use crate::vault::error::Outage;

/// The first pause; each is twice as long as the one before.
const FIRST: Duration = Duration::from_millis(250);
/// The longest: a store is back within two seconds of the unseal (promise 2).
const LAST: Duration = Duration::from_secs(1);
/// The longest for a host that is gone while nobody needs it.
const GONE: Duration = Duration::from_secs(30);

/// What the next pause depends on.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// What is wrong.
    pub outage: Outage,
    /// Whether somebody reads there, or would.
    pub awaited: bool,
    /// Whether another server answers, so that it is not our own network that is broken.
    pub another_answers: bool,
}

impl Situation {
    fn longest(self) -> Duration {
        match self.outage {
            Outage::Unreachable(_) if !self.awaited && self.another_answers => GONE,
            _ => LAST,
        }
    }
}

/// The pauses of one outage.
#[derive(Clone, Copy, Debug)]
pub struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Pauses {
    /// The pause until the next look.
    pub fn next(&mut self, situation: Situation) -> Duration {
        let longest = situation.longest();
        let pause = self.0.min(longest);
        self.0 = (pause * 2).min(longest);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::error::Unreachable;

    /// Looks in three and a half minutes.
    fn looks(situation: Situation) -> usize {
        let (mut pauses, mut at, mut looks) = (Pauses::default(), Duration::ZERO, 0);
        while at < Duration::from_secs(210) {
            looks += 1;
            at += pauses.next(situation);
        }
        looks
    }

    #[test]
    fn a_host_that_is_gone_is_seldom_asked_unless_somebody_waits_or_no_other_answers() {
        let gone = Outage::Unreachable(Unreachable::Refused);
        for (outage, awaited, another_answers, wanted) in [
            (gone, false, true, 13),
            (Outage::Unreachable(Unreachable::Timeout), false, true, 13),
            (gone, true, true, 212),
            // Our own network may be back at any moment.
            (gone, false, false, 212),
            (gone, true, false, 212),
            // What answers may be unsealed at any moment.
            (Outage::Sealed, false, true, 212),
            (Outage::NoActiveNode, false, true, 212),
            (Outage::Failing(500), false, true, 212),
        ] {
            let situation = Situation {
                outage,
                awaited,
                another_answers,
            };
            assert_eq!(looks(situation), wanted, "{situation:?}");
        }
    }

    #[test]
    fn who_comes_to_wait_finds_a_server_that_is_looked_at_each_second() {
        let mut pauses = Pauses::default();
        let mut situation = Situation {
            outage: Outage::Unreachable(Unreachable::Dns),
            awaited: false,
            another_answers: true,
        };
        assert!((0..10).map(|_| pauses.next(situation)).max() == Some(GONE));
        situation.awaited = true;
        assert_eq!(pauses.next(situation), LAST);
    }
}
