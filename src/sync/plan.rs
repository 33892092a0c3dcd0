//! Which reads an ExternalSecret needs.

use std::fmt;

use crate::api::external_secret::{
    CreationPolicy, DeletionPolicy, ExternalSecretData, ExternalSecretDataFrom, ExternalSecretSpec,
    MetadataPolicy, RemoteRef, SecretStoreRef, StoreSourceRef,
};
use crate::api::store::StoreKey;

/// One read of a store; entries that ask for the same share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Which store.
    pub store: StoreKey,
    /// Which key of it.
    pub key: String,
    /// Which version; `None` means the latest.
    pub version: Option<u64>,
}

/// What becomes of a read.
#[derive(Clone, Debug, PartialEq)]
pub enum Use {
    /// One value for one key of the target.
    Single {
        /// The key of the target.
        secret_key: String,
    },
    /// Every key of the remote secret.
    Extract,
}

/// One entry of `data` or `dataFrom`.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Where it stands, for messages: `spec.data[0]`.
    pub field: String,
    /// Index into the reads.
    pub read: usize,
    /// What becomes of it.
    pub usage: Use,
    /// Its options.
    pub remote: RemoteRef,
}

/// All reads and what becomes of them, in the order that decides which value wins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The reads, each once.
    pub reads: Vec<Read>,
    /// The entries: `dataFrom` first, so that `data` wins.
    pub entries: Vec<Entry>,
    /// Whether an entry whose secret is missing fails the sync (`deletionPolicy: Retain`).
    pub missing_fails: bool,
}

/// What cannot be done, which field asks for it, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    field: String,
    why: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

fn refuse<T>(field: impl Into<String>, why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal {
        field: field.into(),
        why: why.into(),
    })
}

fn later<T>(field: impl Into<String>) -> Result<T, Refusal> {
    refuse(
        field,
        "is not served by this version of Keyferry; nothing is synced rather than something else",
    )
}

/// Plans the reads.
///
/// # Errors
/// What the spec asks for and cannot be had.
pub fn plan(spec: &ExternalSecretSpec, namespace: &str) -> Result<Plan, Refusal> {
    check_target(spec)?;
    if spec.sync_windows.is_some() {
        return later("spec.syncWindows");
    }
    if spec.data.is_empty() && spec.data_from.is_empty() {
        return refuse("spec", "either data or dataFrom should be specified");
    }
    let mut planner = Planner {
        spec,
        namespace,
        plan: Plan::default(),
    };
    planner.plan.missing_fails = spec.deletion_policy() == DeletionPolicy::Retain;
    for (i, entry) in spec.data_from.iter().enumerate() {
        planner.data_from(&format!("spec.dataFrom[{i}]"), entry)?;
    }
    for (i, entry) in spec.data.iter().enumerate() {
        planner.data(&format!("spec.data[{i}]"), entry)?;
    }
    Ok(planner.plan)
}

fn check_target(spec: &ExternalSecretSpec) -> Result<(), Refusal> {
    let target = spec.target.clone().unwrap_or_default();
    if target.manifest.is_some() {
        return later("spec.target.manifest");
    }
    if let Some(template) = &target.template {
        let holds = [
            ("type", template.type_.is_some()),
            ("metadata", template.metadata.is_some()),
            (
                "data",
                template.data.as_ref().is_some_and(|data| !data.is_empty()),
            ),
            ("templateFrom", !template.template_from.is_empty()),
        ];
        if let Some((field, _)) = holds.iter().find(|(_, set)| *set) {
            return later(format!("spec.target.template.{field}"));
        }
    }
    if spec.deletion_policy() == DeletionPolicy::Delete && spec.creation_policy() != CreationPolicy::Owner {
        return refuse(
            "spec.target",
            "deletionPolicy=Delete must not be used when the controller doesn't own the secret. Please set \
             creationPolicy=Owner",
        );
    }
    Ok(())
}

struct Planner<'a> {
    spec: &'a ExternalSecretSpec,
    namespace: &'a str,
    plan: Plan,
}

impl Planner<'_> {
    fn data(&mut self, field: &str, entry: &ExternalSecretData) -> Result<(), Refusal> {
        let usage = Use::Single {
            secret_key: entry.secret_key.clone(),
        };
        self.remote(
            field,
            &format!("{field}.remoteRef"),
            &entry.remote_ref,
            entry.source_ref.as_ref(),
            usage,
        )
    }

    fn data_from(&mut self, field: &str, entry: &ExternalSecretDataFrom) -> Result<(), Refusal> {
        if entry.find.is_some() {
            return later(format!("{field}.find"));
        }
        if !entry.rewrite.is_empty() {
            return later(format!("{field}.rewrite"));
        }
        match &entry.extract {
            Some(remote) => self.remote(
                field,
                &format!("{field}.extract"),
                remote,
                entry.source_ref.as_ref(),
                Use::Extract,
            ),
            None if entry
                .source_ref
                .as_ref()
                .is_some_and(|source| source.generator_ref.is_some()) =>
            {
                later(format!("{field}.sourceRef.generatorRef"))
            }
            None => refuse(
                field,
                "either extract, find, or sourceRef must be set to dataFrom",
            ),
        }
    }

    fn remote(
        &mut self,
        field: &str,
        remote_field: &str,
        remote: &RemoteRef,
        source: Option<&StoreSourceRef>,
        usage: Use,
    ) -> Result<(), Refusal> {
        if remote.metadata_policy == Some(MetadataPolicy::Fetch) {
            return later(format!("{remote_field}.metadataPolicy: Fetch"));
        }
        check_key(&format!("{remote_field}.key"), &remote.key)?;
        let read = Read {
            store: self.store(field, source)?,
            key: remote.key.clone(),
            version: version(&format!("{remote_field}.version"), remote.version.as_deref())?,
        };
        let known = self.plan.reads.iter().position(|other| *other == read);
        let index = known.unwrap_or_else(|| {
            self.plan.reads.push(read);
            self.plan.reads.len() - 1
        });
        self.plan.entries.push(Entry {
            field: field.into(),
            read: index,
            usage,
            remote: remote.clone(),
        });
        Ok(())
    }

    fn store(&self, field: &str, source: Option<&StoreSourceRef>) -> Result<StoreKey, Refusal> {
        if source.is_some_and(|source| source.generator_ref.is_some()) {
            return later(format!("{field}.sourceRef.generatorRef"));
        }
        let own = source.and_then(|source| source.store_ref.as_ref());
        let (reference, where_): (Option<&SecretStoreRef>, String) = match own {
            Some(own) => (Some(own), format!("{field}.sourceRef.storeRef.name")),
            None => (
                self.spec.secret_store_ref.as_ref(),
                "spec.secretStoreRef.name".into(),
            ),
        };
        match reference.and_then(|reference| reference.key(self.namespace)) {
            Some(store) => Ok(store),
            None => refuse(where_, "is missing; name the store to read from"),
        }
    }
}

fn check_key(field: &str, key: &str) -> Result<(), Refusal> {
    if key.trim_matches('/').is_empty() {
        return refuse(field, "is empty; write the path of the secret");
    }
    if key.chars().any(char::is_control) {
        return refuse(field, "holds control characters");
    }
    if key.split('/').any(|segment| segment == ".." || segment == ".") {
        return refuse(
            field,
            "holds a '.' or '..' segment, which could leave the mount; write the full path",
        );
    }
    Ok(())
}

fn version(field: &str, text: Option<&str>) -> Result<Option<u64>, Refusal> {
    match text.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match text.parse::<u64>() {
            // Version 0 is Vault's own word for the latest.
            Ok(version) => Ok(Some(version).filter(|version| *version > 0)),
            Err(_) => refuse(field, format!("'{text}' is not the number of a version")),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn planned(mut spec: serde_json::Value) -> Result<Plan, Refusal> {
        spec["secretStoreRef"] = json!({"name": "s", "kind": "ClusterSecretStore"});
        plan(&serde_json::from_value(spec).unwrap(), "db")
    }

    #[test]
    fn ten_entries_on_one_path_are_one_read() {
        let data: Vec<_> = (0..10)
            .map(|i| json!({"secretKey": format!("k{i}"), "remoteRef": {"key": "app", "property": "p"}}))
            .collect();
        let plan = planned(json!({"data": data})).unwrap();
        assert_eq!((plan.reads.len(), plan.entries.len()), (1, 10));
    }

    #[test]
    fn data_comes_after_data_from_so_that_it_wins() {
        let plan = planned(json!({
            "data": [{"secretKey": "k", "remoteRef": {"key": "a"}}],
            "dataFrom": [{"extract": {"key": "b"}}],
        }));
        let fields: Vec<_> = plan
            .unwrap()
            .entries
            .into_iter()
            .map(|entry| entry.field)
            .collect();
        assert_eq!(fields, ["spec.dataFrom[0]", "spec.data[0]"]);
    }

    #[test]
    fn what_is_not_served_is_refused_by_the_name_of_its_field() {
        let one = json!([{"secretKey": "k", "remoteRef": {"key": "a"}}]);
        for (spec, field) in [
            (json!({"dataFrom": [{"find": {}}]}), "spec.dataFrom[0].find"),
            (
                json!({"dataFrom": [{"extract": {"key": "a"}, "rewrite": [{"regexp": {"source": "a", "target": "b"}}]}]}),
                "spec.dataFrom[0].rewrite",
            ),
            (
                json!({"dataFrom": [{"sourceRef": {"generatorRef": {"kind": "UUID", "name": "u"}}}]}),
                "spec.dataFrom[0].sourceRef.generatorRef",
            ),
            (
                json!({"data": [{"secretKey": "k", "remoteRef": {"key": "a", "metadataPolicy": "Fetch"}}]}),
                "spec.data[0].remoteRef.metadataPolicy",
            ),
            (
                json!({"data": one, "syncWindows": {"kind": "allow", "windows": []}}),
                "spec.syncWindows",
            ),
            (
                json!({"data": one, "target": {"manifest": {"apiVersion": "v1", "kind": "ConfigMap"}}}),
                "spec.target.manifest",
            ),
            (
                json!({"data": one, "target": {"template": {"data": {"a": "b"}}}}),
                "spec.target.template.data",
            ),
            (
                json!({"data": one, "target": {"template": {"type": "kubernetes.io/tls"}}}),
                "spec.target.template.type",
            ),
            (
                json!({"data": one, "target": {"deletionPolicy": "Delete", "creationPolicy": "Orphan"}}),
                "spec.target",
            ),
            (json!({}), "spec"),
            (
                json!({"data": [{"secretKey": "k", "remoteRef": {"key": "a", "version": "x"}}]}),
                "spec.data[0].remoteRef.version",
            ),
        ] {
            let refusal = planned(spec).unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("{field}:")), "{field} in: {refusal}");
        }
        assert!(planned(json!({"data": one, "target": {"template": {}}})).is_ok());
    }

    #[test]
    fn a_key_that_could_leave_its_mount_is_refused() {
        for key in ["../other/data/x", "a/../b", "a\u{0}b", "", "/"] {
            assert!(
                planned(json!({"data": [{"secretKey": "k", "remoteRef": {"key": key}}]})).is_err(),
                "{key:?}"
            );
        }
    }

    #[test]
    fn an_entry_may_name_its_own_store_and_none_is_refused() {
        let spec = json!({"data": [{"secretKey": "k", "remoteRef": {"key": "a"}, "sourceRef": {"storeRef": {"name": "own"}}}]});
        let plan = planned(spec).unwrap();
        assert_eq!(plan.reads[0].store.to_string(), "SecretStore db/own");
        let spec =
            serde_json::from_value(json!({"data": [{"secretKey": "k", "remoteRef": {"key": "a"}}]})).unwrap();
        assert!(
            super::plan(&spec, "db")
                .unwrap_err()
                .to_string()
                .starts_with("spec.secretStoreRef.name")
        );
    }
}
