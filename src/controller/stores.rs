//! SecretStores and ClusterSecretStores: checked, told, and their dependents woken.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;

use super::brake;
use super::context::{Context, instant_of, reference};
use super::guarded::{Guarded, Malformed};
use super::index::number;
use super::queue::{Priority, Work};
use super::status::{self, READY, Ready};
use crate::api::external_secret::StoreKind;
use crate::api::store::{ClusterSecretStore, SecretStore, SecretStoreSpec, StoreKey, StoreStatus};
use crate::store::allowed_paths::ANNOTATION;
use crate::store::login::Fault;
use crate::store::scope::{Reference, ReferenceKind};
use crate::store::{Form, Observed, Verdict};
use crate::target::apply;
use crate::telemetry::metrics::Kind;

const STATUS_TIMEOUT: Duration = Duration::from_secs(15);
/// A store that cannot be used for a reason of its own is looked at again this often.
const NOT_READY_REQUEUE: Duration = Duration::from_secs(30);
/// One for which the API server did not give what it needs is looked at again this often.
const UNPROVEN_REQUEUE: Duration = Duration::from_secs(5);
/// One whose status could not be written is looked at again this often.
const UNTOLD_REQUEUE: Duration = Duration::from_secs(2);
const CAPABILITIES: &str = "ReadWrite";

/// A store as the API server shows it.
#[derive(Clone, Debug)]
pub struct KnownStore {
    /// Its status.
    pub status: StoreStatus,
    /// For its events.
    pub reference: ObjectReference,
    /// Its own interval between checks.
    pub requeue: Duration,
    /// Its annotation [`brake::ANNOTATION`].
    pub release: Option<String>,
}

/// Takes note of a SecretStore.
pub fn secret_store_seen(ctx: &Context, key: StoreKey, store: &Guarded<SecretStore>) {
    let parts = store.0.as_ref().map(|store| (&store.spec, store.status.clone()));
    seen(ctx, key, store, parts);
}

/// Takes note of a ClusterSecretStore.
pub fn cluster_store_seen(ctx: &Context, key: StoreKey, store: &Guarded<ClusterSecretStore>) {
    let parts = store
        .0
        .as_ref()
        .map(|store| (&store.spec.store, store.status.clone()));
    seen(ctx, key, store, parts);
}

/// The known stores of some kind or place, and the resourceVersion of each.
pub fn versions(ctx: &Context, which: impl Fn(&StoreKey) -> bool) -> Vec<(StoreKey, u128)> {
    let stores = ctx.known_stores();
    let of = |known: &KnownStore| number(known.reference.resource_version.as_deref());
    let which = stores.iter().filter(|(key, _)| which(key));
    which
        .map(|(key, known)| (key.clone(), of(known).unwrap_or_default()))
        .collect()
}

/// The key of a SecretStore.
#[must_use]
pub fn secret_store_key(store: &Guarded<SecretStore>) -> StoreKey {
    StoreKey {
        kind: StoreKind::SecretStore,
        namespace: store.namespace(),
        name: store.name_any(),
    }
}

/// The key of a ClusterSecretStore.
#[must_use]
pub fn cluster_store_key(store: &Guarded<ClusterSecretStore>) -> StoreKey {
    StoreKey {
        kind: StoreKind::ClusterSecretStore,
        namespace: None,
        name: store.name_any(),
    }
}

fn seen<K: Resource<DynamicType = ()>>(
    ctx: &Context,
    key: StoreKey,
    object: &Guarded<K>,
    parts: Result<(&SecretStoreSpec, Option<StoreStatus>), &Malformed>,
) {
    let meta = object.meta();
    let (requeue, status) = match &parts {
        Ok((spec, status)) => (spec.refresh_interval(ctx.store_requeue).ok(), status.clone()),
        Err(malformed) => (None, Some(told(malformed))),
    };
    let annotation = |name: &str| meta.annotations.as_ref()?.get(name).cloned();
    let release = annotation(brake::ANNOTATION);
    let known = KnownStore {
        status: status.unwrap_or_default(),
        reference: reference(object),
        requeue: requeue.unwrap_or(ctx.store_requeue),
        release: release.clone(),
    };
    let before = ctx.known_stores().insert(key.clone(), known);
    if release.is_some() && before.is_some_and(|before| before.release != release) {
        for held in ctx.brake.held(&key) {
            ctx.queue.push(&held, Priority::Urgent);
        }
    }
    let form = Form {
        uid: meta.uid.clone().unwrap_or_default(),
        generation: meta.generation.unwrap_or_default(),
        allowed_paths: annotation(ANNOTATION),
        digest: parts.as_ref().ok().map(|(spec, _)| digest(spec)),
    };
    let observed = match parts {
        Ok((spec, _)) => ctx.stores.observe(&key, form, spec),
        Err(malformed) => {
            let message = format!(
                "the store cannot be read: {}; it serves nobody until its manifest is corrected",
                malformed.error
            );
            let class = malformed.controller.as_deref();
            ctx.stores.refuse(&key, form, class, message)
        }
    };
    if observed == Observed::Same {
        return;
    }
    ctx.references.unfollow(&key);
    ctx.store_queue.push(&key, Priority::Urgent);
    if observed == Observed::Changed {
        changed(ctx, &key);
    }
}

fn digest(spec: &SecretStoreSpec) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(spec).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

/// The status of a store that cannot be read.
fn told(malformed: &Malformed) -> StoreStatus {
    StoreStatus {
        conditions: malformed.conditions.clone(),
        ..StoreStatus::default()
    }
}

/// What reads from the store reads anew: another path, server, identity or rule may show other values.
fn changed(ctx: &Context, key: &StoreKey) {
    let users = ctx.index().users_of(key);
    for user in users {
        ctx.remember(&user, |memory| memory.store_changed = true);
        ctx.queue.push(&user, Priority::Routine);
    }
}

/// Takes note that a store is gone; its dependents are told.
pub fn gone(ctx: &Context, key: &StoreKey) {
    ctx.known_stores().remove(key);
    ctx.stores.forget(key);
    forget(ctx, key);
    // Also those that are not due yet: by a store that is not there nothing is confirmed any more.
    changed(ctx, key);
    ctx.queue.wake(key);
}

fn forget(ctx: &Context, key: &StoreKey) {
    ctx.store_queue.forget(key);
    ctx.references.unfollow(key);
    forget_metrics(ctx, key);
}

fn forget_metrics(ctx: &Context, key: &StoreKey) {
    ctx.metrics.forget(
        metrics_kind(key),
        key.namespace.as_deref().unwrap_or_default(),
        &key.name,
    );
}

impl super::queue::Owned for StoreKey {
    type Owner = Option<String>;

    fn owner(&self) -> Option<String> {
        self.namespace.clone()
    }
}

/// Checks one store and arranges for the next check.
pub async fn work(ctx: &Arc<Context>, work: &Work<StoreKey>) {
    let key = &work.key;
    let Some(verdict) = ctx.stores.validate(key, work.priority == Priority::Urgent).await else {
        // Another operator's, which tells its state.
        forget_metrics(ctx, key);
        return;
    };
    let Some(known) = ctx.known_stores().get(key).cloned() else {
        return;
    };
    if let Some(end) = quiet_until(&known, &verdict) {
        ctx.store_queue.push_at(key, instant_of(end));
        return;
    }
    let ready = condition(ctx, key, &verdict);
    let namespace = key.namespace.as_deref().unwrap_or_default();
    ctx.metrics
        .condition(metrics_kind(key), namespace, &key.name, ready.status);
    // Whoever waits is woken by any news: by Ready to be synced, by anything else to say the new cause.
    // Before the status is written: nobody should wait for that.
    let news = is_news(&known.status, &ready);
    ctx.references.follow(ctx, key, &references(ctx, key, &verdict));
    if verdict == Verdict::Ready {
        let woken = ctx.queue.wake(key);
        ctx.metrics.woken(woken);
        if woken > 0 {
            tracing::info!(store = %key, woken, "store is ready; its dependents are synced");
        }
    } else if news {
        ctx.queue.wake(key);
    }
    warn_of_exposure(ctx, key, &known);
    let told = write_status(ctx, key, &known, &ready).await;
    let pause = match verdict {
        _ if !told => UNTOLD_REQUEUE.min(known.requeue),
        Verdict::Unproven(_) => UNPROVEN_REQUEUE.min(known.requeue),
        Verdict::NotReady { .. } => NOT_READY_REQUEUE.min(known.requeue),
        Verdict::Ready | Verdict::Outage { .. } => known.requeue,
    };
    ctx.store_queue
        .push_at(key, Instant::now() + pause.mul_f64(rand::random_range(0.9..1.0)));
    // It may have gone meanwhile: what was noted of it since then would stay for ever.
    if !ctx.known_stores().contains_key(key) {
        forget(ctx, key);
    }
}

/// What a change of matters to the store now. A ServiceAccount does only while the login is refused.
fn references(ctx: &Context, key: &StoreKey, verdict: &Verdict) -> Vec<Reference> {
    let mut references = ctx.stores.references(key);
    if !matches!(verdict, Verdict::NotReady { .. }) {
        references.retain(|reference| reference.kind != ReferenceKind::ServiceAccount);
    }
    references
}

/// Until when an election is no news for a store that was ready.
fn quiet_until(known: &KnownStore, verdict: &Verdict) -> Option<Timestamp> {
    match verdict {
        Verdict::Outage { down, .. } if status::is_ready(&known.status.conditions) => down.quiet_until(),
        _ => None,
    }
}

fn condition(ctx: &Context, key: &StoreKey, verdict: &Verdict) -> Ready {
    match verdict {
        // ESO's words; that nobody may use it is worth a word, and no fault of the store.
        Verdict::Ready => match nobody(ctx, key) {
            Some(why) => Ready::yes("Valid", format!("store validated, but {why}")),
            None => Ready::yes("Valid", "store validated"),
        },
        Verdict::Outage { url, down } => Ready::no(
            down.outage.reason(),
            format!(
                "Vault {url} {} (since {}); what depends on it waits, and is synced as soon as Vault is back",
                down.outage.sentence(),
                status::whole_seconds(down.since)
            ),
        ),
        Verdict::Unproven(message) => Ready::no(Fault::Cluster.reason(), message.clone()),
        Verdict::NotReady { reason, message } => Ready::no(reason, message.clone()),
    }
}

/// Manifests that were written for ESO go on working: this is said, and not refused.
fn warn_of_exposure(ctx: &Context, key: &StoreKey, known: &KnownStore) {
    let Some(server) = ctx.stores.newly_exposed(key) else {
        return;
    };
    let message = format!(
        "tokens and secrets go to {server} in plain text, and it does not look like a Service of this cluster; use https"
    );
    ctx.recorder
        .send(known.reference.clone(), true, "PlainHTTP", &message);
}

fn nobody(ctx: &Context, key: &StoreKey) -> Option<String> {
    let users = ctx.index().users_of(key);
    let users = users.into_iter().map(|user| user.namespace.to_string()).collect();
    let namespaces = ctx.namespaces();
    // Of several operators, each with its own namespaces, none may say what another denies.
    let all = ctx.whole_cluster.then_some(&*namespaces);
    ctx.stores.nobody(key, all, &users)
}

fn is_news(old: &StoreStatus, ready: &Ready) -> bool {
    status::conditions(&old.conditions, ready, Timestamp::now()).is_some()
}

/// Says whether the status is as it must be.
async fn write_status(ctx: &Arc<Context>, key: &StoreKey, known: &KnownStore, ready: &Ready) -> bool {
    let mut patch = serde_json::Map::new();
    if let Some(conditions) = status::conditions(&known.status.conditions, ready, Timestamp::now()) {
        patch.insert("conditions".into(), json!(conditions));
    }
    if known.status.capabilities.as_deref() != Some(CAPABILITIES) {
        patch.insert("capabilities".into(), json!(CAPABILITIES));
    }
    if patch.is_empty() {
        return true;
    }
    if !ctx.fence.is_open() {
        return false;
    }
    let flipped = changed_state(&known.status, ready);
    let patch = json!({ "status": patch });
    let client = ctx.client.clone();
    let written = match (&key.kind, &key.namespace) {
        (StoreKind::SecretStore, Some(namespace)) => patch_status(
            Api::<Guarded<SecretStore>>::namespaced(client, namespace),
            key,
            &patch,
        )
        .await
        .map(|store| store.map(|s| s.0.map_or_else(|m| Some(told(&m)), |s| s.status))),
        _ => patch_status(Api::<Guarded<ClusterSecretStore>>::all(client), key, &patch)
            .await
            .map(|store| store.map(|s| s.0.map_or_else(|m| Some(told(&m)), |s| s.status))),
    };
    match written {
        Ok(None) => {}
        Ok(Some(status)) => {
            if let Some(known) = ctx.known_stores().get_mut(key) {
                known.status = status.unwrap_or_default();
            }
            if flipped {
                tell(ctx, key, known, ready);
            }
        }
        Err(error) => {
            tracing::warn!(store = %key, error, "status of the store not written; tried again");
            return false;
        }
    }
    true
}

/// `None` if the store is gone, or its namespace: there is nothing left to tell.
async fn patch_status<K>(api: Api<K>, key: &StoreKey, patch: &serde_json::Value) -> Result<Option<K>, String>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
    let call = api.patch_status(&key.name, &params, &patch);
    match tokio::time::timeout(STATUS_TIMEOUT, call).await {
        Ok(Ok(store)) => Ok(Some(store)),
        Ok(Err(kube::Error::Api(gone))) if gone.code == 404 => Ok(None),
        Ok(Err(error)) => Err(apply::describe(&error)),
        Err(_) => Err("the API server did not answer in time".into()),
    }
}

/// One event per change of state: of the status or its reason, not of the message's details.
fn changed_state(old: &StoreStatus, ready: &Ready) -> bool {
    let known = old.conditions.iter().find(|condition| condition.type_ == READY);
    let status = if ready.status { "True" } else { "False" };
    known.is_none_or(|known| known.status != status || known.reason.as_deref() != Some(&ready.reason))
}

fn tell(ctx: &Context, key: &StoreKey, known: &KnownStore, ready: &Ready) {
    if ready.status {
        tracing::info!(store = %key, "store is ready");
    } else {
        tracing::warn!(store = %key, reason = ready.reason, message = ready.message, "store is not ready");
    }
    ctx.recorder.send(
        known.reference.clone(),
        !ready.status,
        &ready.reason,
        &ready.message,
    );
}

fn metrics_kind(key: &StoreKey) -> Kind {
    match key.kind {
        StoreKind::SecretStore => Kind::SecretStore,
        StoreKind::ClusterSecretStore => Kind::ClusterSecretStore,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::context::tests::context;

    #[tokio::test]
    async fn a_status_that_could_not_be_written_is_written_again_soon() {
        let key = StoreKey {
            kind: StoreKind::ClusterSecretStore,
            namespace: None,
            name: "store".into(),
        };
        let known = KnownStore {
            status: StoreStatus::default(),
            reference: ObjectReference::default(),
            requeue: Duration::from_secs(300),
            release: None,
        };
        let told = async |known: &KnownStore, status: u16, leads: bool| {
            let ctx = context(status);
            if leads {
                ctx.fence.open_for_ever();
            }
            write_status(&ctx, &key, known, &Ready::yes("Valid", "store validated")).await
        };
        assert!(!told(&known, 500, true).await && !told(&known, 200, false).await);
        assert!(told(&known, 404, true).await, "it is gone");
        let conditions = status::conditions(&[], &Ready::yes("Valid", "store validated"), Timestamp::now());
        let mut told_before = known.clone();
        told_before.status.conditions = conditions.unwrap_or_default();
        told_before.status.capabilities = Some(CAPABILITIES.into());
        assert!(told(&told_before, 500, true).await);
    }
}
