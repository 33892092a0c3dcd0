//! The writes of generic targets: what [`manifest`] decided, done against the API server.
//!
//! What the API server says of a refused object may quote a value, and these objects are made of secrets:
//! only its code, its reason and the names of fields are told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::api::{DeleteParams, DynamicObject, PostParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{self, Scope};
use kube::error::DiscoveryError;
use kube::{Api, Client, ResourceExt as _};
use tokio::time::Instant;

use super::apply::{ApplyError, ROUNDS, TIMEOUT};
use super::fence::Fence;
use super::manifest::{self, Action, ManifestError};
use super::names;
use super::plan::{Outcome, Wanted};
use crate::api::external_secret::{ExternalSecret, ManifestReference};

/// How long it is believed where a kind is served.
const KIND_LIFE: Duration = Duration::from_secs(300);

/// Where the API server serves kinds, as it was found out last.
#[derive(Default)]
pub struct Kinds(Mutex<HashMap<(String, String), (Instant, ApiResource)>>);

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// What the Ready condition says.
    pub outcome: Outcome,
    /// What was written, for the event.
    pub wrote: Wrote,
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
            Ok(Err(error)) => return Err(told(error, "find the kind of", manifest)),
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

/// Brings a generic target into the form that the object wishes.
///
/// # Errors
/// See [`ApplyError`].
pub async fn apply(
    client: &Client,
    fence: &Arc<Fence>,
    kinds: &Kinds,
    owner: &ExternalSecret,
    manifest: &ManifestReference,
    content: Wanted<'_>,
) -> Result<Done, ApplyError> {
    let namespace = owner.namespace().unwrap_or_default();
    let resource = kinds.find(client, manifest).await?;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource);
    let name = owner.target_name();
    let params = PostParams {
        field_manager: Some(names::field_manager(&owner.name_any())),
        ..PostParams::default()
    };
    for _ in 0..ROUNDS {
        let existing = asked(api.get_opt(&name), "read", manifest).await?.flatten();
        let planned = manifest::plan(owner, manifest, existing.as_ref(), content)?;
        let done = |wrote| {
            Ok(Done {
                outcome: planned.outcome,
                wrote,
            })
        };
        if planned.action != Action::Nothing && !fence.is_open() {
            return Err(ApplyError::NotLeading);
        }
        match planned.action {
            Action::Nothing => return done(Wrote::Nothing),
            Action::Create(object) => {
                if asked(api.create(&params, &object), "create", manifest)
                    .await?
                    .is_some()
                {
                    return done(Wrote::Created);
                }
            }
            Action::Update(object) => {
                let before = object.resource_version();
                if let Some(after) = asked(api.replace(&name, &params, &object), "update", manifest).await? {
                    // The API server fills in defaults that we leave out, and writes nothing if no more differs.
                    let same = after.resource_version() == before;
                    return done(if same { Wrote::Nothing } else { Wrote::Updated });
                }
            }
            Action::Delete {
                uid,
                resource_version,
            } => {
                let params = DeleteParams {
                    preconditions: Some(Preconditions {
                        uid: Some(uid),
                        resource_version: Some(resource_version),
                    }),
                    ..DeleteParams::default()
                };
                if asked(api.delete(&name, &params), "delete", manifest)
                    .await?
                    .is_some()
                {
                    return done(Wrote::Deleted);
                }
            }
        }
    }
    Err(ApplyError::Unreachable(format!(
        "{} {namespace}/{name} is being changed by somebody else all the time",
        manifest.kind
    )))
}

/// `None` means that the object was changed, made or deleted by somebody else meanwhile.
async fn asked<T>(
    call: impl Future<Output = Result<T, kube::Error>>,
    verb: &str,
    manifest: &ManifestReference,
) -> Result<Option<T>, ApplyError> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(Ok(value)) => Ok(Some(value)),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(None),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 && verb != "create" => Ok(None),
        Ok(Err(error)) => Err(told(error, verb, manifest)),
        Err(_) => Err(late()),
    }
}

fn late() -> ApplyError {
    ApplyError::Unreachable("the API server did not answer in time".into())
}

fn unknown(manifest: &ManifestReference) -> ApplyError {
    ApplyError::Refused(format!(
        "the cluster knows no kind {} of {}; install its definition, or correct spec.target.manifest",
        manifest.kind, manifest.api_version
    ))
}

fn told(error: kube::Error, verb: &str, manifest: &ManifestReference) -> ApplyError {
    let kube::Error::Api(status) = error else {
        return ApplyError::Unreachable("the API server cannot be reached".into());
    };
    if !(400..500).contains(&status.code) || status.code == 429 {
        return ApplyError::Unreachable(format!("the API server answered {}", status.code));
    }
    let what = format!("{} of {}", manifest.kind, manifest.api_version);
    if status.code == 403 {
        return ApplyError::Refused(format!(
            "the operator may not {verb} {what} (403); give it the right, for example by the chart's value \
             genericTargets.resources, or look for an admission rule that forbids it"
        ));
    }
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let fields: Vec<&str> = causes
        .map(|cause| cause.field.as_str())
        .filter(|field| !field.is_empty())
        .collect();
    let fields = if fields.is_empty() {
        String::new()
    } else {
        format!(" because of {}", fields.join(", "))
    };
    ApplyError::Refused(format!(
        "the API server refused to {verb} {what} ({} {}){fields}; its message may quote a value and is not shown: \
         compare the template with the kind's definition",
        status.code, status.reason
    ))
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_api_server_says_is_told_without_the_values_that_it_quotes() {
        let status = serde_json::from_value(json!({
            "code": 422, "reason": "Invalid", "message": "spec.replicas: Invalid value: \"hunter2\"",
            "details": {"causes": [{"reason": "FieldValueInvalid", "field": "spec.replicas", "message": "\"hunter2\""}]},
        }));
        let Ok(status) = status else { panic!("no status") };
        let manifest = ManifestReference {
            api_version: "example.com/v1".into(),
            kind: "App".into(),
        };
        let error = told(kube::Error::Api(status), "update", &manifest).to_string();
        assert!(
            error.contains("422 Invalid") && error.contains("spec.replicas"),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }
}
