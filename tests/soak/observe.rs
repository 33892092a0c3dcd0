//! Sees every state of the Secrets of a seed, and all that is there at a quiet point.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DynamicObject, ListParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt as _};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::judge::Seen;
use crate::model::{Tick, Values};
use crate::plan::Planner;
use crate::stage::{Set, patiently};
use crate::world::Id;

/// A watch by the admin, which no fault but the API server's own touches.
pub struct Observer {
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Observer {
    pub fn start(set: &Set<'_>) -> Self {
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let api: Api<Secret> = Api::all(set.stage.cluster.client());
        let namespaces = Planner::namespaces(set.seed);
        let (states, offset, began) = (seen.clone(), set.now(), Instant::now());
        let task = tokio::spawn(async move {
            let mut events = pin!(watcher::watcher(api, watcher::Config::default()).default_backoff());
            let mut known = Known::default();
            while let Some(event) = events.next().await {
                let at = offset + u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                let Ok(event) = event else { continue };
                let news = known.take(event, at);
                let ours = news.into_iter().filter(|seen| namespaces.contains(&seen.id.0));
                states.lock().unwrap_or_else(PoisonError::into_inner).extend(ours);
            }
        });
        Self { seen, task }
    }

    /// What was seen since the last time.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The Secrets that are there, as the watch told. After a break it lists anew; what is missing then was deleted.
#[derive(Default)]
struct Known {
    secrets: BTreeMap<Id, String>,
    listed: BTreeMap<Id, String>,
}

impl Known {
    fn take(&mut self, event: Event<Secret>, at: Tick) -> Vec<Seen> {
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(secret) => {
                let state = seen(&secret, at);
                self.listed.insert(state.id.clone(), state.uid.clone());
                vec![state]
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let old = std::mem::replace(&mut self.secrets, listed).into_iter();
                let missing = old.filter(|(id, _)| !self.secrets.contains_key(id));
                missing
                    .map(|(id, uid)| Seen {
                        at,
                        id,
                        uid,
                        controller: None,
                        data: None,
                    })
                    .collect()
            }
            Event::Apply(secret) => {
                let state = seen(&secret, at);
                self.secrets.insert(state.id.clone(), state.uid.clone());
                vec![state]
            }
            Event::Delete(secret) => {
                let state = seen(&secret, at);
                self.secrets.remove(&state.id);
                vec![Seen { data: None, ..state }]
            }
        }
    }
}

fn seen(secret: &Secret, at: Tick) -> Seen {
    let data: Values = secret
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned()))
        .collect();
    let owners = secret.owner_references().iter();
    let controller = owners
        .filter(|owner| owner.controller == Some(true))
        .map(|owner| (owner.kind.clone(), owner.uid.clone()))
        .next();
    Seen {
        at,
        id: (secret.namespace().unwrap_or_default(), secret.name_any()),
        uid: secret.uid().unwrap_or_default(),
        controller,
        data: Some(data),
    }
}

/// An ExternalSecret as it is.
#[derive(Clone, Debug)]
pub struct External {
    pub uid: String,
    /// Status, reason and message of its Ready condition.
    pub ready: (String, String, String),
}

/// All that is there.
pub struct Scene {
    pub secrets: BTreeMap<Id, Seen>,
    pub externals: BTreeMap<Id, External>,
}

/// Lists everything of a seed.
pub async fn look(set: &Set<'_>) -> Result<Scene> {
    let mut scene = Scene {
        secrets: BTreeMap::new(),
        externals: BTreeMap::new(),
    };
    for namespace in Planner::namespaces(set.seed) {
        let all = ListParams::default();
        let secrets = patiently("the Secrets", || async {
            Ok(set.secrets(&namespace).list(&all).await?)
        });
        for secret in secrets.await? {
            let state = seen(&secret, set.now());
            scene.secrets.insert(state.id.clone(), state);
        }
        let externals = patiently("the ExternalSecrets", || async {
            Ok(set.externals(&namespace).list(&all).await?)
        });
        for external in externals.await? {
            let id = (namespace.clone(), external.name_any());
            let found = External {
                uid: external.uid().unwrap_or_default(),
                ready: ready(&external),
            };
            scene.externals.insert(id, found);
        }
    }
    Ok(scene)
}

fn ready(external: &DynamicObject) -> (String, String, String) {
    let conditions = external.data["status"]["conditions"].as_array();
    let ready = conditions.into_iter().flatten().find(|c| c["type"] == "Ready");
    let text = |key: &str| {
        let text = ready.and_then(|ready| ready[key].as_str());
        text.unwrap_or_default().to_string()
    };
    (text("status"), text("reason"), text("message"))
}
