//! `rewrite.merge`: many JSON objects become one.

use std::collections::{BTreeMap, BTreeSet};

use super::Map;
use crate::api::external_secret::{ConflictPolicy, MergeStrategy, PriorityPolicy, RewriteMerge};
use crate::secret::SecretBytes;
use crate::sync::property;
use crate::vault::json::{Json, JsonError};

/// Why objects cannot be merged; never holds a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// A key of `priority` is not there.
    #[error(
        "merge failed with key {0:?} not found in input map; correct merge.priority, or set merge.priorityPolicy: \
         IgnoreNotFound"
    )]
    NotFound(String),
    /// A value is not JSON.
    #[error("merge failed with failed to unmarshal JSON: the value of key {key:?}: {error}")]
    NotJson {
        /// Its key.
        key: String,
        /// What is wrong with it.
        error: JsonError,
    },
    /// A value is no object.
    #[error(
        "merge failed with failed to unmarshal JSON: the value of key {key:?} is {kind}, and only objects can be merged"
    )]
    NotAnObject {
        /// Its key.
        key: String,
        /// What it is.
        kind: &'static str,
    },
    /// Keys in more than one object.
    #[error(
        "merge failed with conflicts: {}; rename them in the store, or set merge.conflictPolicy: Ignore, and by \
         merge.priority which object wins",
        .0.join(", ")
    )]
    Conflicts(Vec<String>),
}

/// Merges: objects in the order of their keys, those named by `priority` after them, so that the last one wins.
pub fn merge(rewrite: &RewriteMerge, mut map: Map) -> Result<Map, MergeError> {
    let mut merged = Json::Object(merged(rewrite, &map)?);
    match rewrite.strategy.unwrap_or_default() {
        MergeStrategy::Extract => Ok(property::texts(merged).unwrap_or_default()),
        MergeStrategy::Json => {
            let into = rewrite.into.clone().unwrap_or_default();
            property::nested_through_float(&mut merged);
            let text = merged.to_go_string_without_html();
            map.insert(into, SecretBytes::new(text.into_bytes()));
            Ok(map)
        }
    }
}

fn merged(rewrite: &RewriteMerge, map: &Map) -> Result<BTreeMap<String, Json>, MergeError> {
    let plain = map.keys().filter(|key| !rewrite.priority.contains(key));
    let (mut merged, mut conflicts) = (BTreeMap::new(), BTreeSet::new());
    for key in plain.chain(&rewrite.priority) {
        let Some(value) = map.get(key) else {
            match rewrite.priority_policy.unwrap_or_default() {
                PriorityPolicy::IgnoreNotFound => continue,
                PriorityPolicy::Strict => return Err(MergeError::NotFound(key.clone())),
            }
        };
        for (member, value) in members(key, value)? {
            if merged.insert(member.clone(), value).is_some() {
                conflicts.insert(member);
            }
        }
    }
    if !conflicts.is_empty() && rewrite.conflict_policy.unwrap_or_default() == ConflictPolicy::Error {
        return Err(MergeError::Conflicts(conflicts.into_iter().collect()));
    }
    Ok(merged)
}

fn members(key: &str, value: &SecretBytes) -> Result<BTreeMap<String, Json>, MergeError> {
    let json = Json::parse(value.expose()).map_err(|error| MergeError::NotJson {
        key: key.to_owned(),
        error,
    })?;
    match json.kind() {
        // Go decodes null into an empty map.
        "null" => Ok(BTreeMap::new()),
        kind => json.into_object().ok_or_else(|| MergeError::NotAnObject {
            key: key.to_owned(),
            kind,
        }),
    }
}
