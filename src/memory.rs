//! One budget of bytes for the process: what is large asks before it allocates, and waits, or is told that it can never
//! fit. A pod that goes over the limit of its cgroup is killed, and what killed it comes back at each start.

//!
//! Its parts are taken in one order: what a sync works with, the text of an answer, what is made of it. Who holds a later
//! one waits for no earlier one, so that all come to their end. The first two take turns by namespace.

use std::cell::Cell;
use std::fs;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::permits::{Permit, Permits};

/// Less than this is not asked for: hardly anything is larger, and what is asks in time.
pub const QUICK: usize = 64 << 10;
/// What the largest object takes up while it is read: its text, and what is made of it.
const OBJECT: usize = 4 << 20;
/// The chart's limit, for a process that has none.
const LIMIT: u64 = 128 << 20;
/// No process works with less.
const LEAST: u64 = 64 << 20;
/// What the parts take of the limit, in sixteenths. The rest is for what is always held, and for all that is small.
const VALUES: usize = 3;
const TEXTS: usize = 1;
const MADE: usize = 5;
const OBJECTS: usize = 2;
/// How long to wait for what others make, which takes them seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries of a thread that computes.
const PAUSE: Duration = Duration::from_millis(10);

/// Others use what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the operator's memory is in use by other large objects; it is tried again. If it stays so, raise the memory limit of \
     its pod (resources.limits.memory)"
)]
pub struct Busy;

/// The budget.
pub struct Budget {
    values: Kept,
    texts: Kept,
    made: Arc<Semaphore>,
    made_kib: u32,
    objects: Arc<Permits>,
}

/// A part that takes turns by namespace, in KiB.
struct Kept {
    free: Arc<Permits>,
    kib: usize,
}

impl Kept {
    fn new(bytes: usize) -> Self {
        let kib = bytes / 1024;
        Self {
            free: Permits::new(kib),
            kib,
        }
    }

    async fn take(&self, who: &Arc<str>, bytes: usize) -> Option<Permit> {
        let kib = bytes.div_ceil(1024);
        match kib > self.kib {
            true => None,
            false => self.free.acquire_many(who, kib).await,
        }
    }
}

/// A part of it, until it is dropped.
#[derive(Debug)]
pub struct Share {
    _part: OwnedSemaphorePermit,
}

thread_local! {
    /// Whether this thread has a part of what is made.
    static MAKES: Cell<bool> = const { Cell::new(false) };
}

/// The same of a thread that computes, until it is dropped there.
#[derive(Debug)]
pub struct Making {
    part: Option<OwnedSemaphorePermit>,
    _here: PhantomData<*const ()>,
}

impl Drop for Making {
    fn drop(&mut self) {
        if self.part.take().is_some() {
            MAKES.set(false);
        }
    }
}

/// Gets an object of the API server for a namespace. It shows its size only when it is there: few are got at once.
pub async fn getting<T>(who: &Arc<str>, get: impl Future<Output = T>) -> T {
    let _room = budget().objects.acquire(who).await;
    get.await
}

impl Budget {
    /// Of a process that may take up so much.
    #[must_use]
    pub fn of(limit: u64) -> Self {
        let sixteenth = usize::try_from(limit.max(LEAST) / 16).unwrap_or(usize::MAX / 16);
        let made = sixteenth * MADE / 1024;
        let made_kib = u32::try_from(made.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self {
            values: Kept::new(sixteenth * VALUES),
            texts: Kept::new(sixteenth * TEXTS),
            made: Arc::new(Semaphore::new(made_kib as usize)),
            made_kib,
            objects: Permits::new(sixteenth * OBJECTS / OBJECT),
        }
    }

    /// Room for what a sync works with, as soon as it is the turn of its namespace. `None` if there will never be so
    /// much.
    pub async fn values(&self, who: &Arc<str>, bytes: usize) -> Option<Permit> {
        self.values.take(who, bytes).await
    }

    /// The most that [`values`](Self::values) gives.
    #[must_use]
    pub fn most_values(&self) -> usize {
        self.values.kib * 1024
    }

    /// Room for the text of an answer, to be taken before the request is sent. `None` if there will never be so much.
    pub async fn text(&self, who: &Arc<str>, bytes: usize) -> Option<Permit> {
        self.texts.take(who, bytes).await
    }

    /// What is made takes so much at most; of what may be less all there is, is enough.
    fn part(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(1024)).map_or(self.made_kib, |kib| kib.min(self.made_kib))
    }

    /// Room for what is made of a large text, as soon as it is free.
    ///
    /// # Errors
    /// If that takes too long.
    pub async fn make(&self, bytes: usize) -> Result<Share, Busy> {
        let made = self.made.clone().acquire_many_owned(self.part(bytes));
        match timeout(PATIENCE, made).await {
            Ok(Ok(part)) => Ok(Share { _part: part }),
            // It is never closed.
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }

    /// The same for a thread that computes. What it makes in the course of that has its part already.
    ///
    /// # Errors
    /// As of [`make`](Self::make).
    pub fn make_beside(&self, bytes: usize) -> Result<Making, Busy> {
        let making = |part| Making {
            part,
            _here: PhantomData,
        };
        if MAKES.get() {
            return Ok(making(None));
        }
        let (part, end) = (self.part(bytes), Instant::now() + PATIENCE);
        loop {
            if let Ok(part) = self.made.clone().try_acquire_many_owned(part) {
                MAKES.set(true);
                return Ok(making(Some(part)));
            }
            if Instant::now() > end {
                return Err(Busy);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

static PROCESS: OnceLock<Budget> = OnceLock::new();

/// Sets the limit of this process, before anything asks for the budget.
pub fn limit(bytes: u64) {
    let _ = PROCESS.set(Budget::of(bytes));
}

/// The budget of this process: there is one, as there is one memory.
pub fn budget() -> &'static Budget {
    PROCESS.get_or_init(|| Budget::of(of_cgroup(Path::new("/sys/fs/cgroup")).unwrap_or(LIMIT)))
}

/// The limit of the container's cgroup, of either version.
fn of_cgroup(root: &Path) -> Option<u64> {
    let files = ["memory.max", "memory/memory.limit_in_bytes"];
    let texts = files
        .iter()
        .filter_map(|file| fs::read_to_string(root.join(file)).ok());
    let limits = texts.filter_map(|text| text.trim().parse::<u64>().ok());
    // Version 1 writes a number that no machine has where there is none.
    limits.filter(|limit| *limit < 1 << 50).min()
}

/// A quantity of Kubernetes, for example `128Mi`.
///
/// # Errors
/// If it is none, or too little to work with.
pub fn quantity(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err("must be a quantity of bytes, for example 128Mi".into()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .filter(|bytes| *bytes >= LEAST)
        .ok_or_else(|| "must be a quantity of bytes of at least 64Mi, for example 128Mi".into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn what_is_large_waits_for_others_and_what_never_fits_is_told_at_once() {
        let (budget, who) = (Budget::of(128 << 20), "n".into());
        assert_eq!(budget.most_values(), 24 * MIB);
        let first = budget.values(&who, 14 * MIB).await;
        let second = timeout(PATIENCE, budget.values(&who, 14 * MIB));
        assert!(second.await.is_err() && budget.values(&who, 10 * MIB).await.is_some());
        let since = tokio::time::Instant::now();
        for never in [25 * MIB, usize::MAX] {
            assert!(budget.values(&who, never).await.is_none());
            assert!(budget.text(&who, never).await.is_none());
        }
        assert!(budget.text(&who, 8 * MIB).await.is_some());
        assert_eq!(since.elapsed(), Duration::ZERO);
        let later = async {
            tokio::time::sleep(10 * PATIENCE).await;
            drop(first);
        };
        let (all, ()) = tokio::join!(budget.values(&who, 24 * MIB), later);
        assert!(all.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_made_waits_for_what_others_make_and_not_for_ever() {
        let budget = Budget::of(128 << 20);
        let all = budget.make(usize::MAX).await.unwrap();
        assert_eq!(budget.make(1).await.unwrap_err(), Busy);
        drop(all);
        assert!(budget.make(40 * MIB).await.is_ok());
    }

    #[test]
    fn a_thread_that_computes_waits_too() {
        let budget = Budget::of(128 << 20);
        let first = budget.make_beside(30 * MIB).unwrap();
        assert!(budget.make_beside(30 * MIB).is_ok(), "it waits for itself");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| budget.make_beside(30 * MIB).is_ok());
            std::thread::sleep(3 * PAUSE);
            assert!(!waits.is_finished());
            drop(first);
            assert!(waits.join().unwrap());
        });
    }

    #[test]
    fn the_limit_is_that_of_the_cgroup() {
        let root = std::env::temp_dir().join(format!("keyferry-cgroup-{}", std::process::id()));
        fs::create_dir_all(root.join("memory")).unwrap();
        assert_eq!(of_cgroup(&root), None);
        for (file, text, limit) in [
            ("memory.max", "max\n", None),
            ("memory.max", "134217728\n", Some(128 << 20)),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n", None),
            ("memory/memory.limit_in_bytes", "67108864\n", Some(64 << 20)),
        ] {
            fs::write(root.join(file), text).unwrap();
            assert_eq!(of_cgroup(&root), limit, "{file} {text}");
            fs::remove_file(root.join(file)).unwrap();
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_quantity_is_read_as_kubernetes_reads_it() {
        for (text, bytes) in [
            ("128Mi", 128 << 20),
            ("1Gi", 1 << 30),
            ("134217728", 128 << 20),
            ("131072Ki", 128 << 20),
            ("200M", 200_000_000),
        ] {
            assert_eq!(quantity(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "Mi",
            "1",
            "63Mi",
            "-1Gi",
            "128mi",
            "1.5Gi",
            "99999999999999999999Gi",
            "99999999999Gi",
        ] {
            assert!(quantity(text).is_err(), "{text}");
        }
    }
}
