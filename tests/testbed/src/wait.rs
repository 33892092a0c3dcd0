//! Waiting for what must come.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// What is waited for will never come: the program that should bring it has ended.
#[derive(Debug)]
pub struct Ended(pub String);

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the program has ended; its last words:\n{}", self.0)
    }
}

impl std::error::Error for Ended {}

/// Asks every 25 ms until there is an answer. An error of the question counts as 'not yet', and is told
/// if time runs out.
///
/// # Errors
/// If time runs out; says what was awaited and what was last seen.
pub async fn wait_for<T, F>(what: &str, limit: Duration, mut ask: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let end = Instant::now() + limit;
    loop {
        let last = match ask().await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => "not yet".to_string(),
            Err(error) if error.is::<Ended>() => return Err(error.context(format!("waited for {what}"))),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > end {
            bail!("waited {limit:?} for {what}; last seen: {last}");
        }
        sleep(Duration::from_millis(25)).await;
    }
}
