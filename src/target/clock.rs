//! How much time has passed, by every clock there is: the one that a process uses stands still while its machine is
//! suspended, and then a lease seems to hold that has long run out.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// macOS has no other, and there it goes on.
#[cfg(not(target_os = "linux"))]
const SINCE_BOOT: ClockId = ClockId::Monotonic;
#[cfg(target_os = "linux")]
const SINCE_BOOT: ClockId = ClockId::Boottime;

/// What the clocks show at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Stands still while the machine is suspended.
    pub running: Instant,
    /// Since the start of the machine, its sleep included.
    pub since_boot: Duration,
    /// May be set, also backwards.
    pub wall: SystemTime,
}

impl Moment {
    /// What has passed until then: the most that a clock says. One that went backwards says nothing.
    #[must_use]
    pub fn until(&self, later: &Self) -> Duration {
        let running = later.running.saturating_duration_since(self.running);
        let since_boot = later.since_boot.saturating_sub(self.since_boot);
        let wall = later.wall.duration_since(self.wall).unwrap_or_default();
        running.max(since_boot).max(wall)
    }
}

/// Reads the clocks.
pub trait Clock: Debug + Send + Sync {
    /// What they show.
    fn now(&self) -> Moment;
}

/// Those of the machine.
#[derive(Debug)]
pub struct Machine;

impl Clock for Machine {
    fn now(&self) -> Moment {
        let boot = clock_gettime(SINCE_BOOT);
        let seconds = u64::try_from(boot.tv_sec).unwrap_or_default();
        Moment {
            running: Instant::now(),
            since_boot: Duration::new(seconds, u32::try_from(boot.tv_nsec).unwrap_or_default()),
            wall: SystemTime::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_that_counts_most_counts() {
        let first = Machine.now();
        let ms = Duration::from_millis;
        // Each as milliseconds that it went on; the wall clock also backwards.
        for (running, since_boot, wall, passed) in [
            (10, 10, 10, 10),
            // The machine was suspended.
            (10, 9_000, 9_000, 9_000),
            // And this clock stood still too; somebody set the other one after it.
            (10, 10, 9_000, 9_000),
            (10, 9_000, 10, 9_000),
            (9_000, 10, 10, 9_000),
            // Set back.
            (10, 11, -5_000, 11),
            (0, 0, 0, 0),
        ] {
            let wall = match u64::try_from(wall) {
                Ok(ahead) => first.wall + ms(ahead),
                Err(_) => first.wall - ms(i64::unsigned_abs(wall)),
            };
            let later = Moment {
                running: first.running + ms(running),
                since_boot: first.since_boot + ms(since_boot),
                wall,
            };
            assert_eq!(first.until(&later), ms(passed), "{running} {since_boot}");
        }
        let (first, earlier) = (Machine.now(), first);
        assert_eq!(first.until(&earlier), Duration::ZERO);
    }
}
