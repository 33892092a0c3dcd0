//! What an ExternalSecret wrote before, by the API server's own record.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use super::names;

/// What this ExternalSecret wrote before: removed first, so that what is no longer wanted goes.
#[derive(Default)]
pub(super) struct Stale {
    pub(super) data: BTreeSet<String>,
    pub(super) labels: BTreeSet<String>,
    pub(super) annotations: BTreeSet<String>,
}

impl Stale {
    pub(super) fn find(entries: &[ManagedFieldsEntry], name: &str) -> Self {
        let managers = names::field_managers(name);
        let mut stale = Self::default();
        for entry in entries {
            if !entry
                .manager
                .as_ref()
                .is_some_and(|manager| managers.contains(manager))
            {
                continue;
            }
            let Some(fields) = entry.fields_v1.as_ref().map(|fields| &fields.0) else {
                continue;
            };
            let keys = |path: &str| {
                let found = fields.pointer(path).and_then(|value| value.as_object());
                found
                    .into_iter()
                    .flatten()
                    .filter_map(|(key, _)| key.strip_prefix("f:").map(String::from))
                    .collect::<Vec<_>>()
            };
            stale.data.extend(keys("/f:data"));
            stale.labels.extend(keys("/f:metadata/f:labels"));
            stale.annotations.extend(keys("/f:metadata/f:annotations"));
        }
        // It is written anew in any case.
        stale.annotations.remove(names::ANNOTATION_DATA_HASH);
        stale
    }
}
