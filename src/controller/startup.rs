//! What a replica does when it begins to lead.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use tokio::time::Instant;

use super::Settings;
use super::context::Context;
use super::index::ObjectKey;
use super::key;
use super::pages::{self, Unlisted};
use super::queue::Priority;
use crate::target::hash::Seal;
use crate::target::leased;

/// Learns which targets are intact, then has everything looked at.
///
/// # Errors
/// What the API server did not do, as a sentence.
pub async fn take_over(ctx: &Arc<Context>, settings: &Settings) -> Result<(), String> {
    // Also in a later term: it is the key that is stored which counts.
    key::ensure(ctx, &settings.operator_namespace).await?;
    // Another process may have read anew what this one knew of an earlier term.
    ctx.leases().clear();
    if settings.namespaces.is_empty() {
        scan(ctx, None).await?;
    }
    let served = settings.namespaces.iter();
    for namespace in served.filter(|namespace| !ctx.unserved.contains(namespace)) {
        scan(ctx, Some(namespace)).await?;
    }
    ctx.doubt_generic_targets();
    let stores: Vec<_> = ctx.known_stores().keys().cloned().collect();
    for key in stores {
        ctx.store_queue.push(&key, Priority::Urgent);
    }
    for key in ctx.index().keys(None) {
        ctx.queue.push(&key, Priority::Routine);
    }
    Ok(())
}

/// Learns which targets of a namespace, or of all, are intact.
///
/// # Errors
/// What the API server did not do, as a sentence.
pub async fn scan(ctx: &Context, namespace: Option<&str>) -> Result<(), String> {
    let Some(hasher) = ctx.hasher() else { return Ok(()) };
    let since = Instant::now();
    let show = |secret: &Secret| {
        // What was signed under a key that is lost is taken to be what was written: nothing says otherwise.
        let seal = hasher.seal(secret);
        ctx.verified(secret, seal != Seal::Broken, since);
        ctx.targets().note_seal(secret, seal);
        if let (Some(until), Some(name)) = (leased::until(secret), &secret.metadata.name) {
            let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
            ctx.inherit_leases(&ObjectKey::new(namespace, name), until);
        }
    };
    match (pages::each(&ctx.client, namespace, show).await, namespace) {
        // A right went since the watch began: the others are served all the same.
        (Err(Unlisted::Forbidden(_)), Some(namespace)) => tracing::warn!(
            namespace,
            "Secrets may not be listed any more; each target is looked at by itself"
        ),
        (listed, _) => listed.map_err(|unlisted| unlisted.to_string())?,
    }
    Ok(())
}
