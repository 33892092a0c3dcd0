//! Watches of single objects by name. Objects that a store's login depends on: while a store is not ready, they are watched by name, so
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
use crate::store::scope::{Reference, ReferenceKind};

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
                let seen = |sight| {
                    // The first list shows what the failed login has seen already.
                    if matches!(sight, Sight::Changed(_)) {
                        ctx.store_queue.push(&store, Priority::Urgent);
                    }
                };
                follow_any(ctx.client.clone(), &reference, seen).await;
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

/// What a watch of one object shows: its resourceVersion, or that there is none.
pub enum Sight {
    /// When the watch begins, and after it was interrupted.
    Listed(Option<String>),
    /// When it changes.
    Changed(Option<String>),
}

/// Watches one object until the task ends.
pub async fn follow_any(client: Client, reference: &Reference, seen: impl Fn(Sight)) {
    match reference.kind {
        ReferenceKind::Secret => follow::<Secret>(client, reference, seen).await,
        ReferenceKind::ConfigMap => follow::<ConfigMap>(client, reference, seen).await,
        ReferenceKind::ServiceAccount => follow::<ServiceAccount>(client, reference, seen).await,
    }
}

async fn follow<K>(client: Client, reference: &Reference, seen: impl Fn(Sight))
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
    let mut listed = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = None,
            Ok(Event::InitApply(object)) => listed = object.metadata.resource_version,
            Ok(Event::InitDone) => seen(Sight::Listed(listed.take())),
            Ok(Event::Apply(object)) => seen(Sight::Changed(object.metadata.resource_version)),
            Ok(Event::Delete(_)) => seen(Sight::Changed(None)),
            Err(_) => {}
        }
    }
}
