//! The watches. Each has its own backoff, so that one that fails slows no other down, and hands on
//! only what was read: kube's `Controller` puts one backoff over all of its triggers.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event};
use kube::runtime::{WatchStreamExt as _, watcher as start_watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// Who cannot see must not be told of changes late: longest pause before a watch that broke is tried again. There are
/// few of them, so that this is little for an API server that is in trouble; kube's own is 30 s.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Pauses between the tries of a watch that broke.
#[derive(Default)]
struct Pauses(DefaultBackoff);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let longest = LONGEST_PAUSE.mul_f64(rand::random_range(0.8..1.0));
        self.0.next().map(|pause| pause.min(longest))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// One watch of one kind in one namespace (or in all).
pub struct Watch<T> {
    /// For logs.
    pub what: &'static str,
    /// Where.
    pub api: Api<T>,
    /// Which.
    pub config: watcher::Config,
    /// Whether nobody waits for it where the right to it is missing.
    pub dispensable: bool,
}

impl<T> Watch<T>
where
    T: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T::DynamicType: Default,
{
    /// Watches until the process ends. `key` tells objects apart; `known` lists the keys that the
    /// receiver holds, so that what vanished while the watch was down is handed on as gone; `ready`
    /// becomes true when the first list is complete.
    pub async fn run<K: Hash + Eq>(
        self,
        ready: watch::Sender<bool>,
        key: impl Fn(&T) -> K,
        known: impl Fn() -> Vec<K>,
        mut present: impl FnMut(T),
        mut gone: impl FnMut(&K),
    ) {
        let (what, dispensable) = (self.what, self.dispensable);
        let mut stream = start_watcher(self.api, self.config)
            .backoff(Pauses::default())
            .inspect_err(move |error| tracing::warn!(what, %error, "watch interrupted; it goes on by itself"))
            .boxed();
        let mut listed: HashSet<K> = HashSet::new();
        while let Some(event) = stream.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(object)) => {
                    listed.insert(key(&object));
                    present(object);
                }
                Ok(Event::InitDone) => {
                    known()
                        .iter()
                        .filter(|key| !listed.contains(*key))
                        .for_each(&mut gone);
                    listed = HashSet::new();
                    ready.send_replace(true);
                }
                Ok(Event::Apply(object)) => present(object),
                Ok(Event::Delete(object)) => gone(&key(&object)),
                Err(error) if dispensable && is_forbidden(&error) => drop(ready.send_replace(true)),
                Err(_) => {}
            }
        }
        tracing::error!(what, "watch ended");
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => {
            matches!(error, kube::Error::Api(status) if status.code == 403)
        }
        watcher::Error::WatchError(status) => status.code == 403,
        watcher::Error::NoResourceVersion => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_long_the_api_server_was_away_a_watch_is_back_within_five_seconds() {
        let pauses: Vec<_> = Pauses::default().take(20).collect();
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE), "{pauses:?}");
        assert!(pauses[0] < pauses[19], "it is tried less and less often");
        assert_eq!(pauses.len(), 20, "it is tried for ever");
    }
}
