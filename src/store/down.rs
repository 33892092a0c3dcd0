//! Why and since when a server is out of service.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use crate::vault::error::Outage;

/// An outage by an election is told after this long: with Vault's defaults one takes up to some ten seconds.
const ELECTION: Duration = Duration::from_secs(15);

/// Why and since when a server is out of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Down {
    /// What is wrong.
    pub outage: Outage,
    /// When it was first seen.
    pub since: Timestamp,
    /// Whether it began as an election of the cluster.
    pub election: bool,
}

impl Down {
    /// Until when it is no news: an election is part of a cluster's life. `None` if it is to be told at once.
    #[must_use]
    pub fn quiet_until(&self) -> Option<Timestamp> {
        let until = self.since.checked_add(ELECTION).ok()?;
        // Nodes that restart or change places break connections meanwhile; one that is sealed is news.
        let part_of_it = matches!(self.outage, Outage::NoActiveNode | Outage::Unreachable(_));
        (self.election && part_of_it && Timestamp::now() < until).then_some(until)
    }
}

/// An outage that a call met which was begun then.
#[must_use]
pub fn down_since(outage: Outage, begun: Instant) -> Down {
    let now = Timestamp::now();
    let since = now.checked_sub(begun.elapsed()).unwrap_or(now);
    Down {
        outage,
        since,
        election: outage == Outage::NoActiveNode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::error::Unreachable;

    #[test]
    fn only_an_election_is_kept_quiet_and_only_as_long_as_one_takes() {
        let ago = |outage, election, seconds| Down {
            outage,
            since: Timestamp::now() - Duration::from_secs(seconds),
            election,
        };
        let broken = Outage::Unreachable(Unreachable::Broken);
        assert!(ago(Outage::NoActiveNode, true, 10).quiet_until().is_some());
        assert!(ago(Outage::NoActiveNode, true, 20).quiet_until().is_none());
        // A node that changes its place breaks connections; one that is sealed meanwhile is news.
        assert!(ago(broken, true, 10).quiet_until().is_some());
        assert!(ago(Outage::Sealed, true, 0).quiet_until().is_none());
        assert!(ago(broken, false, 0).quiet_until().is_none());
    }
}
