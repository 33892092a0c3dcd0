//! Hashes of targets that a key or a form of before made, or ESO: signed again without a look at what Vault holds.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use tokio::time::Instant;

use super::context::Context;
use super::gates::store_of;
use super::index::{ObjectKey, target_of};
use super::reconcile::Next;
use crate::api::external_secret::{CreationPolicy, ExternalSecret, RefreshPolicy};
use crate::store::Gate;
use crate::sync::plan::Plan;
use crate::target::apply::{self, ApplyError};
use crate::target::hash::Seal;
use crate::target::plan;

/// Until the next try, where something stood in the way.
const AGAIN: Duration = Duration::from_secs(30);

/// Whether a target is signed again by itself. A hash that can be guessed is replaced soon (promise 8). Any other waits
/// for the next refresh, which looks at the target anyway: a new key makes no storm of writes. Where none comes, nobody
/// else would do it.
#[must_use]
pub fn is_due(seal: Seal, object: &ExternalSecret, interval: Duration) -> bool {
    let refreshed = object.spec.refresh_policy() == RefreshPolicy::Periodic && !interval.is_zero();
    match seal {
        Seal::Bare => true,
        Seal::Old | Seal::Unknown => !refreshed,
        Seal::Intact | Seal::Broken => false,
    }
}

/// Signs the target of an object again that is not due for a sync. Gives when it has to be tried once more. An object of
/// another operator is left alone, and one of which it is not known yet whose it is.
pub async fn renew(
    ctx: &Context,
    key: &ObjectKey,
    object: &ExternalSecret,
    plan: &Plan,
    interval: Duration,
) -> Option<Instant> {
    let (seal, version) = ctx.targets().unsealed(&target_of(object))?;
    let written = object.spec.manifest().is_none() && object.spec.creation_policy() != CreationPolicy::None;
    if !written || !is_due(seal, object, interval) {
        return None;
    }
    let since = Instant::now();
    let labels = ctx.namespaces().get(&*key.namespace).cloned();
    let ours = plan.reads.iter().all(|read| {
        let store = store_of(read, &key.namespace);
        let gate = ctx.stores.gate(&store, &key.namespace, labels.as_ref());
        matches!(gate, Gate::Open(_) | Gate::Closed(_))
    });
    let signed = match ours {
        true => sign(ctx, object, &version, since).await,
        false => return Some(since + AGAIN),
    };
    signed.err().map(|error| {
        let error = error.to_string();
        tracing::debug!(error, namespace = %key.namespace, name = %key.name, "target not signed again yet");
        since + AGAIN
    })
}

/// The earlier of both.
#[must_use]
pub fn sooner(next: Next, again: Option<Instant>) -> Next {
    match (next, again) {
        (Next::At(due), Some(again)) => Next::At(due.min(again)),
        (Next::Nothing, Some(again)) => Next::At(again),
        (next, _) => next,
    }
}

/// What was changed since the scan saw this version is looked at by itself.
async fn sign(
    ctx: &Context,
    object: &ExternalSecret,
    version: &str,
    since: Instant,
) -> Result<(), ApplyError> {
    let (target, hasher) = (target_of(object), ctx.hasher().ok_or(ApplyError::NotLeading)?);
    let existing = apply::get::<Secret>(&ctx.client, &target.namespace, &target.name).await?;
    let existing = existing.filter(|secret| secret.metadata.resource_version.as_deref() == Some(version));
    let Some(sealed) = existing.and_then(|existing| plan::sealed(object, &existing, &hasher)) else {
        return Ok(());
    };
    if let Some(written) = apply::reseal(&ctx.client, &ctx.fence, object, &sealed).await? {
        ctx.verified(&written, true, since);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test(start_paused = true)]
    async fn whatever_comes_first_is_done_first() {
        let now = Instant::now();
        let later = now + Duration::from_secs(9);
        assert_eq!(sooner(Next::At(later), Some(now)), Next::At(now));
        assert_eq!(sooner(Next::At(now), Some(later)), Next::At(now));
        assert_eq!(sooner(Next::Nothing, Some(now)), Next::At(now));
        assert_eq!(sooner(Next::At(now), None), Next::At(now));
    }

    #[test]
    fn what_is_refreshed_waits_for_that_and_a_hash_that_can_be_guessed_does_not() {
        let hour = Duration::from_secs(3600);
        for (policy, interval, seal, wanted) in [
            ("Periodic", hour, Seal::Bare, true),
            ("Periodic", hour, Seal::Old, false),
            ("Periodic", hour, Seal::Unknown, false),
            ("Periodic", Duration::ZERO, Seal::Old, true),
            ("Periodic", Duration::ZERO, Seal::Unknown, true),
            ("CreatedOnce", hour, Seal::Unknown, true),
            ("OnChange", hour, Seal::Old, true),
            ("OnChange", hour, Seal::Broken, false),
        ] {
            let object = serde_json::from_value(json!({
                "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": {"name": "a"},
                "spec": {"refreshPolicy": policy},
            }));
            let is = is_due(seal, &object.unwrap(), interval);
            assert_eq!(is, wanted, "{policy} {interval:?} {seal:?}");
        }
    }
}
