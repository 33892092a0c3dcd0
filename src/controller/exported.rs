//! The state of objects in the metrics is the leader's to tell: a replica that led before knows it as it was then, and
//! whoever adds up over all pods would see that for ever.

use super::context::Context;
use super::index::{ObjectKey, stores_of};
use super::status;
use crate::api::external_secret::ExternalSecret;
use crate::store::Gate;

/// A term begins: what the last leader told of objects that are not due is true at once. Stores are all judged anew.
pub fn begin(ctx: &Context) {
    let keys = ctx.index().keys(None);
    for key in keys {
        let Some(object) = ctx.index().get(&key) else {
            continue;
        };
        let told = object.status.as_ref();
        let Some(ready) = told.and_then(|told| status::ready(&told.conditions)) else {
            continue;
        };
        if !is_of_another_class(ctx, &key, &object) {
            ctx.metrics.objects().condition(&key.namespace, &key.name, ready);
        }
    }
}

/// A term is over, and all its work has ended.
pub fn end(ctx: &Context) {
    ctx.metrics.forget_objects();
}

fn is_of_another_class(ctx: &Context, key: &ObjectKey, object: &ExternalSecret) -> bool {
    let labels = ctx.namespaces().get(&*key.namespace).cloned();
    let stores = stores_of(&object.spec, &key.namespace);
    stores.iter().any(|store| {
        matches!(
            ctx.stores.gate(store, &key.namespace, labels.as_ref()),
            Gate::OtherClass
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::context::tests::context;

    fn series(ctx: &Context) -> Vec<String> {
        let text = ctx.metrics.text();
        let lines = text.lines();
        let states = lines.filter(|line| line.starts_with("externalsecret_status_condition{"));
        states.map(String::from).collect()
    }

    #[tokio::test]
    async fn the_state_of_objects_is_told_from_the_begin_of_a_term_to_its_end() {
        let ctx = context(200);
        for (name, status) in [("good", "True"), ("bad", "False")] {
            let object = json!({
                "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
                "metadata": {"name": name, "namespace": "n"},
                "spec": {"secretStoreRef": {"name": "store"}},
                "status": {"conditions": [{"type": "Ready", "status": status}]},
            });
            ctx.index().apply(serde_json::from_value(object).unwrap());
        }
        assert!(series(&ctx).is_empty(), "it does not lead yet");
        begin(&ctx);
        let told = series(&ctx);
        for (name, status) in [("good", "True"), ("bad", "False")] {
            let is = |line: &&String| {
                line.contains(&format!("name=\"{name}\""))
                    && line.contains(&format!("status=\"{status}\""))
                    && line.ends_with(" 1")
            };
            assert_eq!(told.iter().filter(is).count(), 1, "{told:?}");
        }
        end(&ctx);
        assert!(series(&ctx).is_empty());
    }
}
