//! Which watches there are, and what each event leads to.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::watcher;
use kube::{Resource, ResourceExt as _};
use tokio::sync::watch as tokio_watch;
use tokio::task::JoinSet;

use super::context::Context;
use super::guarded::Guarded;
use super::index::{Change, ObjectKey, target_of};
use super::queue::Priority;
use super::stores;
use super::watch::Watch;
use super::{Settings, outcome};
use crate::api::external_secret::ExternalSecret;
use crate::api::store::{ClusterSecretStore, SecretStore};
use crate::target::names;

type Loops = JoinSet<&'static str>;

/// Starts all watches. Each receiver becomes true when its first list is complete.
pub fn start(ctx: &Arc<Context>, settings: &Settings, loops: &mut Loops) -> Vec<tokio_watch::Receiver<bool>> {
    let mut synced = Vec::new();
    let scopes: Vec<Option<String>> = if settings.namespaces.is_empty() {
        vec![None]
    } else {
        settings.namespaces.iter().cloned().map(Some).collect()
    };
    for scope in &scopes {
        synced.push(external_secrets(ctx.clone(), scope.clone(), loops));
        synced.push(targets(ctx.clone(), scope.clone(), loops));
        if settings.secret_stores {
            synced.push(secret_stores(ctx.clone(), scope.clone(), loops));
        }
    }
    if settings.cluster_stores {
        synced.push(cluster_stores(ctx.clone(), loops));
        for scope in &scopes {
            synced.push(namespaces(ctx.clone(), scope.clone(), loops));
        }
    }
    synced
}

fn api<K>(ctx: &Context, scope: Option<&str>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match scope {
        Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
        None => Api::all(ctx.client.clone()),
    }
}

/// Objects per page of a list. A list of resourceVersion 0 would come from the API server's watch cache
/// without a wait of at most 100 ms, but whole: the server ignores its limit, and ten thousand objects in one
/// body cost tens of megabytes that are needed only once.
const PAGE: u32 = 250;

fn config() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

fn key_of<K: Resource>(object: &K) -> ObjectKey {
    ObjectKey::new(&object.namespace().unwrap_or_default(), &object.name_any())
}

fn external_secrets(
    ctx: Arc<Context>,
    scope: Option<String>,
    loops: &mut Loops,
) -> tokio_watch::Receiver<bool> {
    let (ready, synced) = tokio_watch::channel(false);
    let watch = Watch::<Guarded<ExternalSecret>> {
        what: "externalsecrets",
        api: api(&ctx, scope.as_deref()),
        config: config(),
        dispensable: false,
    };
    let (known, present, gone) = (ctx.clone(), ctx.clone(), ctx);
    loops.spawn(async move {
        let known = || known.index().keys(scope.as_deref());
        let present = |object: Guarded<ExternalSecret>| external_secret_seen(&present, object);
        watch
            .run(ready, key_of, known, present, |key| {
                external_secret_gone(&gone, key)
            })
            .await;
        "watch of externalsecrets"
    });
    synced
}

fn external_secret_seen(ctx: &Arc<Context>, object: Guarded<ExternalSecret>) {
    match object.0 {
        Ok(object) => {
            let (key, change) = ctx.index().apply(object);
            if change == Change::Wanted {
                ctx.queue.push(&key, Priority::Urgent);
            }
        }
        Err(invalid) => {
            let key = ObjectKey::new(
                invalid.metadata.namespace.as_deref().unwrap_or_default(),
                invalid.metadata.name.as_deref().unwrap_or_default(),
            );
            // Our own status makes an event too: one form is told once.
            let generation = Some(invalid.metadata.generation.unwrap_or_default());
            if ctx.memory(&key).malformed == generation {
                return;
            }
            // What it was before must not go on being synced: the owner wants something else now.
            external_secret_gone(ctx, &key);
            ctx.remember(&key, |memory| memory.malformed = generation);
            outcome::tell_malformed(ctx, key, &invalid);
        }
    }
}

fn external_secret_gone(ctx: &Context, key: &ObjectKey) {
    let gone = ctx.index().remove(key);
    ctx.forget(key);
    if let Some(gone) = gone {
        // Those who shared its target say so no more.
        for other in ctx.index().writers_of(&target_of(&gone)) {
            ctx.queue.push(&other, Priority::Routine);
        }
    }
}

fn targets(ctx: Arc<Context>, scope: Option<String>, loops: &mut Loops) -> tokio_watch::Receiver<bool> {
    let (ready, synced) = tokio_watch::channel(false);
    let watch = Watch::<PartialObjectMeta<Secret>> {
        what: "managed secrets",
        api: api(&ctx, scope.as_deref()),
        config: config().labels(&format!("{}=true", names::LABEL_MANAGED)),
        dispensable: false,
    };
    let (known, present, gone) = (ctx.clone(), ctx.clone(), ctx);
    loops.spawn(async move {
        let known = || known.targets().keys(scope.as_deref());
        let present = |secret: PartialObjectMeta<Secret>| {
            let key = key_of(&secret);
            let foreign = present.targets().observe(&key, &secret.metadata);
            if foreign {
                present.wake_writers(&key);
            }
        };
        let gone = |key: &ObjectKey| {
            gone.targets().remove(key);
            gone.wake_writers(key);
        };
        watch.run(ready, key_of, known, present, gone).await;
        "watch of managed secrets"
    });
    synced
}

fn secret_stores(ctx: Arc<Context>, scope: Option<String>, loops: &mut Loops) -> tokio_watch::Receiver<bool> {
    let (ready, synced) = tokio_watch::channel(false);
    let watch = Watch::<Guarded<SecretStore>> {
        what: "secretstores",
        api: api(&ctx, scope.as_deref()),
        config: config(),
        dispensable: false,
    };
    let (known, present, gone) = (ctx.clone(), ctx.clone(), ctx);
    loops.spawn(async move {
        let known = || {
            let stores = known.known_stores();
            let of_scope = |ns: &Option<String>| ns.is_some() && (scope.is_none() || *ns == scope);
            stores
                .keys()
                .filter(|key| of_scope(&key.namespace))
                .cloned()
                .collect()
        };
        let present = |store: Guarded<SecretStore>| {
            stores::secret_store_seen(&present, stores::secret_store_key(&store), &store);
        };
        watch
            .run(ready, stores::secret_store_key, known, present, |key| {
                stores::gone(&gone, key)
            })
            .await;
        "watch of secretstores"
    });
    synced
}

fn cluster_stores(ctx: Arc<Context>, loops: &mut Loops) -> tokio_watch::Receiver<bool> {
    let (ready, synced) = tokio_watch::channel(false);
    let watch = Watch::<Guarded<ClusterSecretStore>> {
        what: "clustersecretstores",
        api: Api::all(ctx.client.clone()),
        config: config(),
        dispensable: false,
    };
    let (known, present, gone) = (ctx.clone(), ctx.clone(), ctx);
    loops.spawn(async move {
        let known = || {
            known
                .known_stores()
                .keys()
                .filter(|key| key.namespace.is_none())
                .cloned()
                .collect()
        };
        let present = |store: Guarded<ClusterSecretStore>| {
            stores::cluster_store_seen(&present, stores::cluster_store_key(&store), &store);
        };
        watch
            .run(ready, stores::cluster_store_key, known, present, |key| {
                stores::gone(&gone, key)
            })
            .await;
        "watch of clustersecretstores"
    });
    synced
}

/// Labels of namespaces, for the conditions of ClusterSecretStores. A scoped installation watches its own by name,
/// which a rule with `resourceNames` allows; without the right it goes on, and labels count as unknown.
fn namespaces(ctx: Arc<Context>, scope: Option<String>, loops: &mut Loops) -> tokio_watch::Receiver<bool> {
    let (ready, synced) = tokio_watch::channel(false);
    let config = match &scope {
        Some(name) => config().fields(&format!("metadata.name={name}")),
        None => config(),
    };
    let watch = Watch::<PartialObjectMeta<Namespace>> {
        what: "namespaces",
        api: Api::all(ctx.client.clone()),
        config,
        dispensable: scope.is_some(),
    };
    let (known, present, gone) = (ctx.clone(), ctx.clone(), ctx);
    loops.spawn(async move {
        let known = || match &scope {
            Some(name) => vec![name.clone()],
            None => known.namespaces().keys().cloned().collect(),
        };
        let present = |namespace: PartialObjectMeta<Namespace>| {
            let (name, labels) = (
                namespace.name_any(),
                namespace.metadata.labels.unwrap_or_default(),
            );
            let old = present.namespaces().insert(name.clone(), labels.clone());
            namespace_changed(&present, &name, old.as_ref(), Some(&labels));
        };
        let gone = |name: &String| {
            let old = gone.namespaces().remove(name);
            namespace_changed(&gone, name, old.as_ref(), None);
            gone.stores.forget_namespace(name);
        };
        watch
            .run(ready, |namespace| namespace.name_any(), known, present, gone)
            .await;
        "watch of namespaces"
    });
    synced
}

/// Stores whose conditions judge the namespace otherwise now are told, and so is whoever uses them from it.
fn namespace_changed(
    ctx: &Context,
    name: &str,
    old: Option<&BTreeMap<String, String>>,
    new: Option<&BTreeMap<String, String>>,
) {
    for store in ctx.stores.concerned_by(name, old, new) {
        ctx.store_queue.push(&store, Priority::Routine);
        for user in ctx.index().users_of(&store) {
            if *user.namespace == *name {
                ctx.queue.push(&user, Priority::Urgent);
            }
        }
    }
}
