//! The writes: what [`plan`] decided, done against the API server.
//!
//! Secrets are written with ESO's own field manager and by Update, not by server-side apply: then a
//! Secret that ESO wrote carries one entry of managedFields for both operators, and keys that are no
//! longer wanted are found and removed whoever wrote them.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::fence::Fence;
use super::hash::DataHasher;
use super::manifest::ManifestError;
use super::names;
use super::order::Looked;
use super::plan::{self, Action, Outcome, TargetError, Wanted};
use super::request::{About, ROUNDS};
use super::undone::Undone;
use crate::api::external_secret::ExternalSecret;
use crate::refusal;

/// Why a Secret was not written.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// It cannot be written as wished.
    #[error("{0}")]
    Target(TargetError),
    /// The same of a generic target.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The API server refused it; the text says why.
    #[error("{0}")]
    Refused(String),
    /// The API server did not answer, or is not in a state to.
    #[error("{0}")]
    Unreachable(String),
    /// Somebody else wrote the object since the values were read: they have to be read again.
    #[error("{0} was changed by somebody else while it was to be written")]
    Overtaken(String),
    /// It would have to go, and is kept; the text says why.
    #[error("{0}")]
    Held(String),
    /// This replica may not write any more.
    #[error("this replica does not lead")]
    NotLeading,
}

/// Asked right before a target is deleted by its policy: whether it may go.
pub type MayGo<'a> = &'a (dyn Fn() -> Result<(), ApplyError> + Sync);

/// What was done. No `Debug`: the Secret's own shows its data.
#[derive(Clone)]
pub struct Applied {
    /// What the Ready condition says.
    pub outcome: Outcome,
    /// The Secret as it is now, if it was written or read.
    pub secret: Option<Secret>,
    /// Whether anything was written.
    pub wrote: bool,
    /// Whether it is new.
    pub created: bool,
    /// Whether it was deleted.
    pub deleted: bool,
    /// Name of the Secret for `status.binding`.
    pub binding: Option<String>,
    /// What a write undid of what others did.
    pub undone: Option<Undone>,
}

impl Applied {
    /// Whether the Secret, as the API server answered it, holds all that was read. Only then may one that was made under
    /// an older name go. That nothing was read, and nothing written, is no reason to give up the last good one.
    #[must_use]
    pub fn holds(&self, wanted: Wanted<'_>) -> bool {
        let data = self.secret.as_ref().and_then(|secret| secret.data.as_ref());
        self.outcome == Outcome::Synced
            && !wanted.assembled.data.is_empty()
            && data.is_some_and(|data| {
                let mut values = wanted.values().iter();
                values.all(|(key, value)| data.get(key).is_some_and(|held| held.0 == value.expose()))
            })
    }
}

/// A sentence about an error of the API server.
#[must_use]
pub fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("the API server answered {}", refusal::told(status)),
        _ => "the API server cannot be reached".into(),
    }
}

/// Reads an object of a namespace.
///
/// # Errors
/// If the API server did not answer.
pub async fn get<K>(client: &Client, namespace: &str, name: &str) -> Result<Option<K>, ApplyError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let about = About::object::<K>(namespace, name);
    Ok(about.ask("read", api.get_opt(name)).await?.flatten())
}

/// Brings the target into the form that the object wishes.
///
/// # Errors
/// See [`ApplyError`].
pub async fn apply(
    client: &Client,
    fence: &Arc<Fence>,
    hasher: &DataHasher,
    object: &ExternalSecret,
    wanted: Wanted<'_>,
    mut looked: Looked<Secret>,
    may_go: MayGo<'_>,
) -> Result<Applied, ApplyError> {
    let namespace = object.namespace().unwrap_or_default();
    let name = object.target_name();
    let about = About::secret(&namespace, &name);
    let api: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let params = PostParams {
        field_manager: Some(names::field_manager(&object.name_any())),
        ..PostParams::default()
    };
    for _ in 0..ROUNDS {
        let existing = looked.object.as_ref();
        let planned = plan::plan(object, existing, wanted, hasher).map_err(ApplyError::Target)?;
        if !matches!(planned.action, Action::Nothing) {
            may_write(fence, looked.before, &about)?;
        }
        let binding = planned.binding.clone();
        let applied = |secret: Option<Secret>, wrote: bool, created: bool, deleted: bool| Applied {
            outcome: planned.outcome,
            binding: binding.clone(),
            secret,
            wrote,
            created,
            deleted,
            undone: None,
        };
        match planned.action {
            Action::Nothing => {
                let kept = looked.object.filter(|_| planned.manages);
                return Ok(applied(kept, false, false, false));
            }
            Action::Create(secret) => {
                if let Some(secret) = about.ask("create", api.create(&params, &secret)).await? {
                    let undone = Some(Undone::deleted());
                    return Ok(Applied {
                        undone,
                        ..applied(Some(secret), true, true, false)
                    });
                }
            }
            Action::Update(secret) => {
                if let Some(secret) = about.ask("update", api.replace(&name, &params, &secret)).await? {
                    let before = looked.object.as_ref();
                    let undone = before.map(|before| Undone::of_secret(&object.name_any(), before, &secret));
                    return Ok(Applied {
                        undone,
                        ..applied(Some(secret), true, false, false)
                    });
                }
            }
            Action::Delete {
                uid,
                resource_version,
            } => {
                may_go()?;
                delete(client, fence, &namespace, &name, &uid, &resource_version).await?;
                return Ok(applied(None, true, false, true));
            }
        }
        // Also a create that the client library repeated by itself comes here, and finds its own Secret.
        looked = looked.again(about.ask("read", api.get_opt(&name)).await?.flatten());
    }
    Err(about.overtaken())
}

/// Whether the target may be written, having been looked at before the values were read, or not.
pub(super) fn may_write(fence: &Fence, before: bool, about: &About) -> Result<(), ApplyError> {
    if !fence.is_open() {
        return Err(ApplyError::NotLeading);
    }
    before.then_some(()).ok_or_else(|| about.overtaken())
}

/// Writes a Secret whose annotations alone were changed, if it is still what was looked at; none if it is not.
///
/// # Errors
/// See [`ApplyError`].
pub async fn reseal(
    client: &Client,
    fence: &Arc<Fence>,
    owner: &ExternalSecret,
    secret: &Secret,
) -> Result<Option<Secret>, ApplyError> {
    if !fence.is_open() {
        return Err(ApplyError::NotLeading);
    }
    let namespace = secret.namespace().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let params = PostParams {
        field_manager: Some(names::field_manager(&owner.name_any())),
        ..PostParams::default()
    };
    let about = About::secret(&namespace, &secret.name_any());
    about
        .ask("update", api.replace(&secret.name_any(), &params, secret))
        .await
}

/// Deletes a Secret, if it is still the one that was looked at.
///
/// # Errors
/// See [`ApplyError`].
pub async fn delete(
    client: &Client,
    fence: &Arc<Fence>,
    namespace: &str,
    name: &str,
    uid: &str,
    resource_version: &str,
) -> Result<(), ApplyError> {
    if !fence.is_open() {
        return Err(ApplyError::NotLeading);
    }
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.into()),
            resource_version: Some(resource_version.into()),
        }),
        ..DeleteParams::default()
    };
    // One that is gone is as it should be.
    let call = async { api.delete(name, &params).await.map(drop).or_else(gone) };
    let about = About::secret(namespace, name);
    about.ask("delete", call).await?.ok_or_else(|| about.overtaken())
}

/// Removes ESO's finalizer from an ExternalSecret that is being deleted. We set none ourselves: owned
/// Secrets go by garbage collection, and a third write per object would serve nothing.
///
/// # Errors
/// See [`ApplyError`].
pub async fn remove_finalizer(
    client: &Client,
    fence: &Arc<Fence>,
    object: &ExternalSecret,
) -> Result<(), ApplyError> {
    let finalizers = object.finalizers();
    if !finalizers.iter().any(|finalizer| finalizer == names::FINALIZER) {
        return Ok(());
    }
    if !fence.is_open() {
        return Err(ApplyError::NotLeading);
    }
    let kept: Vec<&String> = finalizers
        .iter()
        .filter(|finalizer| *finalizer != names::FINALIZER)
        .collect();
    // With the resourceVersion: a finalizer that somebody adds meanwhile must not be lost.
    let patch = json!({"metadata": {"finalizers": kept, "resourceVersion": object.resource_version()}});
    let api: Api<ExternalSecret> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let (name, params, patch) = (object.name_any(), PatchParams::default(), Patch::Merge(&patch));
    let about = About::object::<ExternalSecret>(&object.namespace().unwrap_or_default(), &name);
    let call = async { api.patch(&name, &params, &patch).await.map(drop).or_else(gone) };
    let done = about.ask("remove the finalizer of", call).await?;
    done.ok_or_else(|| {
        ApplyError::Unreachable(format!(
            "{} changed while its finalizer was to be removed",
            about.what
        ))
    })
}

/// What is gone needs no more.
fn gone(error: kube::Error) -> Result<(), kube::Error> {
    match error {
        kube::Error::Api(status) if status.code == 404 => Ok(()),
        error => Err(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::secret::SecretBytes;
    use crate::sync::assemble::Assembled;

    fn applied(outcome: Outcome, secret: Option<serde_json::Value>) -> Applied {
        Applied {
            outcome,
            secret: secret.map(|secret| serde_json::from_value(secret).unwrap()),
            wrote: true,
            created: true,
            deleted: false,
            binding: None,
            undone: None,
        }
    }

    #[test]
    fn a_target_holds_what_was_read_only_if_the_api_server_shows_all_of_it() {
        let one = Assembled {
            data: [("a".to_owned(), SecretBytes::new(b"1".to_vec()))].into(),
            found: 1,
            ..Assembled::default()
        };
        let nothing = Assembled::default();
        let whole = || Some(json!({"data": {"a": "MQ=="}}));
        for (outcome, secret, assembled, holds) in [
            (Outcome::Synced, whole(), &one, true),
            // An immutable Secret keeps what it held, and an admission webhook may take values out.
            (Outcome::Synced, Some(json!({"data": {"a": "Mg=="}})), &one, false),
            (Outcome::Synced, Some(json!({"data": {"b": "MQ=="}})), &one, false),
            (Outcome::Synced, Some(json!({})), &one, false),
            // The deletion policy Merge writes a Secret of which nothing was read.
            (Outcome::Synced, whole(), &nothing, false),
            (Outcome::Synced, None, &one, false),
            (Outcome::Retained, None, &nothing, false),
            (Outcome::Deleted, None, &nothing, false),
            (Outcome::Missing, None, &one, false),
        ] {
            let told = format!("{outcome:?} {secret:?}");
            let wanted = Wanted {
                assembled,
                shaped: None,
            };
            assert_eq!(applied(outcome, secret).holds(wanted), holds, "{told}");
        }
    }
}
