//! Objects that a store's login depends on: while a store is not ready, they are watched by name, so
//! that a correction of them is noticed at once (a refused login is otherwise retried calmly).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as start_watcher};
use kube::{Client, Resource};
use tokio::task::JoinHandle;

use super::context::Context;
use super::queue::Priority;
use crate::api::store::StoreKey;
use crate::store::settings::{Reference, ReferenceKind};

/// Watches of what stores depend on.
#[derive(Default)]
pub struct References {
    running: Mutex<HashMap<StoreKey, Vec<JoinHandle<()>>>>,
}

impl References {
    /// Watches what a store depends on, if that is not watched yet.
    pub fn follow(&self, ctx: &Arc<Context>, store: &StoreKey, references: Vec<Reference>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains_key(store) {
            return;
        }
        let tasks = references.into_iter().map(|reference| {
            let (ctx, store) = (ctx.clone(), store.clone());
            tokio::spawn(async move {
                let client = ctx.client.clone();
                let changed = || ctx.store_queue.push(&store, Priority::Urgent);
                match reference.kind {
                    ReferenceKind::Secret => follow::<Secret>(client, &reference, changed).await,
                    ReferenceKind::ConfigMap => follow::<ConfigMap>(client, &reference, changed).await,
                    ReferenceKind::ServiceAccount => {
                        follow::<ServiceAccount>(client, &reference, changed).await
                    }
                }
            })
        });
        running.insert(store.clone(), tasks.collect());
    }

    /// Stops watching what a store depends on.
    pub fn unfollow(&self, store: &StoreKey) {
        let tasks = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(store);
        for task in tasks.into_iter().flatten() {
            task.abort();
        }
    }
}

async fn follow<K>(client: Client, reference: &Reference, changed: impl Fn())
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Send
        + 'static,
{
    let api: Api<PartialObjectMeta<K>> = Api::namespaced(client, &reference.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", reference.name));
    let mut events = start_watcher(api, config).default_backoff().boxed();
    while let Some(event) = events.next().await {
        // The first list shows what the failed login has seen already.
        if matches!(event, Ok(Event::Apply(_) | Event::Delete(_))) {
            changed();
        }
    }
}
