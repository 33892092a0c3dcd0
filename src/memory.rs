//! One budget of bytes for the process: what is large asks before it allocates, and waits, or is told that it can never
//! fit. A pod that goes over the limit of its cgroup is killed, and what killed it comes back at each start.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Less than this is not asked for: hardly anything is larger, and what is asks in time.
pub const QUICK: usize = 64 << 10;
/// What the largest object takes up while it is read: its text, and what is made of it.
const OBJECT: usize = 4 << 20;
/// So many are read at once.
const OBJECTS: usize = 4;
/// The chart's limit, for a process that has none.
const LIMIT: u64 = 128 << 20;
/// No process works with less.
const LEAST: u64 = 64 << 20;
/// How long to wait for what others use. Nobody who waits holds any.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries of a thread that computes.
const PAUSE: Duration = Duration::from_millis(10);

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Short {
    /// It is more than there will ever be.
    #[error(
        "it needs more memory than the operator has; read less, or raise the memory limit of its pod (resources.limits.memory)"
    )]
    Never,
    /// Others use it.
    #[error(
        "the operator's memory is in use by other large objects; it is tried again. If it stays so, raise the memory limit of \
         its pod (resources.limits.memory)"
    )]
    Busy,
}

/// The budget.
#[derive(Debug)]
pub struct Budget {
    free: Arc<Semaphore>,
    kib: u32,
    /// Objects of the API server that are got at once. They have room of their own: each is small for all that is known
    /// before, and an ordinary one must not wait for what is large.
    objects: Semaphore,
}

/// A part of it, until it is dropped.
#[derive(Debug)]
pub struct Share {
    _part: OwnedSemaphorePermit,
}

/// Gets an object of the API server, which shows its size only when it is there: few at once.
pub async fn getting<T>(get: impl Future<Output = T>) -> T {
    // It is never closed.
    let _room = budget().objects.acquire().await;
    get.await
}

impl Budget {
    /// Of a process that may take up so much: the other half is for what it always holds, and for all that is small.
    #[must_use]
    pub fn of(limit: u64) -> Self {
        let half = limit.max(LEAST) / 2 - (OBJECTS * OBJECT) as u64;
        let kib = u32::try_from(half / 1024).unwrap_or(u32::MAX);
        let kib = kib.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Self {
            free: Arc::new(Semaphore::new(kib as usize)),
            kib,
            objects: Semaphore::new(OBJECTS),
        }
    }

    fn part(&self, bytes: usize) -> Result<u32, Short> {
        let kib = u32::try_from(bytes.div_ceil(1024)).map_err(|_| Short::Never)?;
        if kib > self.kib {
            Err(Short::Never)
        } else {
            Ok(kib)
        }
    }

    /// So many bytes, as soon as they are free.
    ///
    /// # Errors
    /// If they never are, or not in time.
    pub async fn take(&self, bytes: usize) -> Result<Share, Short> {
        let part = self.part(bytes)?;
        match timeout(PATIENCE, self.free.clone().acquire_many_owned(part)).await {
            Ok(Ok(part)) => Ok(Share { _part: part }),
            // It is never closed.
            Ok(Err(_)) | Err(_) => Err(Short::Busy),
        }
    }

    /// The same for a thread that computes.
    ///
    /// # Errors
    /// As of [`take`](Self::take).
    pub fn take_beside(&self, bytes: usize) -> Result<Share, Short> {
        let (part, end) = (self.part(bytes)?, Instant::now() + PATIENCE);
        loop {
            if let Ok(part) = self.free.clone().try_acquire_many_owned(part) {
                return Ok(Share { _part: part });
            }
            if Instant::now() > end {
                return Err(Short::Busy);
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
        let budget = Budget::of(128 << 20);
        let first = budget.take(30 * MIB).await.unwrap();
        assert_eq!(budget.take(30 * MIB).await.unwrap_err(), Short::Busy);
        let second = budget.take(18 * MIB).await.unwrap();
        let since = tokio::time::Instant::now();
        for never in [49 * MIB, usize::MAX] {
            assert_eq!(budget.take(never).await.unwrap_err(), Short::Never);
            assert_eq!(budget.take_beside(never).unwrap_err(), Short::Never);
        }
        assert_eq!(since.elapsed(), Duration::ZERO);
        let later = async {
            tokio::time::sleep(PATIENCE / 2).await;
            drop((first, second));
        };
        let (all, ()) = tokio::join!(budget.take(48 * MIB), later);
        assert!(all.is_ok());
    }

    #[test]
    fn a_thread_that_computes_waits_too() {
        let budget = Budget::of(128 << 20);
        let first = budget.take_beside(40 * MIB).unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| budget.take_beside(40 * MIB).is_ok());
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
