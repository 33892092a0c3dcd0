//! The objects that hold templates of a target.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::external_secret::{ExternalSecretTemplate, TemplateRef};
use crate::secret::SecretBytes;

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
