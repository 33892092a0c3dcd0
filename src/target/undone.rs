//! What a write undid of what others wrote, by the API server's own record.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::core::DynamicObject;
use serde_json::Value;

use super::names;

/// Names that are told of one sort.
const TOLD: usize = 5;
/// Fields of a generic target that are compared, and how deep.
const FIELDS: usize = 1000;
const DEPTH: usize = 32;

/// What was undone. Holds names, never values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// Whether the object was not there at all.
    pub deleted: bool,
    /// Field managers whose fields were changed or taken away.
    pub managers: BTreeSet<String>,
    /// Keys, or fields of a generic target.
    pub keys: BTreeSet<String>,
}

impl Undone {
    /// The target was made anew.
    #[must_use]
    pub fn deleted() -> Self {
        Self {
            deleted: true,
            ..Self::default()
        }
    }

    /// A Secret was written over this one.
    #[must_use]
    pub fn of_secret(owner: &str, before: &Secret, after: &Secret) -> Self {
        let none = BTreeMap::new();
        let (old, new) = (
            before.data.as_ref().unwrap_or(&none),
            after.data.as_ref().unwrap_or(&none),
        );
        let changed = old
            .keys()
            .chain(new.keys())
            .filter(|key| old.get(*key) != new.get(*key));
        let keys: BTreeSet<String> = changed.cloned().collect();
        let paths: Vec<_> = keys
            .iter()
            .map(|key| vec!["data".to_owned(), key.clone()])
            .collect();
        Self {
            deleted: false,
            managers: managers(owner, before.metadata.managed_fields.as_deref(), &paths),
            keys,
        }
    }

    /// A generic target was written over this one.
    #[must_use]
    pub fn of_object(owner: &str, before: &DynamicObject, after: &DynamicObject) -> Self {
        let (mut paths, mut path) = (Vec::new(), Vec::new());
        differences(&before.data, &after.data, &mut path, &mut paths);
        Self {
            deleted: false,
            managers: managers(owner, before.metadata.managed_fields.as_deref(), &paths),
            keys: paths.iter().map(|path| path.join(".")).collect(),
        }
    }

    /// For example `field manager "reflector" keeps changing the key password`.
    #[must_use]
    pub fn sentence(&self) -> String {
        let who = match self.managers.len() {
            0 => "somebody".to_owned(),
            1 => format!("field manager {}", few(&self.managers, "\"")),
            _ => format!("field managers {}", few(&self.managers, "\"")),
        };
        match self.keys.len() {
            _ if self.deleted => format!("{who} keeps deleting it"),
            0 => format!("{who} keeps changing its labels or annotations"),
            1 => format!("{who} keeps changing its key {}", few(&self.keys, "")),
            _ => format!("{who} keeps changing its keys {}", few(&self.keys, "")),
        }
    }
}

/// A few of many names.
#[must_use]
pub fn few(names: &BTreeSet<String>, quote: &str) -> String {
    let told: Vec<String> = names
        .iter()
        .take(TOLD)
        .map(|name| format!("{quote}{name}{quote}"))
        .collect();
    match names.len().saturating_sub(TOLD) {
        0 => told.join(", "),
        more => format!("{} and {more} more", told.join(", ")),
    }
}

/// Those who wrote one of these fields, but for this ExternalSecret.
fn managers(owner: &str, entries: Option<&[ManagedFieldsEntry]>, paths: &[Vec<String>]) -> BTreeSet<String> {
    let own = names::field_managers(owner);
    let others = entries.into_iter().flatten().filter_map(|entry| {
        let manager = entry.manager.as_ref().filter(|manager| !own.contains(manager))?;
        let fields = &entry.fields_v1.as_ref()?.0;
        paths
            .iter()
            .any(|path| holds(fields, path))
            .then(|| manager.clone())
    });
    others.collect()
}

fn holds(fields: &Value, path: &[String]) -> bool {
    let mut at = fields;
    path.iter().all(|part| match at.get(format!("f:{part}")) {
        Some(below) => {
            at = below;
            true
        }
        None => false,
    })
}

/// The fields that differ. Lists count as one, and the object's own state not at all.
fn differences(old: &Value, new: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    if old == new || found.len() >= FIELDS {
        return;
    }
    let (Some(before), Some(after)) = (old.as_object(), new.as_object()) else {
        found.push(path.clone());
        return;
    };
    if path.len() >= DEPTH {
        found.push(path.clone());
        return;
    }
    let root = path.is_empty();
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for key in keys.into_iter().filter(|key| !root || *key != "status") {
        path.push(key.clone());
        let none = Value::Null;
        differences(
            before.get(key).unwrap_or(&none),
            after.get(key).unwrap_or(&none),
            path,
            found,
        );
        path.pop();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn who_wrote_what_was_undone_is_told_by_names_alone() {
        let before = json!({
            "metadata": {"managedFields": [
                {"manager": "externalsecrets.external-secrets.io/app", "fieldsV1": {"f:data": {"f:password": {}}}},
                {"manager": "reflector", "fieldsV1": {"f:data": {".": {}, "f:password": {}}}},
                {"manager": "kubectl-label", "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}}}}},
            ]},
            "data": {"password": "aHVudGVyMg==", "user": "dQ==", "added": "YQ=="},
        });
        let before: Secret = serde_json::from_value(before).unwrap();
        let mut after = before.clone();
        let data = after.data.as_mut().unwrap();
        data.remove("added");
        data.insert("password".into(), k8s_openapi::ByteString(b"ours".to_vec()));
        let undone = Undone::of_secret("app", &before, &after);
        assert_eq!(
            (&undone.managers, &undone.keys),
            (&set(&["reflector"]), &set(&["added", "password"]))
        );
        let told = undone.sentence();
        assert_eq!(
            told,
            "field manager \"reflector\" keeps changing its keys added, password"
        );
        assert_eq!(Undone::deleted().sentence(), "somebody keeps deleting it");
        let label = Undone::of_secret("app", &before, &before);
        assert_eq!(
            label.sentence(),
            "somebody keeps changing its labels or annotations"
        );
    }

    #[test]
    fn of_a_generic_target_the_fields_are_told_and_its_state_is_not_compared() {
        let object = |fields: Value| {
            let mut object = json!({"apiVersion": "v1", "kind": "Any", "metadata": {"managedFields": [
                {"manager": "helm", "fieldsV1": {"f:spec": {"f:data": {"f:level": {}}}}},
                {"manager": "controller", "fieldsV1": {"f:status": {"f:phase": {}}}},
            ]}});
            object
                .as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
            serde_json::from_value::<DynamicObject>(object).unwrap()
        };
        let before =
            object(json!({"spec": {"data": {"level": "theirs", "url": "u"}}, "status": {"phase": "a"}}));
        let after = object(json!({"spec": {"data": {"level": "ours", "url": "u"}}, "status": {}}));
        let undone = Undone::of_object("app", &before, &after);
        assert_eq!(
            (undone.managers, undone.keys),
            (set(&["helm"]), set(&["spec.data.level"]))
        );
        let deep = |leaf: &str| (0..200).fold(json!(leaf), |below, _| json!({"a": below}));
        let undone = Undone::of_object(
            "app",
            &object(json!({"spec": deep("x")})),
            &object(json!({"spec": deep("y")})),
        );
        assert_eq!(undone.keys.len(), 1);
    }

    #[test]
    fn however_many_keys_there_are_a_few_are_told() {
        let keys = (0..10_000).map(|i| format!("k{i:05}")).collect();
        assert_eq!(
            few(&keys, ""),
            "k00000, k00001, k00002, k00003, k00004 and 9995 more"
        );
    }
}
