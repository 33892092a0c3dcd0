//! Which watches there are, and what each event leads to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::watcher;
use kube::{Resource, ResourceExt as _};
use tokio::sync::watch as tokio_watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::context::Context;
use super::guarded::Guarded;
use super::index::{Change, ObjectKey, target_of};
use super::queue::Priority;
use super::scopes::Progress;
use super::stores;
use super::watch::{Receiver, Watch};
use super::{Settings, outcome, scopes};
use crate::api::external_secret::ExternalSecret;
use crate::api::store::{ClusterSecretStore, SecretStore, StoreKey};
use crate::target::names;

type Loops = JoinSet<&'static str>;

/// Starts all watches. Each receiver becomes true when its part is known, or cannot be and nobody waits for it.
pub fn start(ctx: &Arc<Context>, settings: &Settings, loops: &mut Loops) -> Vec<tokio_watch::Receiver<bool>> {
    let mut decided = Vec::new();
    let scopes: Vec<Option<String>> = if settings.namespaces.is_empty() {
        vec![None]
    } else {
        settings.namespaces.iter().cloned().map(Some).collect()
    };
    for scope in &scopes {
        let mut watches = vec![
            external_secrets(ctx.clone(), scope.clone(), loops),
            targets(ctx.clone(), scope.clone(), loops),
        ];
        if settings.secret_stores {
            watches.push(secret_stores(ctx.clone(), scope.clone(), loops));
        }
        if settings.cluster_stores {
            watches.push(namespaces(ctx.clone(), scope.clone(), loops));
        }
        decided.push(scopes::follow(ctx, settings, scope.clone(), watches, loops));
    }
    if settings.cluster_stores {
        let watches = vec![cluster_stores(ctx.clone(), loops)];
        decided.push(scopes::follow(ctx, settings, None, watches, loops));
    }
    decided
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
) -> tokio_watch::Receiver<Progress> {
    let (ready, synced) = tokio_watch::channel(Progress::Waiting);
    let watch = Watch::<Guarded<ExternalSecret>> {
        what: "externalsecrets",
        api: api(&ctx, scope.as_deref()),
        config: config(),
        dispensable: false,
    };
    let (known, present, gone) = (ctx.clone(), ctx.clone(), ctx);
    loops.spawn(async move {
        let to = Receiver {
            known: || known.index().versions(scope.as_deref()),
            present: |object: Guarded<ExternalSecret>, anew: bool| {
                external_secret_seen(&present, object, anew)
            },
            gone: |key: &ObjectKey| external_secret_gone(&gone, key),
        };
        watch.run(&known, ready, key_of, to).await;
        "watch of externalsecrets"
    });
    synced
}

/// After the API server went back in time everything is synced again, spread over so long.
const SPREAD: Duration = Duration::from_secs(30);

fn external_secret_seen(ctx: &Arc<Context>, object: Guarded<ExternalSecret>, anew: bool) {
    match object.0 {
        Ok(object) => {
            let (key, change) = match anew {
                true => ctx.index().believe(object),
                false => ctx.index().apply(object),
            };
            if change == Change::Wanted {
                ctx.queue.push(&key, Priority::Urgent);
            } else if anew {
                let at = Instant::now() + SPREAD.mul_f64(rand::random_range(0.0..1.0));
                ctx.queue.push_at(&key, at);
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

fn targets(ctx: Arc<Context>, scope: Option<String>, loops: &mut Loops) -> tokio_watch::Receiver<Progress> {
    let (ready, synced) = tokio_watch::channel(Progress::Waiting);
    let watch = Watch::<PartialObjectMeta<Secret>> {
        what: "managed secrets",
        api: api(&ctx, scope.as_deref()),
        config: config().labels(&format!("{}=true", names::LABEL_MANAGED)),
        dispensable: false,
    };
    let (known, present, gone) = (ctx.clone(), ctx.clone(), ctx);
    loops.spawn(async move {
        let to = Receiver {
            known: || known.targets().versions(scope.as_deref()),
            present: |secret: PartialObjectMeta<Secret>, anew: bool| {
                let key = key_of(&secret);
                let foreign = present.targets().observe(&key, &secret.metadata);
                // Listed anew, all are; and all that write them are worked on anyway.
                if foreign && !anew {
                    present.wake_writers(&key);
                }
            },
            gone: |key: &ObjectKey| {
                gone.targets().remove(key);
                gone.wake_writers(key);
            },
        };
        watch.run(&known, ready, key_of, to).await;
        "watch of managed secrets"
    });
    synced
}

fn secret_stores(
    ctx: Arc<Context>,
    scope: Option<String>,
    loops: &mut Loops,
) -> tokio_watch::Receiver<Progress> {
    let (ready, synced) = tokio_watch::channel(Progress::Waiting);
    let watch = Watch::<Guarded<SecretStore>> {
        what: "secretstores",
        api: api(&ctx, scope.as_deref()),
        config: config(),
        dispensable: false,
    };
    let (known, present, gone) = (ctx.clone(), ctx.clone(), ctx);
    loops.spawn(async move {
        let of_scope = |ns: Option<&str>| ns.is_some() && (scope.is_none() || ns == scope.as_deref());
        let to = Receiver {
            known: || stores::versions(&known, |key| of_scope(key.namespace.as_deref())),
            present: |store: Guarded<SecretStore>, _| {
                stores::secret_store_seen(&present, stores::secret_store_key(&store), &store);
            },
            gone: |key: &StoreKey| stores::gone(&gone, key),
        };
        watch.run(&known, ready, stores::secret_store_key, to).await;
        "watch of secretstores"
    });
    synced
}

fn cluster_stores(ctx: Arc<Context>, loops: &mut Loops) -> tokio_watch::Receiver<Progress> {
    let (ready, synced) = tokio_watch::channel(Progress::Waiting);
    let watch = Watch::<Guarded<ClusterSecretStore>> {
        what: "clustersecretstores",
        api: Api::all(ctx.client.clone()),
        config: config(),
        dispensable: false,
    };
    let (known, present, gone) = (ctx.clone(), ctx.clone(), ctx);
    loops.spawn(async move {
        let to = Receiver {
            known: || stores::versions(&known, |key| key.namespace.is_none()),
            present: |store: Guarded<ClusterSecretStore>, _| {
                stores::cluster_store_seen(&present, stores::cluster_store_key(&store), &store);
            },
            gone: |key: &StoreKey| stores::gone(&gone, key),
        };
        watch.run(&known, ready, stores::cluster_store_key, to).await;
        "watch of clustersecretstores"
    });
    synced
}

/// Labels of namespaces, for the conditions of ClusterSecretStores. A scoped installation watches its own by name,
/// which a rule with `resourceNames` allows; without the right it goes on, and labels count as unknown.
fn namespaces(
    ctx: Arc<Context>,
    scope: Option<String>,
    loops: &mut Loops,
) -> tokio_watch::Receiver<Progress> {
    let (ready, synced) = tokio_watch::channel(Progress::Waiting);
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
        let to = Receiver {
            known: || match &scope {
                Some(name) => vec![(name.clone(), 0)],
                None => known.namespaces().keys().map(|name| (name.clone(), 0)).collect(),
            },
            present: |namespace: PartialObjectMeta<Namespace>, _| {
                let (name, labels) = (
                    namespace.name_any(),
                    namespace.metadata.labels.unwrap_or_default(),
                );
                let old = present.namespaces().insert(name.clone(), labels.clone());
                namespace_changed(&present, &name, old.as_ref(), Some(&labels));
            },
            gone: |name: &String| {
                let old = gone.namespaces().remove(name);
                namespace_changed(&gone, name, old.as_ref(), None);
                gone.stores.forget_namespace(name);
            },
        };
        watch
            .run(&known, ready, |namespace| namespace.name_any(), to)
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
