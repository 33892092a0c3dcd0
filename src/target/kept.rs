//! Targets whose template gives something else every time: `randAlphaNum`, `now`, `genPrivateKey`, `bcrypt`
//! and their like. What such a template rendered is kept while everything it was made of is unchanged;
//! ESO renders it anew at every interval, and whoever watches the Secret restarts.
//!
//! An annotation of the target names what was rendered and holds a keyed hash of it together with all that
//! it was made of. Who wants it made anew deletes the target, or changes a value or the template.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use serde::{Deserialize, Serialize};

use super::hash::DataHasher;
use crate::secret::SecretBytes;
use crate::sync::shape::Shaped;

/// The annotation.
pub const ANNOTATION_RENDERED: &str = "keyferry.dev/rendered";

/// All that a target is made of, by name: values, templates and the objects that hold templates.
pub type Inputs = BTreeMap<String, SecretBytes>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rendered {
    hash: String,
    #[serde(default)]
    data: BTreeSet<String>,
    #[serde(default)]
    labels: BTreeSet<String>,
    #[serde(default)]
    annotations: BTreeSet<String>,
}

/// What the target holds, if it was rendered from just these inputs and nobody changed it since.
#[must_use]
pub fn kept(existing: &Secret, inputs: &Inputs, hasher: &DataHasher) -> Option<Shaped> {
    let annotations = existing.metadata.annotations.as_ref()?;
    let record = annotations.get(ANNOTATION_RENDERED)?;
    let rendered: Rendered = serde_json::from_str(record).ok()?;
    let data = existing.data.as_ref();
    let mut shaped = Shaped::default();
    for key in &rendered.data {
        let value = data?.get(key)?;
        shaped.data.insert(key.clone(), SecretBytes::new(value.0.clone()));
    }
    for key in &rendered.labels {
        let value = existing.metadata.labels.as_ref()?.get(key)?;
        shaped.labels.insert(key.clone(), value.clone());
    }
    for key in &rendered.annotations {
        shaped
            .annotations
            .insert(key.clone(), annotations.get(key)?.clone());
    }
    (hash(&shaped, inputs, hasher) == rendered.hash).then(|| {
        shaped
            .annotations
            .insert(ANNOTATION_RENDERED.into(), record.clone());
        shaped
    })
}

/// Adds the annotation by which [`kept`] knows what was rendered.
pub fn remember(shaped: &mut Shaped, inputs: &Inputs, hasher: &DataHasher) {
    shaped.annotations.remove(ANNOTATION_RENDERED);
    let rendered = Rendered {
        hash: hash(shaped, inputs, hasher),
        data: shaped.data.keys().cloned().collect(),
        labels: shaped.labels.keys().cloned().collect(),
        annotations: shaped.annotations.keys().cloned().collect(),
    };
    // Texts always become JSON.
    if let Ok(record) = serde_json::to_string(&rendered) {
        shaped.annotations.insert(ANNOTATION_RENDERED.into(), record);
    }
}

fn hash(shaped: &Shaped, inputs: &Inputs, hasher: &DataHasher) -> String {
    let inputs = inputs
        .iter()
        .map(|(key, value)| (format!("input/{key}"), value.expose()));
    let data = shaped.data.iter();
    let data = data.map(|(key, value)| (format!("data/{key}"), value.expose()));
    let labels = shaped.labels.iter();
    let labels = labels.map(|(key, value)| (format!("label/{key}"), value.as_bytes()));
    let annotations = shaped.annotations.iter();
    let annotations = annotations.map(|(key, value)| (format!("annotation/{key}"), value.as_bytes()));
    hasher.hash(inputs.chain(data).chain(labels).chain(annotations))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn inputs(value: &str) -> Inputs {
        Inputs::from([("value/user".to_owned(), value.into())])
    }

    fn rendered() -> Shaped {
        Shaped {
            data: BTreeMap::from([("password".to_owned(), "made-up".into())]),
            labels: BTreeMap::from([("made".to_owned(), "today".to_owned())]),
            annotations: BTreeMap::from([("at".to_owned(), "noon".to_owned())]),
            ..Shaped::default()
        }
    }

    fn target(hasher: &DataHasher) -> Secret {
        let mut shaped = rendered();
        remember(&mut shaped, &inputs("a"), hasher);
        let mut secret = Secret::default();
        let data = shaped.data.into_iter();
        secret.data = Some(
            data.map(|(key, value)| (key, ByteString(value.expose().to_vec())))
                .collect(),
        );
        secret.metadata.labels = Some(shaped.labels);
        secret.metadata.annotations = Some(shaped.annotations);
        secret
    }

    #[test]
    fn what_was_rendered_is_kept_while_nothing_changed() {
        let hasher = DataHasher::new(b"key");
        let shaped = kept(&target(&hasher), &inputs("a"), &hasher).unwrap();
        assert_eq!((shaped.data, shaped.labels), (rendered().data, rendered().labels));
        assert_eq!(shaped.annotations["at"], "noon");
        assert!(shaped.annotations.contains_key(ANNOTATION_RENDERED));
    }

    #[test]
    fn a_changed_input_or_a_changed_target_is_rendered_anew() {
        let hasher = DataHasher::new(b"key");
        assert_eq!(kept(&target(&hasher), &inputs("b"), &hasher), None);
        let mut edited = target(&hasher);
        edited
            .data
            .as_mut()
            .unwrap()
            .insert("password".into(), ByteString(b"mine".to_vec()));
        assert_eq!(kept(&edited, &inputs("a"), &hasher), None);
        let mut edited = target(&hasher);
        edited.metadata.labels = None;
        assert_eq!(kept(&edited, &inputs("a"), &hasher), None);
        let mut forged = target(&hasher);
        let annotations = forged.metadata.annotations.as_mut().unwrap();
        annotations.insert(ANNOTATION_RENDERED.into(), "not JSON".into());
        assert_eq!(kept(&forged, &inputs("a"), &hasher), None);
    }

    #[test]
    fn keys_that_others_added_do_not_matter() {
        let hasher = DataHasher::new(b"key");
        let mut merged = target(&hasher);
        merged
            .data
            .as_mut()
            .unwrap()
            .insert("theirs".into(), ByteString(b"x".to_vec()));
        let shaped = kept(&merged, &inputs("a"), &hasher).unwrap();
        assert!(!shaped.data.contains_key("theirs"));
    }
}
