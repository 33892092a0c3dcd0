//! What one rendering may use, so that a template that never ends harms nobody else.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::funcs::Fault;
use crate::memory::{self, Making};

/// Steps: nodes carried out, elements made.
const STEPS: u64 = 5_000_000;
/// Bytes made by functions and written, together. A Secret holds 1 MiB.
const BYTES: u64 = 32 << 20;
/// Bytes that a rendering makes without asking for memory. One that makes more waits for others.
const SMALL: u64 = 4 << 20;
/// Bytes of the result.
const OUTPUT: usize = 2 << 20;
/// Controls and parentheses in one another, in the text of a template.
pub const DEPTH: usize = 64;
/// Variables of a template, by name and in scope: looking one up takes as long as there are many.
pub const VARIABLES: usize = 1000;
/// Bodies, templates and parentheses in one another, while a template is carried out.
pub const CALLS: usize = 500;
/// Bytes that a function reads in one step; the slowest digest takes about a microsecond for them.
const READ: u64 = 256;
/// How long it may take.
const TIME: Duration = Duration::from_secs(5);

thread_local! {
    /// How long renderings of this thread waited for those of others, which is not their own time.
    static WAITED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// An end in time, which moves by what the thread waits for other renderings.
struct End {
    at: Instant,
    waited: Duration,
}

impl End {
    fn after(time: Duration) -> Self {
        Self {
            at: Instant::now() + time,
            waited: WAITED.get(),
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() > self.at + WAITED.get().saturating_sub(self.waited)
    }
}

/// What is left of it.
pub struct Limits {
    steps: u64,
    bytes: u64,
    end: End,
    large: Option<Making>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps: STEPS,
            bytes: BYTES,
            end: End::after(TIME),
            large: None,
        }
    }
}

impl Limits {
    /// Takes steps.
    ///
    /// # Errors
    /// If none are left, or the time is over.
    pub fn step(&mut self, steps: u64) -> Result<(), Fault> {
        let before = self.steps;
        self.steps = self
            .steps
            .checked_sub(steps)
            .ok_or_else(|| Fault::from(format!("the template takes more than {STEPS} steps")))?;
        // The clock is asked now and then.
        if before / 256 == self.steps / 256 {
            return Ok(());
        }
        self.in_time()
    }

    /// Asks the clock.
    ///
    /// # Errors
    /// If the time is over.
    pub fn in_time(&self) -> Result<(), Fault> {
        if self.end.is_over() {
            return Err(format!("the template takes longer than {} s", TIME.as_secs()).into());
        }
        Ok(())
    }

    /// Takes what it costs to read so many bytes.
    ///
    /// # Errors
    /// Those of [`Self::step`].
    pub fn read(&mut self, bytes: usize) -> Result<(), Fault> {
        self.step(bytes as u64 / READ)
    }

    /// Makes room for bytes that a function is about to make; waits while another rendering makes much.
    ///
    /// # Errors
    /// If it is too much.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Fault> {
        self.bytes = self.bytes.checked_sub(bytes as u64).ok_or_else(|| {
            Fault::from(format!(
                "the template makes more than {} MiB of text",
                BYTES >> 20
            ))
        })?;
        if self.large.is_none() && BYTES - self.bytes > SMALL {
            let since = Instant::now();
            let room = memory::budget().make_beside(BYTES as usize);
            WAITED.set(WAITED.get() + since.elapsed());
            self.large = Some(room.map_err(|busy| Fault::from(busy.to_string()))?);
        }
        Ok(())
    }

    /// Checks the size of the result.
    ///
    /// # Errors
    /// If it is too large.
    pub fn output(size: usize) -> Result<(), Fault> {
        if size > OUTPUT {
            return Err(format!("the template's result is larger than {} MiB", OUTPUT >> 20).into());
        }
        Ok(())
    }
}

/// What is left to all templates of one target together: each alone may be within its limits, and there may be
/// thousands.
pub struct Together {
    bytes: usize,
    end: End,
}

impl Default for Together {
    fn default() -> Self {
        Self {
            bytes: 2 * OUTPUT,
            end: End::after(TIME),
        }
    }
}

impl Together {
    /// Takes the result of one, which has so many bytes.
    ///
    /// # Errors
    /// If no time is left, or it is too much.
    pub fn take(&mut self, bytes: usize) -> Result<(), &'static str> {
        self.bytes = self
            .bytes
            .checked_sub(bytes)
            .ok_or("all templates of the target make more than 4 MiB together; a Secret holds at most one")?;
        if self.end.is_over() {
            return Err("all templates of the target take longer than 5 s together; simplify them");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_of_a_target_share_bytes_and_time() {
        let mut together = Together::default();
        assert_eq!(together.take(OUTPUT), Ok(()));
        assert_eq!(together.take(OUTPUT), Ok(()));
        assert!(together.take(1).is_err_and(|why| why.contains("4 MiB")));
        let mut late = Together {
            end: End::after(Duration::ZERO),
            ..Together::default()
        };
        std::thread::sleep(Duration::from_millis(1));
        assert!(late.take(0).is_err_and(|why| why.contains("5 s together")));
    }

    #[test]
    fn renderings_that_make_much_wait_for_memory_and_those_that_make_little_do_not() {
        let small = || Limits::default().grow(SMALL as usize);
        let others = memory::budget().make_beside(usize::MAX);
        let mut first = Limits::default();
        assert!(first.grow(SMALL as usize + 1).is_ok(), "it waits for itself");
        let (told, heard) = std::sync::mpsc::channel();
        let second = std::thread::spawn(move || {
            let mut second = Limits::default();
            let mut late = End::after(Duration::from_millis(50));
            let grown = second.grow(SMALL as usize + 1).is_ok();
            // What it waited is not its own time.
            let over = late.is_over();
            late.waited = WAITED.get();
            told.send(()).is_ok() && grown && !over && late.is_over()
        });
        assert!(small().is_ok());
        assert!(
            heard.recv_timeout(Duration::from_millis(200)).is_err(),
            "it did not wait"
        );
        drop((others, first));
        assert!(second.join().is_ok_and(|ok| ok));
    }
}
