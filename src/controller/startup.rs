//! What a replica does when it begins to lead.

use std::sync::Arc;

use tokio::time::Instant;

use super::Settings;
use super::context::Context;
use super::index::ObjectKey;
use super::key;
use super::pages;
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
    scan(ctx, settings).await?;
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

async fn scan(ctx: &Context, settings: &Settings) -> Result<(), String> {
    let Some(hasher) = ctx.hasher() else { return Ok(()) };
    let namespaces = settings
        .namespaces
        .iter()
        .map(|namespace| Some(namespace.as_str()));
    let all = settings.namespaces.is_empty().then_some(None);
    for namespace in namespaces.chain(all) {
        let since = Instant::now();
        pages::each(&ctx.client, namespace, |secret| {
            // What was signed under a key that is lost is taken to be what was written: nothing says otherwise.
            let seal = hasher.seal(secret);
            ctx.verified(secret, seal != Seal::Broken, since);
            ctx.targets().note_seal(secret, seal);
            if let (Some(until), Some(name)) = (leased::until(secret), &secret.metadata.name) {
                let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
                ctx.inherit_leases(&ObjectKey::new(namespace, name), until);
            }
        })
        .await?;
    }
    Ok(())
}
