//! What the bench sees for itself: watch events of Secrets, ExternalSecrets and the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use keyferry_testbed::Cluster;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt as _};

use crate::rig::{NAMESPACE, external_secrets, stores};

/// The last that was seen of an object, and when.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    /// Password of a Secret; `status|message|refreshTime` of the others.
    pub text: String,
}

#[derive(Default)]
struct Sights {
    secrets: HashMap<String, Seen>,
    objects: HashMap<String, Seen>,
    store: Vec<Seen>,
}

pub struct Observer {
    sights: Arc<Mutex<Sights>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

fn state(object: &DynamicObject) -> String {
    let status = &object.data["status"];
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions
        .iter()
        .find(|condition| condition["type"] == "Ready")
        .cloned()
        .unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_string();
    format!(
        "{}|{}|{}",
        text(&ready["status"]),
        text(&ready["message"]),
        text(&status["refreshTime"])
    )
}

impl Observer {
    pub fn start(cluster: &Cluster) -> Self {
        let sights: Arc<Mutex<Sights>> = Arc::default();
        let secrets: Api<Secret> = Api::namespaced(cluster.client(), NAMESPACE);
        let of_secrets = sights.clone();
        let mut tasks = vec![tokio::spawn(follow(secrets, move |secret: Secret| {
            let password = secret.data.as_ref().and_then(|data| data.get("password"));
            let text = password
                .map(|value| String::from_utf8_lossy(&value.0).into_owned())
                .unwrap_or_default();
            let seen = Seen {
                at: Instant::now(),
                text,
            };
            of_secrets.lock().unwrap().secrets.insert(secret.name_any(), seen);
        }))];
        let of_objects = sights.clone();
        tasks.push(tokio::spawn(follow_dynamic(
            external_secrets(cluster.client()),
            move |object| {
                let seen = Seen {
                    at: Instant::now(),
                    text: state(&object),
                };
                of_objects.lock().unwrap().objects.insert(object.name_any(), seen);
            },
        )));
        let of_store = sights.clone();
        tasks.push(tokio::spawn(follow_dynamic(
            stores(cluster.client()),
            move |object| {
                let seen = Seen {
                    at: Instant::now(),
                    text: state(&object),
                };
                of_store.lock().unwrap().store.push(seen);
            },
        )));
        Self { sights, tasks }
    }

    /// Waits until so many Secrets hold what they must; the time of the last.
    pub async fn secrets(
        &self,
        count: usize,
        limit: Duration,
        holds: impl Fn(&str, &str) -> bool,
    ) -> Result<Instant> {
        self.wait("Secrets", count, limit, |sights| last(&sights.secrets, &holds))
            .await
    }

    /// Waits until so many ExternalSecrets are as they must; the time of the last.
    pub async fn objects(
        &self,
        count: usize,
        limit: Duration,
        holds: impl Fn(&str, &str) -> bool,
    ) -> Result<Instant> {
        self.wait("ExternalSecrets", count, limit, |sights| {
            last(&sights.objects, &holds)
        })
        .await
    }

    /// When the store was first seen so after this time.
    pub async fn store(
        &self,
        after: Instant,
        limit: Duration,
        holds: impl Fn(&str) -> bool,
    ) -> Result<Instant> {
        self.wait("store", 1, limit, |sights| {
            let first = sights
                .store
                .iter()
                .find(|seen| seen.at >= after && holds(&seen.text))
                .map(|seen| seen.at);
            (usize::from(first.is_some()), first)
        })
        .await
    }

    /// How many Secrets hold what they must.
    pub fn holding(&self, holds: impl Fn(&str, &str) -> bool) -> usize {
        last(&self.sights.lock().unwrap().secrets, &holds).0
    }

    async fn wait(
        &self,
        what: &str,
        count: usize,
        limit: Duration,
        look: impl Fn(&Sights) -> (usize, Option<Instant>),
    ) -> Result<Instant> {
        let end = Instant::now() + limit;
        loop {
            let began = Instant::now();
            let (found, at) = look(&self.sights.lock().unwrap());
            if let Some(at) = at.filter(|_| found >= count) {
                return Ok(at);
            }
            if Instant::now() > end {
                bail!("{found} of {count} {what} after {limit:?}");
            }
            // The times are those of the events. A look at ten thousand objects takes long, and the processor is
            // shared with what is measured.
            let pause = began.elapsed().saturating_mul(20).max(Duration::from_millis(1));
            tokio::time::sleep(pause).await;
        }
    }
}

fn last(map: &HashMap<String, Seen>, holds: &impl Fn(&str, &str) -> bool) -> (usize, Option<Instant>) {
    let good = map.iter().filter(|(name, seen)| holds(name, &seen.text));
    good.fold((0, None), |(count, at), (_, seen)| {
        (count + 1, at.max(Some(seen.at)))
    })
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn follow(api: Api<Secret>, mut see: impl FnMut(Secret)) {
    let mut events = watcher::watcher(api, watcher::Config::default()).boxed();
    while let Some(event) = events.next().await {
        if let Ok(Event::Apply(object) | Event::InitApply(object)) = event {
            see(object);
        }
    }
}

async fn follow_dynamic(api: Api<DynamicObject>, mut see: impl FnMut(DynamicObject)) {
    let mut events = watcher::watcher(api, watcher::Config::default()).boxed();
    while let Some(event) = events.next().await {
        if let Ok(Event::Apply(object) | Event::InitApply(object)) = event {
            see(object);
        }
    }
}
