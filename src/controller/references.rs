//! Watches of single objects by name. What a store is made of — certificates, given tokens, the proof of its
//! logins — is watched, so that a rotation or a correction is noticed at once, and not at the store's next check.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::Resource;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as start_watcher};
use tokio::task::JoinHandle;

use super::context::Context;
use super::index::target_of;
use super::outcome::Failure;
use super::queue::Priority;
use crate::api::external_secret::{CreationPolicy, ExternalSecret};
use crate::api::store::StoreKey;
use crate::store::scope::{Reference, ReferenceKind};
use crate::target::apply::{self, ApplyError};
use crate::target::reserved;

/// Objects that are watched at once, a connection each. What is beyond is noticed at the next check of its store.
const FOLLOWED_MAX: usize = 256;

/// Watches of what stores depend on.
#[derive(Default)]
pub struct References(Mutex<HashMap<Reference, Followed>>);

struct Followed {
    users: HashSet<StoreKey>,
    task: JoinHandle<()>,
}

impl References {
    fn followed(&self) -> MutexGuard<'_, HashMap<Reference, Followed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches these objects for a store, and no others for it.
    pub fn follow(&self, ctx: &Arc<Context>, store: &StoreKey, references: &[Reference]) {
        let mut followed = self.followed();
        leave(&mut followed, store, references);
        for reference in references {
            let full = followed.len() >= FOLLOWED_MAX;
            if let Some(known) = followed.get_mut(reference) {
                known.users.insert(store.clone());
            } else if !full {
                let task = tokio::spawn(watch(ctx.clone(), reference.clone()));
                let users = HashSet::from([store.clone()]);
                followed.insert(reference.clone(), Followed { users, task });
            }
        }
    }

    /// Stops watching what a store depends on.
    pub fn unfollow(&self, store: &StoreKey) {
        leave(&mut self.followed(), store, &[]);
    }

    /// How many objects are watched.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.followed().len()
    }

    fn users(&self, reference: &Reference) -> Vec<StoreKey> {
        let followed = self.followed();
        let users = followed
            .get(reference)
            .map(|followed| followed.users.iter().cloned());
        users.into_iter().flatten().collect()
    }
}

fn leave(followed: &mut HashMap<Reference, Followed>, store: &StoreKey, kept: &[Reference]) {
    followed.retain(|reference, followed| {
        if !kept.contains(reference) {
            followed.users.remove(store);
        }
        if followed.users.is_empty() {
            followed.task.abort();
        }
        !followed.users.is_empty()
    });
}

async fn watch(ctx: Arc<Context>, reference: Reference) {
    let known = Mutex::new(None);
    let seen = |sight| {
        let (first_counts, version) = match sight {
            // The first list shows what the check of the store has seen already.
            Sight::Listed(version) => (false, version),
            Sight::Changed(version) => (true, version),
        };
        let old = known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(version.clone());
        if old.map_or(first_counts, |old| old != version) {
            for store in ctx.references.users(&reference) {
                ctx.store_queue.push(&store, Priority::Urgent);
            }
        }
    };
    follow_any(&ctx, &reference, seen).await;
}

/// Refuses a target in the operator's own namespace that a store logs in with, before anything is read for it.
///
/// # Errors
/// If no ExternalSecret made it.
pub async fn refuse_credential(ctx: &Context, object: &ExternalSecret) -> Result<(), Failure> {
    let target = target_of(object);
    let written = object.spec.manifest().is_none() && object.spec.creation_policy() != CreationPolicy::None;
    if !written || *target.namespace != *ctx.operator_namespace {
        return Ok(());
    }
    let stores: Vec<StoreKey> = ctx.known_stores().keys().cloned().collect();
    let wanted = Reference {
        kind: ReferenceKind::Secret,
        namespace: target.namespace.to_string(),
        name: target.name.to_string(),
    };
    let mut stores = stores.iter();
    let Some(store) = stores.find(|store| ctx.stores.references(store).contains(&wanted)) else {
        return Ok(());
    };
    let existing = apply::get::<Secret>(&ctx.client, &target.namespace, &target.name).await?;
    match existing {
        Some(existing) => {
            Ok(reserved::by_use(object, &existing, &store.to_string()).map_err(ApplyError::Target)?)
        }
        None => Ok(()),
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
pub async fn follow_any(ctx: &Context, reference: &Reference, seen: impl Fn(Sight)) {
    match reference.kind {
        ReferenceKind::Secret => follow::<Secret>(ctx, reference, seen).await,
        ReferenceKind::ConfigMap => follow::<ConfigMap>(ctx, reference, seen).await,
        ReferenceKind::ServiceAccount => follow::<ServiceAccount>(ctx, reference, seen).await,
    }
}

async fn follow<K>(ctx: &Context, reference: &Reference, seen: impl Fn(Sight))
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Send
        + 'static,
{
    let api: Api<PartialObjectMeta<K>> = Api::namespaced(ctx.client.clone(), &reference.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", reference.name));
    let start = || {
        start_watcher(api.clone(), config.clone())
            .default_backoff()
            .boxed()
    };
    let (mut events, mut listed) = (start(), None);
    let mut travel = ctx.travels.follow();
    loop {
        let event = tokio::select! {
            // It would go on where it was, and see nothing until the API server is there again.
            () = travel.began() => {
                events = start();
                continue;
            }
            event = events.next() => event,
        };
        match event {
            None => return,
            Some(Ok(Event::Init)) => listed = None,
            Some(Ok(Event::InitApply(object))) => listed = object.metadata.resource_version,
            Some(Ok(Event::InitDone)) => seen(Sight::Listed(listed.take())),
            Some(Ok(Event::Apply(object))) => seen(Sight::Changed(object.metadata.resource_version)),
            Some(Ok(Event::Delete(_))) => seen(Sight::Changed(None)),
            Some(Err(_)) => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::external_secret::StoreKind;

    #[tokio::test]
    async fn an_object_that_two_stores_need_is_watched_until_neither_does() {
        let store = |name: &str| StoreKey {
            kind: StoreKind::ClusterSecretStore,
            namespace: None,
            name: name.into(),
        };
        let reference = Reference {
            kind: ReferenceKind::Secret,
            namespace: "n".into(),
            name: "ca".into(),
        };
        let task = tokio::spawn(std::future::pending());
        let users = HashSet::from([store("a"), store("b")]);
        let mut followed = HashMap::from([(reference.clone(), Followed { users, task })]);
        leave(&mut followed, &store("a"), std::slice::from_ref(&reference));
        assert_eq!(followed[&reference].users.len(), 2);
        leave(&mut followed, &store("a"), &[]);
        assert_eq!(followed[&reference].users, HashSet::from([store("b")]));
        leave(&mut followed, &store("b"), &[]);
        assert!(followed.is_empty());
    }
}
