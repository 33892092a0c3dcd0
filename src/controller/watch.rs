//! The watches. Each has its own backoff, so that one that fails slows no other down, and hands on
//! only what was read: kube's `Controller` puts one backoff over all of its triggers.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use kube::api::ListParams;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event};
use kube::runtime::{WatchStreamExt as _, watcher as start_watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::context::Context;
use super::index::number;
use super::scopes::Progress;
use super::travels::Travel;
use crate::refusal;
use crate::target::apply;

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

/// The API server says within this where it is, or is asked again.
const LOOK: Duration = Duration::from_secs(10);
/// Without an interruption, the API server is asked this often whether it still is where it was.
const ROUTINE: Duration = Duration::from_secs(300);

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

/// What a watch hands on to.
pub struct Receiver<P, G, L> {
    /// Takes an object that is there. One of a list after the API server went back in time is believed whatever is
    /// known of it: then the second is true.
    pub present: P,
    /// Takes the key of an object that is gone.
    pub gone: G,
    /// Lists what is known, with the resourceVersion as far as there is one: what vanished while the watch was down is
    /// handed on as gone.
    pub known: L,
}

impl<T> Watch<T>
where
    T: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    T::DynamicType: Default,
{
    /// Watches until the process ends. `key` tells objects apart; `ready` says whether the first list is
    /// complete.
    pub async fn run<K: Hash + Eq>(
        self,
        ctx: &Context,
        ready: watch::Sender<Progress>,
        key: impl Fn(&T) -> K,
        mut to: Receiver<impl FnMut(T, bool), impl FnMut(&K), impl Fn() -> Vec<(K, u128)>>,
    ) {
        let mut travel = ctx.travels.follow();
        let mut anew = false;
        while self.once(ctx, anew, &mut travel, &ready, &key, &mut to).await {
            anew = true;
        }
        tracing::error!(what = self.what, "watch ended");
    }

    /// Lists and watches. Ends with true when the API server went back in time: a watch that goes on where it was
    /// would see nothing until the API server is past that again, and take what is true now for late.
    async fn once<K: Hash + Eq>(
        &self,
        ctx: &Context,
        anew: bool,
        travel: &mut Travel,
        ready: &watch::Sender<Progress>,
        key: impl Fn(&T) -> K,
        to: &mut Receiver<impl FnMut(T, bool), impl FnMut(&K), impl Fn() -> Vec<(K, u128)>>,
    ) -> bool {
        let what = self.what;
        let mut stream = start_watcher(self.api.clone(), self.config.clone())
            .backoff(Pauses::default())
            .inspect_err(move |error| {
                let error = cause(error);
                tracing::warn!(what, error, "watch interrupted; it goes on by itself");
            })
            .boxed();
        let mut round = Round::new(anew);
        let mut look = self.look(0, ROUTINE).boxed();
        loop {
            let event = tokio::select! {
                biased;
                () = travel.began() => return true,
                is_back = &mut look => {
                    if is_back {
                        travel.tell(ctx);
                        return true;
                    }
                    look = self.look(round.newest, ROUTINE).boxed();
                    continue;
                }
                event = stream.next() => event,
            };
            match event {
                None => return false,
                Some(Ok(event)) => match round.take(event, &key, to) {
                    Taken::In => {}
                    Taken::Listed => drop(ready.send_replace(Progress::Listed)),
                    Taken::Fell => {
                        travel.tell(ctx);
                        return true;
                    }
                },
                Some(Err(error)) => {
                    if is_forbidden(&error) {
                        self.refused(ready);
                    }
                    look = self.look(round.newest, Duration::ZERO).boxed();
                }
            }
        }
    }

    /// What was listed once goes on as it is.
    fn refused(&self, ready: &watch::Sender<Progress>) {
        let progress = match self.dispensable {
            true => Progress::Listed,
            false => Progress::Refused,
        };
        ready.send_if_modified(|known| {
            let news = *known == Progress::Waiting;
            if news {
                *known = progress;
            }
            news
        });
    }

    /// Whether the API server is at an older state than one that was seen, as soon as it says where it is.
    async fn look(&self, seen: u128, after: Duration) -> bool {
        sleep(after.mul_f64(rand::random_range(0.8..1.0))).await;
        if seen == 0 {
            return false;
        }
        let one = ListParams {
            label_selector: self.config.label_selector.clone(),
            field_selector: self.config.field_selector.clone(),
            limit: Some(1),
            ..ListParams::default()
        };
        for pause in Pauses::default() {
            // Without a resourceVersion in the question, the answer is of this moment, from whatever cache.
            let asked = timeout(LOOK, self.api.list_metadata(&one)).await;
            if let Ok(Ok(list)) = asked {
                return list
                    .metadata
                    .resource_version
                    .is_some_and(|now| number(Some(&now)).is_some_and(|now| now < seen));
            }
            sleep(pause).await;
        }
        false
    }
}

/// What one list, and the watch that follows it, showed.
struct Round<K> {
    anew: bool,
    listed: HashSet<K>,
    /// What was known before the list began is not newer than the list.
    before: HashMap<K, u128>,
    newest: u128,
}

/// What an event was.
enum Taken {
    /// It is handed on.
    In,
    /// The list is complete.
    Listed,
    /// An object is older than it was: only where the API server went back in time.
    Fell,
}

impl<K: Hash + Eq> Round<K> {
    fn new(anew: bool) -> Self {
        Self {
            anew,
            listed: HashSet::new(),
            before: HashMap::new(),
            newest: 0,
        }
    }

    fn take<T: Resource>(
        &mut self,
        event: Event<T>,
        key: impl Fn(&T) -> K,
        to: &mut Receiver<impl FnMut(T, bool), impl FnMut(&K), impl Fn() -> Vec<(K, u128)>>,
    ) -> Taken {
        if let Event::InitApply(object) | Event::Apply(object) | Event::Delete(object) = &event {
            self.newest = self.newest.max(version(object));
        }
        match event {
            Event::Init => {
                self.listed.clear();
                self.before.clear();
                if !self.anew {
                    self.before.extend((to.known)());
                }
            }
            Event::InitApply(object) => {
                let key = key(&object);
                if self
                    .before
                    .get(&key)
                    .is_some_and(|before| version(&object) < *before)
                {
                    return Taken::Fell;
                }
                self.listed.insert(key);
                (to.present)(object, self.anew);
            }
            Event::InitDone => {
                let known = (to.known)();
                let vanished = known.iter().filter(|(key, _)| !self.listed.contains(key));
                vanished.for_each(|(key, _)| (to.gone)(key));
                (self.listed, self.before, self.anew) = (HashSet::new(), HashMap::new(), false);
                return Taken::Listed;
            }
            Event::Apply(object) => (to.present)(object, false),
            Event::Delete(object) => (to.gone)(&key(&object)),
        }
        Taken::In
    }
}

fn version(object: &impl Resource) -> u128 {
    number(object.meta().resource_version.as_deref()).unwrap_or_default()
}

/// What broke a watch. The text of the library's error holds the whole answer.
fn cause(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => apply::describe(error),
        watcher::Error::WatchError(status) => {
            format!("the API server answered {}", refusal::told(status))
        }
        watcher::Error::NoResourceVersion => "the API server answered without a resourceVersion".into(),
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
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Request, Response};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::client::Body;
    use kube::{Client, ResourceExt as _};
    use serde_json::json;
    use tokio::sync::mpsc;

    use super::*;
    use crate::controller::context::tests::context_of;

    #[test]
    fn what_breaks_a_watch_is_told_without_what_the_api_server_wrote() {
        let status = || {
            let status = json!({"code": 401, "reason": "Unauthorized", "message": "c4n4ry", "details": {"name": "c4n4ry"}});
            Box::new(serde_json::from_value::<kube::core::Status>(status).unwrap())
        };
        let serde = serde_json::from_str::<u8>("\"c4n4ry\"").unwrap_err();
        for (error, wanted) in [
            (
                watcher::Error::InitialListFailed(kube::Error::Api(status())),
                "the API server answered 401 Unauthorized",
            ),
            (
                watcher::Error::WatchStartFailed(kube::Error::Api(status())),
                "the API server answered 401 Unauthorized",
            ),
            (
                watcher::Error::WatchError(status()),
                "the API server answered 401 Unauthorized",
            ),
            (
                watcher::Error::WatchFailed(kube::Error::SerdeError(serde)),
                "the API server cannot be reached",
            ),
        ] {
            assert!(error.to_string().contains("c4n4ry"), "the library's text has it");
            assert_eq!(cause(&error), wanted);
        }
    }

    #[test]
    fn however_long_the_api_server_was_away_a_watch_is_back_within_five_seconds() {
        let pauses: Vec<_> = Pauses::default().take(20).collect();
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE), "{pauses:?}");
        assert!(pauses[0] < pauses[19], "it is tried less and less often");
        assert_eq!(pauses.len(), 20, "it is tried for ever");
    }

    /// What an API server says: its own resourceVersion, that of the one object that it has, and whether it still knows
    /// where a watch was.
    #[derive(Clone, Copy)]
    struct State {
        now: u64,
        object: u64,
        knows: bool,
    }

    /// What a watch hands on of an API server that is at the first state at first, and then at the second.
    async fn seen(first: State, second: State) -> (bool, bool) {
        let state = Arc::new(Mutex::new(first));
        let asked = state.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let State { now, object, knows } = *asked.lock().unwrap();
            let query = request.uri().query().unwrap_or_default().to_owned();
            let failure = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Some", "message": "-",
                "code": if knows { 503 } else { 410 }});
            let (status, body) = if query.contains("watch=true") && knows {
                (503, failure)
            } else if query.contains("watch=true") {
                (200, json!({"type": "ERROR", "object": failure}))
            } else {
                let object = json!({"metadata": {"name": "a", "resourceVersion": object.to_string()}});
                (
                    200,
                    json!({"metadata": {"resourceVersion": now.to_string()}, "items": [object]}),
                )
            };
            let response = Response::builder().status(status);
            async move {
                let body = Body::from(format!("{body}\n").into_bytes());
                Ok::<_, std::convert::Infallible>(response.body(body).unwrap())
            }
        });
        let client = Client::new(service, "n");
        let ctx = context_of(client.clone());
        let (told, mut heard) = mpsc::unbounded_channel();
        let watch = Watch::<ConfigMap> {
            what: "configmaps",
            api: Api::all(client),
            config: watcher::Config::default(),
            dispensable: false,
        };
        let to = Receiver {
            known: || vec![("a".to_owned(), u128::from(first.object))],
            present: |_, anew| told.send(anew).unwrap(),
            gone: |_: &String| {},
        };
        let key = |object: &ConfigMap| object.name_any();
        tokio::select! {
            () = watch.run(&ctx, watch::Sender::new(Progress::Waiting), key, to) => unreachable!(),
            seen = async {
                let first = heard.recv().await.unwrap();
                *state.lock().unwrap() = second;
                (first, heard.recv().await.unwrap())
            } => seen,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_lists_anew_when_the_api_server_is_at_an_older_state_than_it_has_seen() {
        let state = |now, object| State {
            now,
            object,
            knows: true,
        };
        assert_eq!(seen(state(105, 105), state(100, 100)).await, (false, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_lists_anew_when_an_object_of_a_list_is_older_than_it_was() {
        let (first, second) = (
            State {
                now: 105,
                object: 105,
                knows: true,
            },
            // As etcd's own restore with raised revisions leaves it.
            State {
                now: 1_000_105,
                object: 100,
                knows: false,
            },
        );
        assert_eq!(seen(first, second).await, (false, true));
        let second = State {
            now: 110,
            object: 105,
            knows: false,
        };
        assert_eq!(seen(first, second).await, (false, false), "a list as any other");
    }
}
