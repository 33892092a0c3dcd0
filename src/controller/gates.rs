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
    let result = allowed(ctx, key, plan, |_| Ok(())).await;
    if result.is_err() {
        // When it is allowed again, it is synced at once.
        ctx.remember(key, |memory| memory.overdue_since = Some(Timestamp::now()));
    }
    result
}

/// Whether what was read may be written: reading, and rendering, may have taken seconds, in which a store or a namespace
/// was changed. What may not be read any more is not written either, nor is its absence believed.
///
/// # Errors
/// If it may not.
pub async fn may_write(ctx: &Context, key: &ObjectKey, plan: &Plan) -> Result<(), Failure> {
    // Another operator's now; it tells the object.
    allowed(ctx, key, plan, |store| Err(Failure::StorePending(store.clone()))).await
}

/// Whether the stores, as they are now, let the object have all that it reads, whatever their servers' state: a store
/// that was just changed is not checked yet.
async fn allowed(
    ctx: &Context,
    key: &ObjectKey,
    plan: &Plan,
    of_another: impl Fn(&StoreKey) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let of_namespace = || ctx.namespaces().get(&*key.namespace).cloned();
    let mut labels = of_namespace();
    for (number, read) in plan.reads.iter().enumerate() {
        let store_key = store_of(read, &key.namespace);
        let Some(store) = ctx.stores.served(&store_key) else {
            match ctx.stores.gate(&store_key, &key.namespace, labels.as_ref()) {
                Gate::Missing => return Err(Failure::store_missing(&store_key)),
                Gate::Closed(Verdict::NotReady { reason, message }) => {
                    return Err(Failure::store_not_ready(&store_key, reason, &message));
                }
                Gate::OtherClass => of_another(&store_key)?,
                // Changed between the two looks: it is judged anew, and so is the object.
                Gate::Forbidden | Gate::Pending | Gate::Closed(_) | Gate::Open(_) => {
                    return Err(Failure::StorePending(store_key));
                }
            }
            continue;
        };
        if number % store.at_a_turn() == 0 {
            tokio::task::yield_now().await;
            labels = of_namespace();
        }
        if !store.admits(&key.namespace, labels.as_ref()) {
            return Err(forbidden(ctx, &store_key, key));
        }
        fetch::permit(ctx, key, read, &store)?;
    }
    Ok(())
}

/// The store that a read of this namespace means.
pub(super) fn store_of(read: &Read, namespace: &str) -> StoreKey {
    let kind = read.store.kind;
    let namespace = (kind == StoreKind::SecretStore).then(|| namespace.to_string());
    StoreKey {
        kind,
        namespace,
        name: read.store.name.clone(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::external_secret::ExternalSecret;
    use crate::controller::context::tests::context;
    use crate::controller::stores;
    use crate::sync::plan::plan;

    fn seen(ctx: &Context, generation: i64, rest: Value) {
        let mut spec = json!({"provider": {"fake": {"data": [{"key": "p", "value": "s3cr3t"}]}}});
        spec.as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        let store = json!({
            "apiVersion": "external-secrets.io/v1", "kind": "ClusterSecretStore",
            "metadata": {"name": "store", "uid": "u", "generation": generation}, "spec": spec,
        });
        let store = serde_json::from_str(&store.to_string()).unwrap();
        stores::cluster_store_seen(ctx, stores::cluster_store_key(&store), &store);
    }

    fn user(ctx: &Context) -> (ObjectKey, Plan) {
        let object: ExternalSecret = serde_json::from_value(json!({
            "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
            "metadata": {"namespace": "db", "name": "a", "uid": "a", "generation": 1},
            "spec": {
                "secretStoreRef": {"kind": "ClusterSecretStore", "name": "store"},
                "data": [{"secretKey": "k", "remoteRef": {"key": "p"}}],
            },
        }))
        .unwrap();
        let plan = plan(&object.spec, "db").unwrap();
        (ctx.index().apply(object).0, plan)
    }

    /// What its user is told when it is not due, and why what it has just read is not written.
    async fn refusals(ctx: &Context, key: &ObjectKey, plan: &Plan) -> (String, String) {
        let told = still_allowed(ctx, key, plan).await;
        let kept = may_write(ctx, key, plan).await;
        (format!("{told:?}"), format!("{kept:?}"))
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_read_or_is_gone_serves_nobody_and_a_mended_one_serves_again() {
        let ctx = context(200);
        let (key, plan) = user(&ctx);
        let fine = ("Ok(())".to_owned(), "Ok(())".to_owned());
        seen(&ctx, 1, json!({}));
        assert_eq!(refusals(&ctx, &key, &plan).await, fine);
        assert!(!ctx.memory(&key).store_changed);
        seen(
            &ctx,
            2,
            json!({"refreshInterval": 99_999_999_999_i64, "conditions": [{"namespaces": ["web"]}]}),
        );
        let (told, kept) = refusals(&ctx, &key, &plan).await;
        for refusal in [told, kept] {
            assert!(
                refusal.contains("cannot be read: spec.refreshInterval"),
                "{refusal}"
            );
            assert!(
                !refusal.contains("s3cr3t") && !refusal.contains("99999"),
                "{refusal}"
            );
        }
        assert!(ctx.memory(&key).store_changed, "it is told at once");
        seen(&ctx, 3, json!({}));
        assert_eq!(refusals(&ctx, &key, &plan).await, fine);
        ctx.remember(&key, |memory| memory.store_changed = false);
        let store = ctx.known_stores().keys().next().cloned().unwrap();
        stores::gone(&ctx, &store);
        let (told, kept) = refusals(&ctx, &key, &plan).await;
        assert!(
            told.contains("does not exist") && kept.contains("does not exist"),
            "{told}"
        );
        assert!(ctx.memory(&key).store_changed, "it is told at once");
    }

    #[tokio::test]
    async fn what_was_allowed_when_it_was_read_is_judged_again_before_it_is_written() {
        let ctx = context(200);
        let (key, plan) = user(&ctx);
        let labels = |value: &str| [("team".to_owned(), value.to_owned())].into();
        ctx.namespaces().insert("db".into(), labels("a"));
        let conditions = json!([{"namespaceSelector": {"matchLabels": {"team": "a"}}}]);
        seen(&ctx, 1, json!({"conditions": conditions}));
        assert_eq!(may_write(&ctx, &key, &plan).await, Ok(()));
        ctx.namespaces().insert("db".into(), labels("b"));
        let refusal = format!("{:?}", may_write(&ctx, &key, &plan).await);
        assert!(refusal.contains("denied by spec.condition"), "{refusal}");
        seen(&ctx, 2, json!({"controller": "other"}));
        assert_eq!(
            still_allowed(&ctx, &key, &plan).await,
            Ok(()),
            "the other operator tells it"
        );
        assert!(may_write(&ctx, &key, &plan).await.is_err());
        // One that cannot be read is told by the operator of its class.
        seen(
            &ctx,
            3,
            json!({"controller": "other", "refreshInterval": 99_999_999_999_i64}),
        );
        assert_eq!(still_allowed(&ctx, &key, &plan).await, Ok(()));
        assert!(may_write(&ctx, &key, &plan).await.is_err());
        seen(&ctx, 4, json!({"refreshInterval": 99_999_999_999_i64}));
        assert!(still_allowed(&ctx, &key, &plan).await.is_err());
    }
}
