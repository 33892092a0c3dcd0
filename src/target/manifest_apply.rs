//! The writes of generic targets: what [`manifest`] decided, done against the API server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::api::{DeleteParams, DynamicObject, PostParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{self, Scope};
use kube::error::DiscoveryError;
use kube::{Api, Client, ResourceExt as _};
use tokio::time::Instant;

use super::apply::{ApplyError, MayGo, may_write};
use super::fence::Fence;
use super::manifest::{self, Action, ManifestError};
use super::names;
use super::order::Looked;
use super::plan::{Outcome, Wanted};
use super::request::{About, ROUNDS, TIMEOUT, late};
use super::undone::Undone;
use crate::api::external_secret::{ExternalSecret, ManifestReference};

/// How long it is believed where a kind is served.
const KIND_LIFE: Duration = Duration::from_secs(300);

/// Where the API server serves kinds, as it was found out last.
#[derive(Default)]
pub struct Kinds(Mutex<HashMap<(String, String), (Instant, ApiResource)>>);

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// What the Ready condition says.
    pub outcome: Outcome,
    /// What was written, for the event.
    pub wrote: Wrote,
    /// What a write undid of what others did.
    pub undone: Option<Undone>,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// Nothing.
    Nothing,
    /// A new object.
    Created,
    /// An object that was there.
    Updated,
    /// The object was deleted.
    Deleted,
}

impl Kinds {
    /// Where this kind is served.
    ///
    /// # Errors
    /// If it is not, belongs to no namespace, or the API server did not answer.
    async fn find(&self, client: &Client, manifest: &ManifestReference) -> Result<ApiResource, ApplyError> {
        let key = (manifest.api_version.clone(), manifest.kind.clone());
        let known = self.locked().get(&key).cloned();
        if let Some((since, resource)) = known
            && since.elapsed() < KIND_LIFE
        {
            return Ok(resource);
        }
        let (group, version) = manifest
            .api_version
            .split_once('/')
            .unwrap_or(("", &manifest.api_version));
        let kind = GroupVersionKind::gvk(group, version, &manifest.kind);
        let found = tokio::time::timeout(TIMEOUT, discovery::pinned_kind(client, &kind)).await;
        let (resource, capabilities) = match found {
            Ok(Ok(found)) => found,
            Ok(Err(kube::Error::Discovery(DiscoveryError::MissingKind(_)))) => return Err(unknown(manifest)),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Err(unknown(manifest)),
            Ok(Err(error)) => return Err(about(manifest).refused("find the kind of", &error)),
            Err(_) => return Err(late()),
        };
        if capabilities.scope != Scope::Namespaced {
            let (api_version, kind) = key;
            return Err(ManifestError::ClusterScoped(api_version, kind).into());
        }
        self.locked().insert(key, (Instant::now(), resource.clone()));
        Ok(resource)
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), (Instant, ApiResource)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A generic target as it is.
///
/// # Errors
/// See [`ApplyError`].
pub async fn look(
    client: &Client,
    kinds: &Kinds,
    owner: &ExternalSecret,
    manifest: &ManifestReference,
) -> Result<Option<DynamicObject>, ApplyError> {
    let api = api(client, kinds, owner, manifest).await?;
    let name = owner.target_name();
    Ok(about(manifest).ask("read", api.get_opt(&name)).await?.flatten())
}

async fn api(
    client: &Client,
    kinds: &Kinds,
    owner: &ExternalSecret,
    manifest: &ManifestReference,
) -> Result<Api<DynamicObject>, ApplyError> {
    let namespace = owner.namespace().unwrap_or_default();
    let resource = kinds.find(client, manifest).await?;
    Ok(Api::namespaced_with(client.clone(), &namespace, &resource))
}

/// Brings a generic target into the form that the object wishes.
///
/// # Errors
/// See [`ApplyError`].
pub async fn apply(
    client: &Client,
    fence: &Arc<Fence>,
    kinds: &Kinds,
    owner: &ExternalSecret,
    content: Wanted<'_>,
    (manifest, mut looked): (&ManifestReference, Looked<DynamicObject>),
    may_go: MayGo<'_>,
) -> Result<Done, ApplyError> {
    let api = api(client, kinds, owner, manifest).await?;
    let (name, about) = (owner.target_name(), about(manifest));
    let params = PostParams {
        field_manager: Some(names::field_manager(&owner.name_any())),
        ..PostParams::default()
    };
    for _ in 0..ROUNDS {
        let planned = manifest::plan(owner, manifest, looked.object.as_ref(), content)?;
        let done = |wrote| {
            Ok(Done {
                outcome: planned.outcome,
                wrote,
                undone: None,
            })
        };
        if planned.action != Action::Nothing {
            may_write(fence, looked.before, &about)?;
        }
        match planned.action {
            Action::Nothing => return done(Wrote::Nothing),
            Action::Create(object) => {
                if about.ask("create", api.create(&params, &object)).await?.is_some() {
                    return done(Wrote::Created);
                }
            }
            Action::Update(object) => {
                let before = object.resource_version();
                if let Some(after) = about.ask("update", api.replace(&name, &params, &object)).await? {
                    // The API server fills in defaults that we leave out, and writes nothing if no more differs.
                    let same = after.resource_version() == before;
                    if same {
                        return done(Wrote::Nothing);
                    }
                    let undone = looked.object.as_ref();
                    return Ok(Done {
                        outcome: planned.outcome,
                        wrote: Wrote::Updated,
                        undone: undone.map(|before| Undone::of_object(&owner.name_any(), before, &after)),
                    });
                }
            }
            Action::Delete {
                uid,
                resource_version,
            } => {
                may_go()?;
                let params = DeleteParams {
                    preconditions: Some(Preconditions {
                        uid: Some(uid),
                        resource_version: Some(resource_version),
                    }),
                    ..DeleteParams::default()
                };
                if about.ask("delete", api.delete(&name, &params)).await?.is_some() {
                    return done(Wrote::Deleted);
                }
            }
        }
        looked = looked.again(about.ask("read", api.get_opt(&name)).await?.flatten());
    }
    Err(about.overtaken())
}

fn unknown(manifest: &ManifestReference) -> ApplyError {
    ApplyError::Refused(format!(
        "the cluster knows no kind {} of {}; install its definition, or correct spec.target.manifest",
        manifest.kind, manifest.api_version
    ))
}

fn about(manifest: &ManifestReference) -> About {
    About {
        what: format!("{} of {}", manifest.kind, manifest.api_version),
        right: ", for example by the chart's value genericTargets.resources",
        compare: "compare the template with the kind's definition",
    }
}
