//! What stands between an ExternalSecret and the stores that it names.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use super::context::Context;
use super::fetch;
use super::index::ObjectKey;
use super::outcome::Failure;
use crate::api::external_secret::StoreKind;
use crate::api::store::StoreKey;
use crate::store::{Gate, Store, Verdict};
use crate::sync::plan::{Plan, Read};

/// All stores that the plan needs, each open; `None` if the object is another operator's.
///
/// # Errors
/// Why one is not.
pub fn open_stores(ctx: &Context, key: &ObjectKey, plan: &Plan) -> Result<Option<Vec<Arc<Store>>>, Failure> {
    let labels = ctx.namespaces().get(&*key.namespace).cloned();
    let mut stores = Vec::with_capacity(plan.reads.len());
    let mut closed = None;
    for read in &plan.reads {
        let store_key = store_of(read, &key.namespace);
        match ctx.stores.gate(&store_key, &key.namespace, labels.as_ref()) {
            Gate::OtherClass => return Ok(None),
            Gate::Open(store) => stores.push(store),
            Gate::Missing => closed = closed.or(Some(Failure::store_missing(&store_key))),
            Gate::Forbidden => closed = closed.or(Some(forbidden(ctx, &store_key, key))),
            // Nobody needs to change anything, and it is known better in a moment.
            Gate::Pending | Gate::Closed(Verdict::Unproven(_)) => {
                closed = closed.or(Some(Failure::StorePending(store_key)))
            }
            Gate::Closed(Verdict::Outage { url, down }) => {
                closed = closed.or(Some(Failure::Outage {
                    store: store_key,
                    url,
                    down,
                }));
            }
            Gate::Closed(Verdict::NotReady { reason, message }) => {
                closed = closed.or(Some(Failure::store_not_ready(&store_key, reason, &message)));
            }
            Gate::Closed(Verdict::Ready) => {}
        }
    }
    closed.map_or(Ok(Some(stores)), Err)
}

fn forbidden(ctx: &Context, store: &StoreKey, key: &ObjectKey) -> Failure {
    let known = ctx.namespaces().contains_key(&*key.namespace);
    let by_labels = ctx.stores.looks_at_labels(store);
    Failure::store_forbidden(store, &key.namespace, known || !by_labels)
}

/// An object that is not due yet is told at once that it may not be read any more. Its target stays as it is.
///
/// # Errors
/// If it may not.
pub async fn still_allowed(ctx: &Context, key: &ObjectKey, plan: &Plan) -> Result<(), Failure> {
    let labels = ctx.namespaces().get(&*key.namespace).cloned();
    let mut result = Ok(());
    for (number, read) in plan.reads.iter().enumerate() {
        let store_key = store_of(read, &key.namespace);
        // Whatever its state: a store that was just changed is not checked yet.
        let Some(store) = ctx.stores.served(&store_key) else {
            continue;
        };
        if number % store.at_a_turn() == 0 {
            tokio::task::yield_now().await;
        }
        if !store.admits(&key.namespace, labels.as_ref()) {
            result = Err(forbidden(ctx, &store_key, key));
        } else if let Err(failure) = fetch::permit(ctx, key, read, &store) {
            result = Err(failure);
        }
    }
    if result.is_err() {
        // When it is allowed again, it is synced at once.
        ctx.remember(key, |memory| memory.overdue_since = Some(Timestamp::now()));
    }
    result
}

/// The store that a read of this namespace means.
fn store_of(read: &Read, namespace: &str) -> StoreKey {
    let kind = read.store.kind;
    let namespace = (kind == StoreKind::SecretStore).then(|| namespace.to_string());
    StoreKey {
        kind,
        namespace,
        name: read.store.name.clone(),
    }
}
