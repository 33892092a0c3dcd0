//! What a replica does when it begins to lead.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::ListParams;
use tokio::time::{Instant, timeout};

use super::Settings;
use super::context::Context;
use super::index::ObjectKey;
use super::key;
use super::queue::Priority;
use crate::target::apply;
use crate::target::hash::Seal;
use crate::target::leased;
use crate::target::names;

/// Secrets per page: their data is hashed and dropped before the next page is asked for (promise 5).
const PAGE: u32 = 200;
const TIMEOUT: Duration = Duration::from_secs(30);

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
    let apis: Vec<Api<Secret>> = if settings.namespaces.is_empty() {
        vec![Api::all(ctx.client.clone())]
    } else {
        settings
            .namespaces
            .iter()
            .map(|ns| Api::namespaced(ctx.client.clone(), ns))
            .collect()
    };
    for api in apis {
        let mut params = ListParams::default()
            .labels(&format!("{}=true", names::LABEL_MANAGED))
            .limit(PAGE);
        loop {
            let since = Instant::now();
            let page = timeout(TIMEOUT, api.list(&params))
                .await
                .map_err(|_| "the list of managed Secrets took too long".to_string())?
                .map_err(|e| format!("cannot list managed Secrets: {}", apply::describe(&e)))?;
            for secret in &page.items {
                // What was signed under a key that is lost is taken to be what was written: nothing says otherwise.
                let seal = hasher.seal(secret);
                ctx.verified(secret, seal != Seal::Broken, since);
                ctx.targets().note_seal(secret, seal);
                if let (Some(until), Some(name)) = (leased::until(secret), &secret.metadata.name) {
                    let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
                    ctx.inherit_leases(&ObjectKey::new(namespace, name), until);
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
    }
    Ok(())
}
