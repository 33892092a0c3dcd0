//! Events for people: one per change of state, within a budget.
//!
//! kube's own recorder is not used: it keeps the first note of a series, so that the second cause of a
//! failure would be told with the text of the first.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::budget::{Rate, Shares};

/// Events that may be sent at once, and how fast the budget fills up again: a thousand new objects
/// must not become a thousand more writes (promise 5).
const ALL: Rate = Rate {
    size: 100.0,
    per_second: 2.0,
};
/// What one namespace may send of them, so that no tenant silences another.
const EACH: Rate = Rate {
    size: 50.0,
    per_second: 1.0,
};
/// What is left for namespaces that have sent little.
const RESERVE: f64 = 30.0;
/// Events under way at once: an API server that is slow does not gather more.
const IN_FLIGHT: usize = 16;
const NOTE_MAX: usize = 1024;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends events.
pub struct Recorder {
    client: Client,
    shares: Mutex<Shares>,
    places: Arc<Semaphore>,
}

impl Recorder {
    /// With a full budget.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            shares: Mutex::new(Shares::new(ALL, EACH, RESERVE, Instant::now())),
            places: Arc::new(Semaphore::new(IN_FLIGHT)),
        }
    }

    /// Sends an event in the background. Over the budget it is dropped: conditions and metrics tell all.
    pub fn send(&self, about: ObjectReference, warning: bool, reason: &str, note: &str) {
        // Those about objects of the cluster are kept in "default", and share what that has.
        let namespace = about.namespace.clone().unwrap_or_else(|| "default".into());
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return;
        };
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if !shares.take(&namespace, Instant::now()) {
            return;
        }
        drop(shares);
        let now = Timestamp::now();
        let name = format!(
            "{}.{:x}",
            about.name.as_deref().unwrap_or("keyferry"),
            now.as_nanosecond()
        );
        let time = Some(Time(now));
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: about,
            type_: Some(if warning { "Warning" } else { "Normal" }.into()),
            reason: Some(reason.into()),
            message: Some(note.chars().take(NOTE_MAX).collect()),
            source: Some(EventSource {
                component: Some("keyferry".into()),
                host: None,
            }),
            first_timestamp: time.clone(),
            last_timestamp: time,
            count: Some(1),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        tokio::spawn(async move {
            // An event that is lost loses nothing that a condition does not say.
            let _ = tokio::time::timeout(TIMEOUT, api.create(&PostParams::default(), &event)).await;
            drop(place);
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::Request;
    use kube::client::Body;

    use super::*;

    fn about(namespace: Option<&str>) -> ObjectReference {
        ObjectReference {
            namespace: namespace.map(String::from),
            name: Some("app".into()),
            ..ObjectReference::default()
        }
    }

    /// A recorder at an API server that answers nothing, and the paths that it was asked for.
    fn recorder() -> (Recorder, Arc<Mutex<Vec<String>>>, Arc<AtomicUsize>) {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let under_way: Arc<AtomicUsize> = Arc::default();
        let (paths, count) = (asked.clone(), under_way.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            paths.lock().unwrap().push(request.uri().path().to_owned());
            count.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<Result<http::Response<Body>, std::convert::Infallible>>()
        });
        (Recorder::new(Client::new(service, "n")), asked, under_way)
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_is_slow_gathers_no_more_events_than_a_few() {
        let (recorder, _, under_way) = recorder();
        for tenant in 0..1_000 {
            recorder.send(about(Some(&format!("t{tenant}"))), true, "Some", "note");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(under_way.load(Ordering::Relaxed), IN_FLIGHT);
        // What hangs ends, and then there is place again.
        tokio::time::sleep(TIMEOUT).await;
        recorder.send(about(Some("late")), true, "Some", "note");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(under_way.load(Ordering::Relaxed), IN_FLIGHT + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_noisy_tenant_silences_neither_another_nor_the_operator_nor_cluster_stores() {
        let (recorder, asked, _) = recorder();
        for _ in 0..200 {
            for _ in 0..50 {
                recorder.send(about(Some("noisy")), true, "Some", "note");
            }
            tokio::time::sleep(TIMEOUT / 4).await;
        }
        asked.lock().unwrap().clear();
        for quiet in [Some("quiet"), Some("security"), None] {
            recorder.send(about(quiet), true, "Some", "note");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        let asked = asked.lock().unwrap();
        for namespace in ["quiet", "security", "default"] {
            let path = format!("/api/v1/namespaces/{namespace}/events");
            assert!(asked.contains(&path), "{path} is not in {asked:?}");
        }
    }
}
