//! The objects that hold templates of a target.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::external_secret::{ExternalSecretTemplate, TemplateRef};
use crate::secret::SecretBytes;

/// Bytes of all templates of a target, each counted as often as it is named. A Secret holds 1 MiB.
const TEXT_MAX: usize = 4 << 20;
/// What a template takes beside its text, about.
const TEMPLATE: usize = 1 << 10;

/// The kinds of object that may hold templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SourceKind {
    /// A ConfigMap: its `data`, not its `binaryData`, as in ESO.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl SourceKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// An object that holds templates, in the namespace of the ExternalSecret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceRef {
    /// Its kind.
    pub kind: SourceKind,
    /// Its name.
    pub name: String,
}

/// The contents of the objects that hold templates; one that does not exist is not among them.
pub type Sources = BTreeMap<SourceRef, BTreeMap<String, SecretBytes>>;

/// The objects that a template reads.
#[must_use]
pub fn sources(template: &ExternalSecretTemplate) -> BTreeSet<SourceRef> {
    let of = |kind, reference: &Option<TemplateRef>| {
        let name = reference.as_ref()?.name.clone();
        Some(SourceRef { kind, name })
    };
    let from = template.template_from.iter();
    from.flat_map(|from| {
        [
            of(SourceKind::ConfigMap, &from.config_map),
            of(SourceKind::Secret, &from.secret),
        ]
    })
    .flatten()
    .collect()
}

/// Refuses templates that are too much together, before they are parsed: one of a megabyte may be named thousands of
/// times.
///
/// # Errors
/// That they are.
pub fn check_size(template: &ExternalSecretTemplate, contents: &Sources) -> Result<(), &'static str> {
    let from = template.template_from.iter();
    let references = from.flat_map(|from| {
        [
            (SourceKind::ConfigMap, from.config_map.as_ref()),
            (SourceKind::Secret, from.secret.as_ref()),
        ]
    });
    let mut size = template.size();
    for (kind, reference) in references {
        let Some(reference) = reference else { continue };
        let name = reference.name.clone();
        let content = contents.get(&SourceRef { kind, name });
        let texts = reference.items.iter().map(|item| {
            let text = content.and_then(|content| content.get(&item.key));
            TEMPLATE + text.map_or(0, |text| text.expose().len())
        });
        size += texts.sum::<usize>();
    }
    if size > TEXT_MAX {
        return Err(
            "the templates have more than 4 MiB together, each as often as it is named; name fewer or smaller ones",
        );
    }
    Ok(())
}
