//! Room in the operator's memory for what one sync works with: the values, the target as it is, what is made of them and
//! what is written. Few know beforehand how much that is. A sync begins with little, for which nobody asks; one that
//! finds more lets go of all, waits for as much, and begins again. What it needed is remembered for the next time.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::context::Context;
use super::index::ObjectKey;
use super::outcome::Failure;
use crate::memory::{self, QUICK};
use crate::permits::Permit;
use crate::store::place::Place;

/// Bytes of all that one ExternalSecret reads. A Secret holds 1 MiB, and of large secrets small parts may be taken.
const READ_MAX: usize = 16 << 20;

/// The room of one sync, until it is dropped.
pub struct Room {
    given: usize,
    used: AtomicUsize,
    /// Bytes of answers.
    read: AtomicUsize,
    /// Those of them that stay.
    kept: AtomicUsize,
    _permit: Option<Permit>,
}

impl Room {
    /// As much as it needed last time, or all there is. Whoever waits for it holds nothing.
    pub async fn take(ctx: &Context, key: &ObjectKey, place: &Place, bytes: usize) -> Self {
        if bytes <= QUICK {
            return Self::small();
        }
        let bytes = bytes.min(memory::budget().most_values());
        let permit = memory::budget().values(&key.namespace, bytes);
        let waited = async {
            ctx.queue.step_aside(key);
            permit.await
        };
        Self::of(bytes, place.left_for(waited).await)
    }

    /// So little that nobody asks for it.
    pub fn small() -> Self {
        Self::of(QUICK, None)
    }

    fn of(given: usize, permit: Option<Permit>) -> Self {
        Self {
            given,
            used: AtomicUsize::new(0),
            read: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
            _permit: permit,
        }
    }

    /// Nothing is held any more: the sync begins anew.
    pub fn empty(&self) {
        for count in [&self.used, &self.read, &self.kept] {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// So many bytes more are held.
    ///
    /// # Errors
    /// [`Failure::Cramped`] if that is more than there is room for.
    pub fn hold(&self, bytes: usize) -> Result<(), Failure> {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        match before.saturating_add(bytes) > self.given {
            true => Err(Failure::Cramped),
            false => Ok(()),
        }
    }

    /// So many bytes were read.
    pub fn read(&self, bytes: usize) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many of those that were read are values.
    ///
    /// # Errors
    /// As of [`hold`](Self::hold), or if it is too much for any ExternalSecret.
    pub fn keep(&self, bytes: usize) -> Result<(), Failure> {
        let before = self.kept.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > READ_MAX {
            return Err(Failure::own(format!(
                "the secrets that are read hold more than {} MiB together, and a Secret holds at most one; read fewer or \
                 smaller ones",
                READ_MAX >> 20
            )));
        }
        self.hold(bytes)
    }

    /// How many bytes were read.
    #[must_use]
    pub fn bytes_read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }

    /// What to begin with next time; nothing if little is enough.
    #[must_use]
    pub fn needed(&self, succeeded: bool) -> usize {
        let needed = match succeeded {
            // Values grow a little.
            true => self.used.load(Ordering::Relaxed) / 4 * 5,
            false => self.given,
        };
        if needed > QUICK { needed } else { 0 }
    }

    /// How much to wait for, because this was not enough.
    ///
    /// # Errors
    /// If there is no more.
    pub fn larger(&self) -> Result<usize, Failure> {
        let most = memory::budget().most_values();
        if self.given >= most {
            return Err(Failure::own(format!(
                "what it reads and writes takes more than {} MiB of the operator's memory; read fewer or smaller secrets, or \
                 raise the memory limit of its pod (resources.limits.memory)",
                most >> 20
            )));
        }
        let used = self.used.load(Ordering::Relaxed);
        Ok((used.saturating_mul(2))
            .max(self.given.saturating_mul(4))
            .min(most))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn who_finds_more_than_it_has_room_for_begins_again_with_more_until_there_is_no_more() {
        let mut given = QUICK;
        let mut tries = 0;
        loop {
            let room = Room::of(given, None);
            assert!(room.hold(given).is_ok());
            assert!(matches!(room.hold(1), Err(Failure::Cramped)));
            assert_eq!(room.needed(false), if given > QUICK { given } else { 0 });
            match room.larger() {
                Ok(larger) => given = larger,
                Err(failure) => {
                    assert!(
                        matches!(failure, Failure::Own(told) if told.contains("24 MiB of the operator's memory"))
                    );
                    break;
                }
            }
            tries += 1;
        }
        assert_eq!((tries, given), (5, 24 * MIB));
    }

    #[test]
    fn what_was_used_is_needed_next_time_with_a_little_more() {
        let room = Room::of(4 * MIB, None);
        room.read(2 * MIB);
        room.keep(2 * MIB).unwrap();
        assert_eq!((room.needed(true), room.bytes_read()), (2 * MIB / 4 * 5, 2 * MIB));
        room.empty();
        assert_eq!((room.needed(true), room.bytes_read()), (0, 0));
    }

    #[test]
    fn what_is_too_much_for_anybody_is_told_as_that() {
        let room = Room::of(32 * MIB, None);
        let told = room.keep(READ_MAX + 1);
        assert!(matches!(told, Err(Failure::Own(told)) if told.contains("more than 16 MiB together")));
    }
}
