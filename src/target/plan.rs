//! What has to be written, decided without I/O: ownership, policies, stale keys, refusal of foreign objects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt as _};

use super::hash::{DataHasher, Seal};
use super::stale::Stale;
use super::typed::{self, Misfit};
use super::{kept, leased, names, reserved};
use crate::api::external_secret::{CreationPolicy, DeletionPolicy, ExternalSecret};
use crate::secret::SecretBytes;
use crate::sync::assemble::Assembled;
use crate::sync::plan::FORBIDDEN_TYPES;
use crate::sync::shape::Shaped;

/// The API server's limit for the data of a Secret.
const DATA_MAX: usize = 1 << 20;
/// What has to be done.
#[derive(Clone, PartialEq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Make this Secret.
    Create(Box<Secret>),
    /// Replace it by this one, if it is still what was looked at.
    Update(Box<Secret>),
    /// Delete it, if it is still this one.
    Delete {
        /// Its UID.
        uid: String,
        /// Its resourceVersion.
        resource_version: String,
    },
}

impl fmt::Debug for Action {
    /// Without the Secret, whose own `Debug` shows its data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Create(_) => "Create",
            Self::Update(_) => "Update",
            Self::Delete { .. } => "Delete",
        })
    }
}

/// What the target must hold.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The values that were read.
    pub assembled: &'a Assembled,
    /// What the template made of them, if there is one.
    pub shaped: Option<&'a Shaped>,
}

impl Wanted<'_> {
    /// Its keys and values.
    #[must_use]
    pub fn values(&self) -> &BTreeMap<String, SecretBytes> {
        self.shaped.map_or(&self.assembled.data, |shaped| &shaped.data)
    }

    /// Its keys, and the paths of a generic target.
    #[must_use]
    pub fn keys(&self) -> BTreeSet<String> {
        let paths = self.shaped.into_iter().flat_map(|shaped| &shaped.paths);
        let paths = paths.map(|(path, _)| path.clone());
        self.values().keys().cloned().chain(paths).collect()
    }

    /// What becomes of the target, whatever its kind, where nothing was read; none if it is written all the same.
    #[must_use]
    pub fn without_values(&self, owner: &ExternalSecret) -> Option<Outcome> {
        if !self.assembled.data.is_empty() {
            return None;
        }
        match owner.spec.deletion_policy() {
            DeletionPolicy::Retain => Some(Outcome::Retained),
            // An empty secret is not a missing one: only a clean 'not found' of all of them deletes.
            DeletionPolicy::Delete if self.assembled.found > 0 => Some(Outcome::Retained),
            DeletionPolicy::Delete => Some(Outcome::Deleted),
            DeletionPolicy::Merge => None,
        }
    }
}

/// What the Ready condition says of a success: ESO's reasons and messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target holds what it must.
    Synced,
    /// There was nothing to write, and the policy keeps what is there.
    Retained,
    /// There was nothing to write, and the policy deletes.
    Deleted,
    /// The target is not there, and the policy does not make it.
    Missing,
}

impl Outcome {
    /// One word.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Synced | Self::Retained => "SecretSynced",
            Self::Deleted => "SecretDeleted",
            Self::Missing => "SecretMissing",
        }
    }

    /// A sentence.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::Synced => "secret synced",
            Self::Retained => "secret retained due to DeletionPolicy=Retain",
            Self::Deleted => "secret deleted due to DeletionPolicy=Delete",
            Self::Missing => "secret will not be created due to CreationPolicy=Merge",
        }
    }
}

/// What was decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// What has to be done.
    pub action: Action,
    /// What is said of it.
    pub outcome: Outcome,
    /// Name for `status.binding`, if a Secret is written or kept.
    pub binding: Option<String>,
    /// Whether the Secret that was looked at is one that holds what it must.
    pub manages: bool,
}

/// Why the target cannot be written. Begins with ESO's message, then the cause and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Another ExternalSecret controls it.
    #[error(
        "target is owned by another ExternalSecret: Secret {0} is controlled by ExternalSecret {1}; choose another spec.target.name"
    )]
    OwnedByAnother(String, String),
    /// Another controller controls it.
    #[error(
        "failed to take ownership of target secret: Secret {0} is controlled by {1} {2}; choose another spec.target.name, or creationPolicy Merge"
    )]
    Foreign(String, String, String),
    /// Its type gives rights or holds somebody's state.
    #[error(
        "could not update secret: Secret {0} has type {1}, which is never written; choose another spec.target.name"
    )]
    ForbiddenType(String, String),
    /// It is immutable and differs.
    #[error(
        "could not update secret, target is immutable: Secret {0} would have to change; delete it to have it made anew"
    )]
    Immutable(String),
    /// It has another type, which Kubernetes lets nobody change.
    #[error(
        "could not update secret: Secret {0} has type {1}, and Kubernetes does not let it become {2}; delete it to have it made anew"
    )]
    TypeFixed(String, String, String),
    /// More data than a Secret holds.
    #[error(
        "could not update secret: the data of Secret {0} would be {1} bytes, and a Secret holds at most 1048576; take fewer keys"
    )]
    TooLarge(String, usize),
    /// Its data is not what its type asks for.
    #[error("could not update secret: Secret {0} has type {1}: {2}")]
    Misfit(String, String, Misfit),
    /// It is the operator's own.
    #[error(
        "could not update secret: Secret {0} is the operator's own, and no target; choose another spec.target.name"
    )]
    Reserved(String),
    /// A store needs it that another made.
    #[error(
        "could not update secret: Secret {0} is what {1} logs in with, and no ExternalSecret made it; choose another \
         spec.target.name, or delete the Secret to have it made by this ExternalSecret"
    )]
    Credential(String, String),
    /// `deletionPolicy: Delete` on a Secret that is not ours.
    #[error(
        "could not delete secret: Secret {0} is not controlled by this ExternalSecret; delete it by hand, or set deletionPolicy: Retain"
    )]
    NotOursToDelete(String),
}

/// Decides.
///
/// # Errors
/// If the target must not or cannot be written.
pub fn plan(
    owner: &ExternalSecret,
    existing: Option<&Secret>,
    wanted: Wanted<'_>,
    hasher: &DataHasher,
) -> Result<Planned, TargetError> {
    reserved::by_label(owner, existing)?;
    let policy = owner.spec.creation_policy();
    let nothing = |outcome, binding, manages| {
        Ok(Planned {
            action: Action::Nothing,
            outcome,
            binding,
            manages,
        })
    };
    match wanted.without_values(owner) {
        Some(Outcome::Deleted) => return delete(owner, existing),
        Some(outcome) => return nothing(outcome, None, false),
        None => {}
    }
    if policy == CreationPolicy::None {
        return nothing(Outcome::Synced, None, false);
    }
    let binding = Some(owner.target_name());
    let Some(existing) = existing else {
        if policy == CreationPolicy::Merge {
            return nothing(Outcome::Missing, None, false);
        }
        let secret = shape(owner, None, wanted, hasher)?;
        check_type(owner, &secret)?;
        return Ok(Planned {
            action: Action::Create(Box::new(secret)),
            outcome: Outcome::Synced,
            binding,
            manages: true,
        });
    };
    refuse_foreign(owner, existing)?;
    let mut secret = shape(owner, Some(existing), wanted, hasher)?;
    if existing.immutable == Some(true) {
        let differs = secret.data != existing.data;
        if differs && !owner.spec.is_immutable() {
            return Err(TargetError::Immutable(name_of(owner)));
        }
        // What is frozen stays; labels and annotations may follow.
        secret.data = existing.data.clone();
        seal(&mut secret, hasher);
    }
    let action = if secret == *existing {
        Action::Nothing
    } else {
        check_type(owner, &secret)?;
        Action::Update(Box::new(secret))
    };
    Ok(Planned {
        action,
        outcome: Outcome::Synced,
        binding,
        manages: true,
    })
}

fn check_type(owner: &ExternalSecret, secret: &Secret) -> Result<(), TargetError> {
    let (Some(type_), Some(data)) = (&secret.type_, &secret.data) else {
        return Ok(());
    };
    typed::check(type_, data).map_err(|misfit| TargetError::Misfit(name_of(owner), type_.clone(), misfit))
}

pub(super) fn name_of(owner: &ExternalSecret) -> String {
    format!(
        "{}/{}",
        owner.namespace().unwrap_or_default(),
        owner.target_name()
    )
}

/// The owner that controls an object.
pub(super) fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
}

/// Name and kind count, the UID does not: an ExternalSecret that was made anew finds its Secret again.
pub(super) fn is_ours(owner: &ExternalSecret, reference: &OwnerReference) -> bool {
    is_external_secret(reference) && reference.name == owner.name_any()
}

pub(super) fn is_external_secret(reference: &OwnerReference) -> bool {
    reference.kind == "ExternalSecret"
        && reference.api_version.split('/').next() == Some("external-secrets.io")
}

/// Whether this very ExternalSecret controls an object, and so may delete it.
pub(super) fn controls(owner: &ExternalSecret, metadata: &ObjectMeta) -> bool {
    controller(metadata).is_some_and(|reference| {
        is_ours(owner, reference) && Some(&reference.uid) == owner.metadata.uid.as_ref()
    })
}

/// Makes the ExternalSecret the owner that controls an object, or an owner no more, as `creationPolicy` says.
pub(super) fn set_owner(owner: &ExternalSecret, metadata: &mut ObjectMeta) {
    let mut owners = metadata.owner_references.take().unwrap_or_default();
    owners.retain(|reference| !is_ours(owner, reference));
    if owner.spec.creation_policy() == CreationPolicy::Owner {
        owners.extend(owner.controller_owner_ref(&()).map(|reference| OwnerReference {
            block_owner_deletion: Some(true),
            ..reference
        }));
    }
    metadata.owner_references = (!owners.is_empty()).then_some(owners);
}

/// Stops one tenant from having us overwrite what another, or Kubernetes itself, relies on.
fn refuse_foreign(owner: &ExternalSecret, existing: &Secret) -> Result<(), TargetError> {
    if let Some(type_) = existing
        .type_
        .as_deref()
        .filter(|type_| FORBIDDEN_TYPES.contains(type_))
    {
        return Err(TargetError::ForbiddenType(name_of(owner), type_.into()));
    }
    let Some(reference) = controller(&existing.metadata).filter(|reference| !is_ours(owner, reference))
    else {
        return Ok(());
    };
    if is_external_secret(reference) {
        return Err(TargetError::OwnedByAnother(
            name_of(owner),
            reference.name.clone(),
        ));
    }
    if owner.spec.creation_policy() == CreationPolicy::Owner {
        let (kind, name) = (reference.kind.clone(), reference.name.clone());
        return Err(TargetError::Foreign(name_of(owner), kind, name));
    }
    Ok(())
}

fn delete(owner: &ExternalSecret, existing: Option<&Secret>) -> Result<Planned, TargetError> {
    let planned = |action| Planned {
        action,
        outcome: Outcome::Deleted,
        binding: None,
        manages: false,
    };
    // ESO refuses Orphan only here, when there is something to delete: until then it is synced.
    if owner.spec.creation_policy() != CreationPolicy::Owner {
        return Err(TargetError::NotOursToDelete(name_of(owner)));
    }
    let Some(existing) = existing else {
        return Ok(planned(Action::Nothing));
    };
    if !controls(owner, &existing.metadata) {
        return Err(TargetError::NotOursToDelete(name_of(owner)));
    }
    Ok(planned(Action::Delete {
        uid: existing.uid().unwrap_or_default(),
        resource_version: existing.resource_version().unwrap_or_default(),
    }))
}

/// The Secret as it must be.
fn shape(
    owner: &ExternalSecret,
    existing: Option<&Secret>,
    content: Wanted<'_>,
    hasher: &DataHasher,
) -> Result<Secret, TargetError> {
    let policy = owner.spec.creation_policy();
    let mut wanted = existing.cloned().unwrap_or_default();
    let meta = &mut wanted.metadata;
    meta.name = Some(owner.target_name());
    meta.namespace = owner.namespace();
    let stale = Stale::find(
        meta.managed_fields.as_deref().unwrap_or_default(),
        &owner.name_any(),
    );
    let mut labels = meta.labels.take().unwrap_or_default();
    let mut annotations = meta.annotations.take().unwrap_or_default();
    labels.retain(|key, _| !stale.labels.contains(key));
    annotations.retain(|key, _| !stale.annotations.contains(key));
    if let Some(shaped) = content.shaped {
        labels.extend(shaped.labels.clone());
        annotations.extend(shaped.annotations.clone());
    } else {
        labels.extend(owner.labels().clone());
        // ESO copies kubectl's copy of the manifest too, which helps nobody and misleads GitOps tools.
        let own = owner
            .annotations()
            .iter()
            .filter(|(key, _)| *key != names::ANNOTATION_LAST_APPLIED);
        annotations.extend(own.map(|(key, value)| (key.clone(), value.clone())));
    }
    leased::note(&mut annotations, content.assembled);
    labels.insert(names::LABEL_MANAGED.into(), "true".into());
    labels.remove(names::LABEL_CREATED_BY);
    if policy == CreationPolicy::Owner {
        let namespace = owner.namespace().unwrap_or_default();
        labels.insert(
            names::LABEL_CREATED_BY.into(),
            names::created_by(&namespace, &owner.name_any()),
        );
    }
    set_owner(owner, meta);
    meta.labels = Some(labels);
    meta.annotations = Some(annotations);
    wanted.data = Some(merge_data(policy, existing, &stale, content.values()));
    wanted.string_data = None;
    set_from_template(owner, &mut wanted, existing.is_none())?;
    if owner.spec.is_immutable() {
        wanted.immutable = Some(true);
    }
    let data = wanted.data.iter().flatten();
    let size: usize = data.map(|(key, value)| key.len() + value.0.len()).sum();
    if size > DATA_MAX {
        return Err(TargetError::TooLarge(name_of(owner), size));
    }
    seal(&mut wanted, hasher);
    Ok(wanted)
}

/// The type and the finalizers. Finalizers are added and never removed, as in ESO; a Secret that is being
/// deleted takes no new ones.
fn set_from_template(owner: &ExternalSecret, wanted: &mut Secret, new: bool) -> Result<(), TargetError> {
    let template = owner.spec.template();
    let type_ = template
        .and_then(|template| template.type_.clone())
        .filter(|type_| !type_.is_empty());
    if new {
        wanted.type_ = Some(type_.unwrap_or_else(|| "Opaque".into()));
    } else if let Some(type_) = type_ {
        let is = wanted.type_.clone().unwrap_or_else(|| "Opaque".into());
        if is != type_ {
            return Err(TargetError::TypeFixed(name_of(owner), is, type_));
        }
    }
    let finalizers = template.and_then(|template| template.metadata.as_ref());
    let finalizers = finalizers.into_iter().flat_map(|metadata| &metadata.finalizers);
    if wanted.metadata.deletion_timestamp.is_none() {
        for finalizer in finalizers {
            let all = wanted.metadata.finalizers.get_or_insert_default();
            if !all.contains(finalizer) {
                all.push(finalizer.clone());
            }
        }
    }
    Ok(())
}

/// The Secret with a hash and a record of the present key and form, its data as it is; none if it has them, or if it is
/// another's or was changed.
#[must_use]
pub fn sealed(owner: &ExternalSecret, existing: &Secret, hasher: &DataHasher) -> Option<Secret> {
    let was = hasher.seal(existing);
    reserved::by_label(owner, Some(existing)).ok()?;
    if was == Seal::Broken || refuse_foreign(owner, existing).is_err() {
        return None;
    }
    let mut secret = existing.clone();
    seal(&mut secret, hasher);
    let record = match was == Seal::Unknown && !kept::is_signed(existing, hasher) {
        true => kept::adopted(owner, existing, hasher),
        // It still tells what the target was made of.
        false => None,
    };
    if let (Some(record), Some(annotations)) = (record, &mut secret.metadata.annotations) {
        annotations.insert(kept::ANNOTATION_RENDERED.into(), record);
    }
    (secret != *existing).then_some(secret)
}

/// Writes the hash of the whole data, foreign keys included.
fn seal(secret: &mut Secret, hasher: &DataHasher) {
    let hash = hasher.annotation(secret);
    secret
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(names::ANNOTATION_DATA_HASH.into(), hash);
}

fn merge_data(
    policy: CreationPolicy,
    existing: Option<&Secret>,
    stale: &Stale,
    values: &BTreeMap<String, SecretBytes>,
) -> BTreeMap<String, ByteString> {
    let mut data = match policy {
        CreationPolicy::Merge | CreationPolicy::CreateOrMerge => existing
            .and_then(|secret| secret.data.clone())
            .unwrap_or_default(),
        // Owner and Orphan own all of it: keys that somebody added go.
        _ => BTreeMap::new(),
    };
    data.retain(|key, _| !stale.data.contains(key));
    data.extend(
        values
            .iter()
            .map(|(key, value)| (key.clone(), ByteString(value.expose().to_vec()))),
    );
    data
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
