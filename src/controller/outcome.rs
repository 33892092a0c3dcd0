//! What becomes of an ExternalSecret after a try: its status, its events, and when it is tried again.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;

use super::brake;
use super::context::{Context, instant_of, reference};
use super::due;
use super::guarded::Malformed;
use super::index::{Change, ObjectKey, target_of};
use super::queue::Priority;
use super::reconcile::{Next, version_of};
use super::status::{self, DELETION_HELD, RESOURCE_SYNC_ERROR, Ready, SYNC_ERROR, Synced};
use crate::api::duration::GoDuration;
use crate::api::external_secret::ExternalSecret;
use crate::api::store::StoreKey;
use crate::store::connection::Down;
use crate::target::apply::{self, Applied, ApplyError};
use crate::target::manifest;
use crate::target::plan::{Outcome, TargetError};

/// An object that only a change can cure is looked at again this often all the same.
const CALM: Duration = Duration::from_secs(600);
/// The lease may be renewed late: then the fence was closed for a moment, and this replica leads as if nothing had been.
/// If another leads, nobody asks when this is due.
const FENCED: Duration = Duration::from_secs(1);
const STATUS_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a try brought nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The object asks for what cannot be; only a change of it helps.
    Refused(String),
    /// The target cannot be written as wished; a change of it or of the object helps.
    Target(String),
    /// The object's own fault, which may pass.
    Own(String),
    /// The store cannot be used; the text says why.
    Store {
        /// Which.
        store: StoreKey,
        /// Why.
        message: String,
    },
    /// The store has not been checked yet.
    StorePending(StoreKey),
    /// The store's server is out of service: no fault of the object.
    Outage {
        /// Which store.
        store: StoreKey,
        /// Its server.
        url: String,
        /// What is wrong, and since when.
        down: Down,
    },
    /// The target would have to go, and the deletion brake keeps it.
    Held(String),
    /// The API server did not do what was asked; nothing is known to be wrong with the object.
    Api(String),
    /// Somebody else wrote the target since the values were read: they are read again.
    Overtaken(String),
    /// What it works with takes more memory than it was given: it begins anew with more.
    Cramped,
    /// This replica may not write any more.
    NotLeading,
}

/// The message of ESO's table, followed by the cause that ESO hides in an event.
const PROVIDER: &str = "could not get secret data from provider";

impl Failure {
    /// See [`Failure::Refused`].
    #[must_use]
    pub fn refused(cause: String) -> Self {
        Self::Refused(cause)
    }

    /// See [`Failure::Own`].
    #[must_use]
    pub fn own(cause: String) -> Self {
        Self::Own(format!("{PROVIDER}: {cause}"))
    }

    /// There is no such store.
    #[must_use]
    pub fn store_missing(store: &StoreKey) -> Self {
        let message =
            format!("{PROVIDER}: {store} does not exist; create it, and the sync follows by itself");
        Self::Store {
            store: store.clone(),
            message,
        }
    }

    /// The store's conditions leave this namespace out, as far as its labels are known.
    #[must_use]
    pub fn store_forbidden(store: &StoreKey, namespace: &str, labels_known: bool) -> Self {
        let hint = if labels_known {
            ""
        } else {
            "; its labels are unknown: allow the operator to get, list and watch the namespace, or name it in the \
             condition"
        };
        let message = format!(
            "{PROVIDER}: using cluster store \"{}\" is not allowed from namespace \"{namespace}\": denied by \
             spec.condition{hint}",
            store.name
        );
        Self::Store {
            store: store.clone(),
            message,
        }
    }

    /// The store is not ready.
    #[must_use]
    pub fn store_not_ready(store: &StoreKey, reason: &str, cause: &str) -> Self {
        let message = format!("{PROVIDER}: {store} is not ready ({reason}): {cause}");
        Self::Store {
            store: store.clone(),
            message,
        }
    }
}

impl From<ApplyError> for Failure {
    fn from(error: ApplyError) -> Self {
        match error {
            // Somebody corrects the value in Vault, and nothing tells us.
            ApplyError::Target(error @ TargetError::Misfit(..)) => Self::Own(error.to_string()),
            ApplyError::Target(error) => Self::Target(error.to_string()),
            ApplyError::Manifest(error) => Self::Target(error.to_string()),
            ApplyError::Held(message) => Self::Held(message),
            ApplyError::NotLeading => Self::NotLeading,
            ApplyError::Refused(message) => Self::Own(format!("could not update secret: {message}")),
            ApplyError::Unreachable(message) => Self::Api(message),
            ApplyError::Overtaken(_) => Self::Overtaken(error.to_string()),
        }
    }
}

/// Tells a failure, and says when to try again.
pub async fn fail(
    ctx: &Arc<Context>,
    key: &ObjectKey,
    object: &Arc<ExternalSecret>,
    failure: Failure,
) -> Next {
    // Whatever else becomes of it: what waits for a store is tried as soon as that is back.
    ctx.remember(key, |memory| memory.retry = None);
    match failure {
        Failure::NotLeading | Failure::Cramped => Next::At(Instant::now() + FENCED),
        Failure::StorePending(store) => Next::Parked(store, None),
        Failure::Outage { store, url, down } => outage(ctx, key, object, store, &url, down).await,
        Failure::Store { store, message } => {
            say(ctx, key, object, &Ready::no(error_reason(object), message)).await;
            Next::Parked(store, None)
        }
        Failure::Refused(message) => {
            let reason = match error_reason(object) {
                DELETION_HELD => DELETION_HELD,
                _ => SYNC_ERROR,
            };
            say(ctx, key, object, &Ready::no(reason, message)).await;
            Next::Nothing
        }
        Failure::Target(message) => {
            say(ctx, key, object, &Ready::no(error_reason(object), message)).await;
            Next::At(Instant::now() + CALM)
        }
        Failure::Held(message) => {
            say(ctx, key, object, &Ready::no(DELETION_HELD, message)).await;
            let interval = object.spec.refresh_interval().ok();
            let interval = interval.and_then(GoDuration::as_std);
            Next::At(Instant::now() + due::while_held(interval))
        }
        Failure::Own(message) => {
            say(ctx, key, object, &Ready::no(error_reason(object), message)).await;
            Next::At(after_failure(ctx, key, object))
        }
        Failure::Api(message) | Failure::Overtaken(message) => {
            tracing::warn!(
                namespace = &*key.namespace,
                name = &*key.name,
                error = message,
                "try again soon"
            );
            Next::At(after_failure(ctx, key, object))
        }
    }
}

fn after_failure(ctx: &Context, key: &ObjectKey, object: &ExternalSecret) -> Instant {
    ctx.remember(key, |memory| {
        memory.failures = memory.failures.saturating_add(1);
        let wait = due::backoff(memory.failures, Duration::from_millis(memory.cost.into()));
        let at = Instant::now() + wait;
        memory.retry = Some((version_of(object).into(), at));
        at
    })
}

/// An outage is not a failure of the object (promise 2): one that was synced stays Ready for the grace
/// past the time it was due, and says since when its value could not be confirmed. The store tells it at once, and of
/// the objects as many as the budget lets, and each that somebody changed or forced: ten thousand of them must not
/// become twenty thousand writes.
async fn outage(
    ctx: &Arc<Context>,
    key: &ObjectKey,
    object: &Arc<ExternalSecret>,
    store: StoreKey,
    url: &str,
    down: Down,
) -> Next {
    let now = Timestamp::now();
    let overdue = ctx.memory(key).overdue_since.unwrap_or(now);
    let since = status::whole_seconds(down.since);
    let cause = format!("{store}: Vault {url} {} (since {since})", down.outage.sentence());
    let synced_before = object.status.as_ref().is_some_and(|s| s.refresh_time.is_some()) || {
        ctx.memory(key).last_success.is_some()
    };
    let grace_ends = due::grace_ends(overdue, ctx.outage_grace, ctx.leases().ends(key));
    if synced_before && was_ready(object) && now < grace_ends {
        if let Some(end) = down.quiet_until() {
            return Next::Parked(store, Some(instant_of(end.min(grace_ends))));
        }
        let message = format!("secret synced; its value could not be confirmed again: {cause}");
        let ready = Ready::yes(said(object, Outcome::Synced).0, message);
        let mut again = instant_of(grace_ends);
        let status = object.status.as_ref();
        let asked_for = status.and_then(|s| s.synced_resource_version.as_ref()) != Some(&version_of(object));
        if asked_for || !is_news(ctx, key, object, &ready, None) || ctx.unconfirmed.take() {
            say(ctx, key, object, &ready).await;
        } else {
            again = again.min(Instant::now() + budget_wait(ctx.queue.depth().parked));
        }
        return Next::Parked(store, Some(again));
    }
    let message = format!("{PROVIDER}: {cause}; it is synced by itself as soon as Vault is back");
    say(ctx, key, object, &Ready::no(error_reason(object), message)).await;
    Next::Parked(store, None)
}

/// So many objects may be told at once that their values cannot be confirmed, and so many more in each second.
pub const UNCONFIRMED: f64 = 100.0;
/// See [`UNCONFIRMED`].
pub const UNCONFIRMED_PER_SECOND: f64 = 10.0;

/// When one of so many that wait for the budget asks it again: together they ask as often as it has something.
fn budget_wait(waiting: usize) -> Duration {
    let turn = u32::try_from(waiting).map_or(f64::MAX, f64::from) / UNCONFIRMED_PER_SECOND;
    let longest = turn.min(CALM.as_secs_f64());
    Duration::from_secs(1) + Duration::from_secs_f64(rand::random_range(0.0..=longest))
}

/// The target of an object, for messages.
#[must_use]
pub fn named(object: &ExternalSecret) -> String {
    let kind = object.spec.manifest().map_or("Secret", |manifest| &manifest.kind);
    format!("{kind} {}", target_of(object))
}

/// Reason and message of a success.
#[must_use]
pub fn said(object: &ExternalSecret, outcome: Outcome) -> (&'static str, &'static str) {
    match object.spec.manifest() {
        Some(_) => manifest::ready(outcome),
        None => (outcome.reason(), outcome.message()),
    }
}

/// What is kept says so until it is synced or goes, whatever fails meanwhile: a restart knows it by this.
pub(super) fn error_reason(object: &ExternalSecret) -> &'static str {
    match object.spec.manifest() {
        _ if brake::is_held(object) => DELETION_HELD,
        Some(_) => RESOURCE_SYNC_ERROR,
        None => SYNC_ERROR,
    }
}

/// Whether the status says that the last try failed.
#[must_use]
pub fn has_failed(object: &ExternalSecret) -> bool {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    conditions
        .filter(|condition| condition.type_ == status::READY && condition.status == "False")
        .any(|condition| condition.reason.as_deref() == Some(error_reason(object)))
}

/// Whether the status says that it is synced.
#[must_use]
pub fn was_ready(object: &ExternalSecret) -> bool {
    object
        .status
        .as_ref()
        .is_some_and(|known| status::is_ready(&known.conditions))
}

/// Writes a condition, and an event if it is news.
async fn say(ctx: &Arc<Context>, key: &ObjectKey, object: &Arc<ExternalSecret>, ready: &Ready) {
    if let Err(Failure::Api(error)) = write_status(ctx, key, object, ready, None).await {
        tracing::debug!(
            namespace = &*key.namespace,
            name = &*key.name,
            error,
            "status not written"
        );
    }
}

/// Whether the status is worth a write.
#[must_use]
pub fn is_news(
    ctx: &Context,
    key: &ObjectKey,
    object: &ExternalSecret,
    ready: &Ready,
    synced: Option<&Synced>,
) -> bool {
    let current = ctx.index().get(key);
    let old = current.as_deref().unwrap_or(object).status.clone();
    status::patch(&old.unwrap_or_default(), ready, synced, Timestamp::now()).is_some()
}

/// Writes the status, if it is worth a write.
///
/// # Errors
/// If this replica may not write, or the API server did not take it.
pub async fn write_status(
    ctx: &Arc<Context>,
    key: &ObjectKey,
    object: &Arc<ExternalSecret>,
    ready: &Ready,
    synced: Option<&Synced>,
) -> Result<(), Failure> {
    ctx.metrics
        .objects()
        .condition(&key.namespace, &key.name, ready.status);
    // The freshest that is known: the watch may have brought a newer one since the try began.
    let current = ctx
        .index()
        .get(key)
        .filter(|current| current.uid() == object.uid());
    let Some(current) = current else { return Ok(()) };
    let old = current.status.clone().unwrap_or_default();
    let Some(patch) = status::patch(&old, ready, synced, Timestamp::now()) else {
        return Ok(());
    };
    if !ctx.fence.is_open() {
        return Err(Failure::NotLeading);
    }
    let news = patch["status"].get("conditions").is_some();
    let api: Api<ExternalSecret> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let written = tokio::time::timeout(
        STATUS_TIMEOUT,
        api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(&patch)),
    )
    .await;
    match written {
        Ok(Ok(written)) => {
            let change = ctx.index().answered(written);
            if change == Change::Wanted {
                // The answer shows a change that the watch has yet to bring; then it will look like ours.
                ctx.queue.push(key, Priority::Urgent);
            }
        }
        Ok(Err(kube::Error::Api(gone))) if gone.code == 404 => return Ok(()),
        Ok(Err(error)) => {
            return Err(Failure::Api(format!(
                "status not written: {}",
                apply::describe(&error)
            )));
        }
        Err(_) => {
            return Err(Failure::Api(
                "status not written: the API server did not answer in time".into(),
            ));
        }
    }
    if news {
        tell(ctx, key, object, ready);
    }
    Ok(())
}

fn tell(ctx: &Context, key: &ObjectKey, object: &ExternalSecret, ready: &Ready) {
    let (namespace, name) = (&*key.namespace, &*key.name);
    if ready.status {
        tracing::info!(
            namespace,
            name,
            reason = ready.reason,
            message = ready.message,
            "ExternalSecret is ready"
        );
    } else {
        tracing::warn!(
            namespace,
            name,
            reason = ready.reason,
            message = ready.message,
            "ExternalSecret is not ready"
        );
        let reason = match &*ready.reason {
            DELETION_HELD => DELETION_HELD,
            _ => "UpdateFailed",
        };
        ctx.recorder.send(reference(object), true, reason, &ready.message);
    }
}

/// Tells that the target was written.
pub fn tell_written(ctx: &Context, object: &ExternalSecret, applied: &Applied) {
    let (reason, note) = match (applied.deleted, applied.created) {
        (true, _) => ("Deleted", "secret deleted due to DeletionPolicy=Delete"),
        (_, true) => ("Created", "secret created"),
        _ => ("Updated", "secret updated"),
    };
    ctx.recorder.send(reference(object), false, reason, note);
}

/// Deletes Secrets that this object once created under another name. Done after the new one holds what it must.
///
/// # Errors
/// If this replica may not write, or the API server did not take it.
pub async fn delete_orphans(ctx: &Arc<Context>, object: &ExternalSecret) -> Result<(), Failure> {
    let (target, uid) = (target_of(object), object.uid().unwrap_or_default());
    let orphans = ctx
        .targets()
        .orphans(&target.namespace, &object.name_any(), &uid, &target.name);
    for (key, seen) in orphans {
        apply::delete(
            &ctx.client,
            &ctx.fence,
            &key.namespace,
            &key.name,
            &seen.uid,
            &seen.resource_version,
        )
        .await
        .map_err(Failure::from)?;
        ctx.targets().remove(&key);
        ctx.recorder.send(
            reference(object),
            false,
            "Deleted",
            "secret deleted because it was orphaned",
        );
    }
    Ok(())
}

/// Tells that an object cannot be read at all. Only the API server's schema stands before this, so it
/// is rare; the status is patched without the type, which the object does not fit.
pub fn tell_malformed(ctx: &Arc<Context>, key: ObjectKey, invalid: &Malformed) {
    let message = format!(
        "the object cannot be read: {}; correct its manifest",
        invalid.error
    );
    tracing::warn!(
        namespace = &*key.namespace,
        name = &*key.name,
        error = message,
        "malformed ExternalSecret"
    );
    let ctx = ctx.clone();
    tokio::spawn(async move {
        let ready = Ready::no(SYNC_ERROR, message);
        let Some(conditions) = status::conditions(&[], &ready, Timestamp::now()) else {
            return;
        };
        let resource = ApiResource::erase::<ExternalSecret>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(ctx.client.clone(), &key.namespace, &resource);
        let patch = json!({"status": {"conditions": conditions}});
        if ctx.fence.is_open() {
            let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
            let call = api.patch_status(&key.name, &params, &patch);
            let _ = tokio::time::timeout(STATUS_TIMEOUT, call).await;
        }
    });
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;
    use crate::controller::context::tests::context;

    #[tokio::test(start_paused = true)]
    async fn what_met_a_fence_that_was_closed_for_a_moment_is_tried_again() {
        let object = serde_json::from_value(json!({
            "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": {"name": "a"}, "spec": {},
        }));
        let object: Arc<ExternalSecret> = Arc::new(object.unwrap_or_else(|error| panic!("{error}")));
        let key = ObjectKey::new("n", "a");
        let next = fail(&context(200), &key, &object, Failure::NotLeading).await;
        assert_eq!(next, Next::At(Instant::now() + FENCED));
    }
}
