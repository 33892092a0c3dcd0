//! Events for people: one per change of state, within a budget.
//!
//! kube's own recorder is not used: it keeps the first note of a series, so that the second cause of a
//! failure would be told with the text of the first.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use super::budget::Budget;

/// Events that may be sent at once, and how fast the budget fills up again: a thousand new objects
/// must not become a thousand more writes (promise 5).
const BUDGET: f64 = 50.0;
const PER_SECOND: f64 = 1.0;
const NOTE_MAX: usize = 1024;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends events.
pub struct Recorder {
    client: Client,
    budget: Budget,
}

impl Recorder {
    /// With a full budget.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            budget: Budget::new(BUDGET, PER_SECOND),
        }
    }

    /// Sends an event in the background. Over the budget it is dropped: conditions and metrics tell all.
    pub fn send(&self, about: ObjectReference, warning: bool, reason: &str, note: &str) {
        if !self.budget.take() {
            return;
        }
        let now = Timestamp::now();
        let namespace = about.namespace.clone().unwrap_or_else(|| "default".into());
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
        });
    }
}
