//! Targets whose template gives something else every time: `randAlphaNum`, `now`, `genPrivateKey`, `bcrypt`
//! and their like. What such a template rendered is kept while everything it was made of is unchanged;
//! ESO renders it anew at every interval, and whoever watches the Secret restarts.
//!
//! An annotation of the target names what was rendered and holds a keyed hash of it together with all that
//! it was made of. Who wants it made anew deletes the target, or changes a value or the template.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};

use super::hash::{DataHasher, Match, Place, Seal};
use super::names;
use crate::api::external_secret::{ExternalSecret, ExternalSecretTemplate};
use crate::secret::SecretBytes;
use crate::sync::shape::Shaped;

/// The annotation.
pub const ANNOTATION_RENDERED: &str = "keyferry.dev/rendered";
/// Name of the template among the [`Inputs`].
pub const TEMPLATE: &str = "template";
/// Of the hash.
const PURPOSE: &str = "rendered";

/// All that a target is made of, by name: values, templates and the objects that hold templates.
pub type Inputs = BTreeMap<String, SecretBytes>;

#[derive(Serialize, Deserialize)]
struct Rendered {
    hash: String,
    #[serde(default)]
    data: BTreeSet<String>,
    #[serde(default)]
    labels: BTreeSet<String>,
    #[serde(default)]
    annotations: BTreeSet<String>,
    /// The hash is not of values that were read: they were not known when it was made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    adopted: bool,
}

/// What becomes of what the target holds.
#[derive(Debug, PartialEq)]
pub enum Kept {
    /// It was rendered from just these inputs, and nobody changed it since.
    All(Shaped),
    /// What a template makes up stays as it is here, and all else is rendered: nothing tells what changed, and what
    /// was made up must not go for that.
    MadeUp(Shaped),
    /// All is rendered anew.
    Nothing,
}

/// What of the target is kept. Where the key is not known under which its record was signed (lost, rotated, restored),
/// that is what a template made up: a hash only ever spares a rendering, and never decides that a password changes.
#[must_use]
pub fn kept(owner: &ExternalSecret, existing: &Secret, inputs: &Inputs, hasher: &DataHasher) -> Kept {
    let Some((rendered, held)) = recorded(existing) else {
        return Kept::Nothing;
    };
    match matched(&rendered, &held, existing, inputs, hasher) {
        Match::Same | Match::SameOld if !rendered.adopted => Kept::All(held),
        Match::Same | Match::SameOld => Kept::MadeUp(held),
        // What was made anew could not be written.
        _ if owner.spec.is_immutable() && existing.immutable == Some(true) => Kept::MadeUp(held),
        Match::UnknownKey | Match::Unnamed if is_managed(existing) => Kept::MadeUp(held),
        Match::Different | Match::UnknownKey | Match::Unnamed => Kept::Nothing,
    }
}

/// Adds the annotation by which [`kept`] knows what was rendered.
pub fn remember(shaped: &mut Shaped, owner: &ExternalSecret, inputs: &Inputs, hasher: &DataHasher) {
    shaped.annotations.remove(ANNOTATION_RENDERED);
    let (namespace, name) = (owner.namespace().unwrap_or_default(), owner.target_name());
    let parts = parts(shaped, inputs);
    let rendered = Rendered {
        hash: hasher.sign(Place::new(&namespace, &name), PURPOSE, pairs(&parts)),
        data: shaped.data.keys().cloned().collect(),
        labels: shaped.labels.keys().cloned().collect(),
        annotations: shaped.annotations.keys().cloned().collect(),
        adopted: false,
    };
    // Texts always become JSON.
    if let Ok(record) = serde_json::to_string(&rendered) {
        shaped.annotations.insert(ANNOTATION_RENDERED.into(), record);
    }
}

/// The annotation of a target as it is, signed where the values are not read: by it a change of the template is known.
#[must_use]
pub fn adopted(owner: &ExternalSecret, existing: &Secret, hasher: &DataHasher) -> Option<String> {
    let (mut rendered, held) = recorded(existing)?;
    let inputs = Inputs::from([(TEMPLATE.to_owned(), text_of(owner.spec.template()?))]);
    let parts = parts(&held, &inputs);
    rendered.hash = hasher.sign(Place::of(existing), PURPOSE, pairs(&parts));
    rendered.adopted = true;
    serde_json::to_string(&rendered).ok()
}

/// Whether the record of a target says something under a key that is known.
#[must_use]
pub fn is_signed(existing: &Secret, hasher: &DataHasher) -> bool {
    recorded(existing).is_none_or(|(rendered, _)| hasher.knows(&rendered.hash))
}

/// What stands for the template among the inputs.
#[must_use]
pub fn text_of(template: &ExternalSecretTemplate) -> SecretBytes {
    // A template is plain data and always becomes JSON.
    SecretBytes::new(serde_json::to_vec(template).unwrap_or_default())
}

/// The record, and what the target holds of what it names; none if something is missing.
fn recorded(existing: &Secret) -> Option<(Rendered, Shaped)> {
    let annotations = existing.annotations();
    let rendered: Rendered = serde_json::from_str(annotations.get(ANNOTATION_RENDERED)?).ok()?;
    let mut held = Shaped::default();
    for key in &rendered.data {
        let value = existing.data.as_ref()?.get(key)?;
        held.data.insert(key.clone(), SecretBytes::new(value.0.clone()));
    }
    for key in &rendered.labels {
        held.labels
            .insert(key.clone(), existing.labels().get(key)?.clone());
    }
    for key in &rendered.annotations {
        held.annotations
            .insert(key.clone(), annotations.get(key)?.clone());
    }
    Some((rendered, held))
}

fn matched(
    rendered: &Rendered,
    held: &Shaped,
    existing: &Secret,
    inputs: &Inputs,
    hasher: &DataHasher,
) -> Match {
    let template = inputs.get_key_value(TEMPLATE);
    let template: Inputs = template
        .map(|(name, text)| (name.clone(), text.clone()))
        .into_iter()
        .collect();
    let parts = parts(held, if rendered.adopted { &template } else { inputs });
    let is = hasher.matches(&rendered.hash, Place::of(existing), PURPOSE, pairs(&parts));
    // Of a record that does not name its key, the hash of the data tells whether that is still the same.
    if is == Match::Unnamed && matches!(hasher.seal(existing), Seal::Intact | Seal::Old) {
        return Match::Different;
    }
    is
}

fn is_managed(existing: &Secret) -> bool {
    existing
        .labels()
        .get(names::LABEL_MANAGED)
        .is_some_and(|value| value == "true")
}

type Parts<'a> = Vec<(String, &'a [u8])>;

/// All that the hash is of.
fn parts<'a>(shaped: &'a Shaped, inputs: &'a Inputs) -> Parts<'a> {
    let inputs = inputs.iter();
    let inputs = inputs.map(|(key, value)| (format!("input/{key}"), value.expose()));
    let data = shaped.data.iter();
    let data = data.map(|(key, value)| (format!("data/{key}"), value.expose()));
    let labels = shaped.labels.iter();
    let labels = labels.map(|(key, value)| (format!("label/{key}"), value.as_bytes()));
    let annotations = shaped.annotations.iter();
    let annotations = annotations.map(|(key, value)| (format!("annotation/{key}"), value.as_bytes()));
    inputs.chain(data).chain(labels).chain(annotations).collect()
}

fn pairs<'a>(parts: &'a Parts<'_>) -> impl Iterator<Item = (&'a str, &'a [u8])> + Clone {
    parts.iter().map(|(name, value)| (name.as_str(), *value))
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
