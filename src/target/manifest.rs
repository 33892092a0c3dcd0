//! Generic targets (`target.manifest`): which object results, decided without I/O.
//!
//! ESO replaces or deletes whatever bears the name. Here an object is only replaced if this ExternalSecret
//! made it, and only deleted if it controls it; `Merge` and `CreateOrMerge` are the ways into an object of
//! somebody else.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use kube::core::{DynamicObject, TypeMeta};
use serde_json::{Map, Value};

use super::manifest_path::{Path, PathError};
use super::names;
use super::plan::{self, Outcome, Wanted};
use super::stale::Stale;
use crate::api::external_secret::{CreationPolicy, ExternalSecret, ManifestReference};
use crate::api::meta::is_object_name;

/// Groups whose kinds give rights, or would make the operator everybody's deputy.
const FORBIDDEN_GROUPS: &[&str] = &[
    "rbac.authorization.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "external-secrets.io",
    "generators.external-secrets.io",
];
/// The same of the core group.
const FORBIDDEN_KINDS: &[&str] = &["ServiceAccount", "TokenRequest"];

/// What has to be done. No `Debug`: objects hold values.
#[derive(PartialEq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Make this object.
    Create(Box<DynamicObject>),
    /// Replace it by this one, if it is still what was looked at.
    Update(Box<DynamicObject>),
    /// Delete it, if it is still this one.
    Delete {
        /// Its UID.
        uid: String,
        /// Its resourceVersion.
        resource_version: String,
    },
}

/// What was decided.
#[derive(PartialEq)]
pub struct Planned {
    /// What has to be done.
    pub action: Action,
    /// What is said of it.
    pub outcome: Outcome,
}

/// Why a generic target is not served or cannot be written. Never holds a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The flag is off.
    #[error(
        "invalid generic target: spec.target.manifest is served only with --unsafe-allow-generic-targets (chart: \
         genericTargets.enabled), because kinds other than Secret are neither encrypted nor guarded as secrets; \
         remove it to write a Secret"
    )]
    Disabled,
    /// Secret is no generic target.
    #[error("invalid generic target: a Secret is what is written without spec.target.manifest; remove it")]
    Secret,
    /// A kind that is never written.
    #[error(
        "invalid generic target: spec.target.manifest: {1} of {0} gives rights or makes requests in the operator's \
         name, and is never written; choose another kind"
    )]
    ForbiddenKind(String, String),
    /// It names no kind.
    #[error(
        "invalid generic target: spec.target.manifest: {0:?} of {1:?} is no kind of an API; write it as kubectl \
         api-resources does, for example ConfigMap of v1"
    )]
    NoKind(String, String),
    /// `immutable` is a field of Secrets.
    #[error("invalid generic target: spec.target.immutable is for Secrets; remove it")]
    Immutable,
    /// A kind of the cluster.
    #[error(
        "invalid generic target: spec.target.manifest: {1} of {0} belongs to no namespace, and only namespaced kinds \
         are written; choose another kind"
    )]
    ClusterScoped(String, String),
    /// Another ExternalSecret controls it.
    #[error(
        "target is owned by another ExternalSecret: {0} is controlled by ExternalSecret {1}; choose another \
         spec.target.name"
    )]
    OwnedByAnother(String, String),
    /// Another controller controls it.
    #[error(
        "failed to take ownership of target resource: {0} is controlled by {1} {2}; choose another \
         spec.target.name, or creationPolicy Merge"
    )]
    Foreign(String, String, String),
    /// It was there before.
    #[error(
        "could not update resource: {0} exists and was not made by this ExternalSecret; choose another \
         spec.target.name, or creationPolicy Merge or CreateOrMerge to set fields of it, or delete it"
    )]
    NotMade(String),
    /// `deletionPolicy: Delete` on what is not ours.
    #[error(
        "could not delete resource: {0} is not controlled by this ExternalSecret; delete it by hand, or set \
         deletionPolicy: Retain"
    )]
    NotOursToDelete(String),
    /// A value that no string field holds.
    #[error(
        "could not update resource: the value of key {0:?} is not UTF-8, and {1} holds text only; take the key out, \
         or write a Secret"
    )]
    NotText(String, String),
    /// A path.
    #[error("could not update resource: spec.target.template.templateFrom: {0}")]
    Path(#[from] PathError),
}

/// Whether the operator may write such a target at all; `allowed` is its flag.
///
/// # Errors
/// Why not.
pub fn check(owner: &ExternalSecret, allowed: bool) -> Result<(), ManifestError> {
    let Some(manifest) = owner.spec.manifest() else {
        return Ok(());
    };
    if !allowed {
        return Err(ManifestError::Disabled);
    }
    let (group, version) = manifest
        .api_version
        .split_once('/')
        .unwrap_or(("", &manifest.api_version));
    // The parts of a path, in which another spelling of a forbidden group would lead to it all the same.
    let core = manifest.api_version == version;
    let is_kind = manifest.kind.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !(core || is_object_name(group)) || !is_object_name(version) || !is_kind {
        let (kind, api_version) = (manifest.kind.clone(), manifest.api_version.clone());
        return Err(ManifestError::NoKind(kind, api_version));
    }
    if group.is_empty() && manifest.kind == "Secret" {
        return Err(ManifestError::Secret);
    }
    if FORBIDDEN_GROUPS.contains(&group)
        || (group.is_empty() && FORBIDDEN_KINDS.contains(&manifest.kind.as_str()))
    {
        return Err(ManifestError::ForbiddenKind(
            manifest.api_version.clone(),
            manifest.kind.clone(),
        ));
    }
    if owner.spec.is_immutable() {
        return Err(ManifestError::Immutable);
    }
    Ok(())
}

/// Reason and message of the Ready condition, as ESO has them.
#[must_use]
pub fn ready(outcome: Outcome) -> (&'static str, &'static str) {
    match outcome {
        Outcome::Synced | Outcome::Retained => ("ResourceSynced", outcome.message()),
        Outcome::Deleted => ("ResourceDeleted", "resource deleted due to DeletionPolicy=Delete"),
        Outcome::Missing => (
            "ResourceMissing",
            "resource will not be created due to CreationPolicy=Merge",
        ),
    }
}

/// Decides.
///
/// # Errors
/// If the target must not or cannot be written.
pub fn plan(
    owner: &ExternalSecret,
    manifest: &ManifestReference,
    existing: Option<&DynamicObject>,
    content: Wanted<'_>,
) -> Result<Planned, ManifestError> {
    let policy = owner.spec.creation_policy();
    let nothing = |outcome| {
        Ok(Planned {
            action: Action::Nothing,
            outcome,
        })
    };
    match content.without_values(owner) {
        Some(Outcome::Deleted) => return delete(owner, manifest, existing),
        Some(outcome) => return nothing(outcome),
        None => {}
    }
    match (policy, existing) {
        (CreationPolicy::None, _) => return nothing(Outcome::Synced),
        (CreationPolicy::Merge, None) => return nothing(Outcome::Missing),
        (_, Some(existing)) => refuse_foreign(owner, manifest, existing)?,
        (_, None) => {}
    }
    let wanted = shape(owner, manifest, existing, content)?;
    let action = match existing {
        None => Action::Create(Box::new(wanted)),
        Some(existing) if *existing == wanted => Action::Nothing,
        Some(_) => Action::Update(Box::new(wanted)),
    };
    Ok(Planned {
        action,
        outcome: Outcome::Synced,
    })
}

fn name_of(owner: &ExternalSecret, manifest: &ManifestReference) -> String {
    let namespace = owner.namespace().unwrap_or_default();
    format!("{} {namespace}/{}", manifest.kind, owner.target_name())
}

fn refuse_foreign(
    owner: &ExternalSecret,
    manifest: &ManifestReference,
    existing: &DynamicObject,
) -> Result<(), ManifestError> {
    let name = name_of(owner, manifest);
    let merges = matches!(
        owner.spec.creation_policy(),
        CreationPolicy::Merge | CreationPolicy::CreateOrMerge
    );
    match plan::controller(&existing.metadata).filter(|reference| !plan::is_ours(owner, reference)) {
        Some(reference) if plan::is_external_secret(reference) => {
            Err(ManifestError::OwnedByAnother(name, reference.name.clone()))
        }
        Some(reference) if !merges => {
            let (kind, by) = (reference.kind.clone(), reference.name.clone());
            Err(ManifestError::Foreign(name, kind, by))
        }
        _ if merges || was_made_by(owner, &existing.metadata) => Ok(()),
        _ => Err(ManifestError::NotMade(name)),
    }
}

/// Made by this ExternalSecret, or by ESO, which marks an object as managed and does not say for whom.
fn was_made_by(owner: &ExternalSecret, metadata: &ObjectMeta) -> bool {
    let label = |name: &str| metadata.labels.as_ref().and_then(|labels| labels.get(name));
    if plan::controller(metadata).is_some_and(|reference| plan::is_ours(owner, reference)) {
        return true;
    }
    match label(names::LABEL_CREATED_BY) {
        Some(creator) => {
            *creator == names::created_by(&owner.namespace().unwrap_or_default(), &owner.name_any())
        }
        None => {
            let mut managers = metadata.managed_fields.iter().flatten();
            label(names::LABEL_MANAGED).is_some_and(|value| value == "true")
                && !managers.any(|entry| entry.manager.as_deref().is_some_and(names::is_field_manager))
        }
    }
}

fn delete(
    owner: &ExternalSecret,
    manifest: &ManifestReference,
    existing: Option<&DynamicObject>,
) -> Result<Planned, ManifestError> {
    let action = match existing {
        _ if owner.spec.creation_policy() != CreationPolicy::Owner => None,
        None => Some(Action::Nothing),
        Some(existing) => plan::controls(owner, &existing.metadata).then(|| Action::Delete {
            uid: existing.uid().unwrap_or_default(),
            resource_version: existing.resource_version().unwrap_or_default(),
        }),
    };
    Ok(Planned {
        action: action.ok_or_else(|| ManifestError::NotOursToDelete(name_of(owner, manifest)))?,
        outcome: Outcome::Deleted,
    })
}

/// The object as it must be.
fn shape(
    owner: &ExternalSecret,
    manifest: &ManifestReference,
    existing: Option<&DynamicObject>,
    content: Wanted<'_>,
) -> Result<DynamicObject, ManifestError> {
    let policy = owner.spec.creation_policy();
    let metadata = existing
        .map(|existing| existing.metadata.clone())
        .unwrap_or_default();
    let mut object = match (policy, existing) {
        (CreationPolicy::Merge | CreationPolicy::CreateOrMerge, Some(existing)) => {
            let mut data = existing.data.clone();
            remove_own_fields(&mut data, &metadata, &owner.name_any());
            data
        }
        // Owner and Orphan own all of it but its state: fields that somebody added go.
        (_, Some(existing)) => existing
            .data
            .get("status")
            .map_or_else(empty, |status| serde_json::json!({"status": status})),
        (_, None) => empty(),
    };
    fill(owner, manifest, &mut object, content)?;
    let (labels, annotations) = take_metadata(&mut object);
    Ok(DynamicObject {
        types: Some(TypeMeta {
            api_version: manifest.api_version.clone(),
            kind: manifest.kind.clone(),
        }),
        metadata: shape_metadata(owner, metadata, content, labels, annotations),
        data: object,
    })
}

fn empty() -> Value {
    Value::Object(Map::new())
}

/// Puts the keys and values, and what was rendered for paths, into the object.
fn fill(
    owner: &ExternalSecret,
    manifest: &ManifestReference,
    object: &mut Value,
    content: Wanted<'_>,
) -> Result<(), ManifestError> {
    for (path, rendered) in content.shaped.into_iter().flat_map(|shaped| &shaped.paths) {
        let parsed = Path::parse(path)?;
        parsed.put(object, rendered.clone())?;
    }
    let mut data = Map::new();
    for (key, value) in content.values() {
        let text = std::str::from_utf8(value.expose())
            .map_err(|_| ManifestError::NotText(key.clone(), manifest.kind.clone()))?;
        data.insert(key.clone(), Value::String(text.to_string()));
    }
    if data.is_empty() {
        return Ok(());
    }
    // ESO's rule: values that no template made go to spec.data, but in a ConfigMap.
    let template = owner
        .spec
        .target
        .as_ref()
        .and_then(|target| target.template.as_ref());
    let templated = template.is_some_and(|template| {
        template.data.as_ref().is_some_and(|data| !data.is_empty()) || !template.template_from.is_empty()
    });
    let place = if templated || manifest.kind == "ConfigMap" {
        "data"
    } else {
        "spec.data"
    };
    Ok(Path::parse(place)?.put(object, Value::Object(data))?)
}

type Texts = BTreeMap<String, String>;

/// Labels and annotations that paths such as `metadata.labels` made.
fn take_metadata(object: &mut Value) -> (Texts, Texts) {
    let metadata = object.as_object_mut().and_then(|map| map.remove("metadata"));
    let texts = |field: &str| {
        let map = metadata
            .as_ref()
            .and_then(|metadata| metadata.get(field)?.as_object());
        let texts = map.into_iter().flatten().filter_map(|(key, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), String::from);
            (!value.is_null()).then(|| (key.clone(), text))
        });
        texts.collect()
    };
    (texts("labels"), texts("annotations"))
}

fn shape_metadata(
    owner: &ExternalSecret,
    mut metadata: ObjectMeta,
    content: Wanted<'_>,
    labels_of_paths: Texts,
    annotations_of_paths: Texts,
) -> ObjectMeta {
    let namespace = owner.namespace().unwrap_or_default();
    let managed = metadata.managed_fields.as_deref().unwrap_or_default();
    let stale = Stale::find(managed, &owner.name_any());
    let mut labels = metadata.labels.take().unwrap_or_default();
    labels.retain(|key, _| !stale.labels.contains(key));
    if let Some(shaped) = content.shaped {
        labels.extend(shaped.labels.clone());
    }
    labels.extend(labels_of_paths);
    labels.insert(names::LABEL_MANAGED.into(), "true".into());
    labels.remove(names::LABEL_CREATED_BY);
    if matches!(
        owner.spec.creation_policy(),
        CreationPolicy::Owner | CreationPolicy::Orphan
    ) {
        let creator = names::created_by(&namespace, &owner.name_any());
        labels.insert(names::LABEL_CREATED_BY.into(), creator);
    }
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    annotations.retain(|key, _| !stale.annotations.contains(key));
    if let Some(shaped) = content.shaped {
        annotations.extend(shaped.annotations.clone());
    }
    annotations.extend(annotations_of_paths);
    metadata.name = Some(owner.target_name());
    metadata.namespace = Some(namespace);
    metadata.labels = Some(labels);
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    plan::set_owner(owner, &mut metadata);
    metadata
}

/// Takes out what this ExternalSecret wrote before, so that what is no longer wanted goes. Lists and maps
/// that are owned as one stay: somebody else's parts may be in them.
fn remove_own_fields(object: &mut Value, metadata: &ObjectMeta, name: &str) {
    let managers = names::field_managers(name);
    for entry in metadata.managed_fields.iter().flatten() {
        let ours = entry
            .manager
            .as_ref()
            .is_some_and(|manager| managers.contains(manager));
        if let (true, Some(fields)) = (ours, entry.fields_v1.as_ref()) {
            remove_fields(object, &fields.0);
        }
    }
}

fn remove_fields(object: &mut Value, fields: &Value) {
    let (Some(object), Some(fields)) = (object.as_object_mut(), fields.as_object()) else {
        return;
    };
    for (field, below) in fields {
        let Some(key) = field.strip_prefix("f:") else {
            continue;
        };
        let Some(value) = object.get_mut(key) else {
            continue;
        };
        remove_fields(value, below);
        let is_leaf = below
            .as_object()
            .is_some_and(|below| below.keys().all(|key| key == "."));
        let is_empty = value.as_object().is_some_and(Map::is_empty) && below.get(".").is_some();
        if is_empty || (is_leaf && !value.is_object() && !value.is_array()) {
            object.remove(key);
        }
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
