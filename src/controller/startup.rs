//! What a replica does when it begins to lead.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ListParams, ObjectMeta, PostParams};
use tokio::time::{Instant, timeout};

use super::Settings;
use super::context::Context;
use super::index::ObjectKey;
use super::queue::Priority;
use crate::target::apply;
use crate::target::hash::DataHasher;
use crate::target::leased;
use crate::target::names;

/// Name of the Secret with the key under which data is hashed, in the operator's own namespace.
pub const INSTALLATION_KEY: &str = "keyferry-installation-key";
const KEY_ENTRY: &str = "key";
const KEY_BYTES: usize = 32;
/// Secrets per page: their data is hashed and dropped before the next page is asked for (promise 5).
const PAGE: u32 = 200;
const TIMEOUT: Duration = Duration::from_secs(30);

/// Learns which targets are intact, then has everything looked at.
///
/// # Errors
/// What the API server did not do, as a sentence.
pub async fn take_over(ctx: &Arc<Context>, settings: &Settings) -> Result<(), String> {
    if ctx.hasher().is_none() {
        ctx.set_hasher(DataHasher::new(
            &installation_key(ctx, &settings.operator_namespace).await?,
        ));
    }
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

/// The key is made once and kept in a Secret, so that a restart knows its own hashes.
async fn installation_key(ctx: &Context, namespace: &str) -> Result<Vec<u8>, String> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    let problem = |verb: &str, error: &kube::Error| {
        format!(
            "cannot {verb} Secret {namespace}/{INSTALLATION_KEY}: {}",
            apply::describe(error)
        )
    };
    for _ in 0..2 {
        if let Some(secret) = api
            .get_opt(INSTALLATION_KEY)
            .await
            .map_err(|e| problem("read", &e))?
        {
            let key = secret
                .data
                .unwrap_or_default()
                .remove(KEY_ENTRY)
                .unwrap_or_default()
                .0;
            if key.len() < KEY_BYTES {
                return Err(format!(
                    "Secret {namespace}/{INSTALLATION_KEY} has no entry '{KEY_ENTRY}' of {KEY_BYTES} bytes; delete it, \
                     and a new one is made"
                ));
            }
            return Ok(key);
        }
        let key: [u8; KEY_BYTES] = rand::random();
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(INSTALLATION_KEY.into()),
                ..ObjectMeta::default()
            },
            data: Some([(KEY_ENTRY.into(), ByteString(key.to_vec()))].into()),
            immutable: Some(true),
            ..Secret::default()
        };
        let params = PostParams::default();
        let created = timeout(TIMEOUT, api.create(&params, &secret))
            .await
            .map_err(|_| format!("cannot create Secret {namespace}/{INSTALLATION_KEY}: it took too long"))?;
        match created {
            Ok(_) => return Ok(key.to_vec()),
            // Another replica was faster, or our own request was repeated: read what is there.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(problem("create", &error)),
        }
    }
    Err(format!(
        "Secret {namespace}/{INSTALLATION_KEY} appears and disappears"
    ))
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
                ctx.verified(secret, hasher.intact(secret), since);
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
