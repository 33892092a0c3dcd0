//! Names that ESO and its users' tools agree on.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha3::{Digest as _, Sha3_224};

/// Label of every Secret that is managed.
pub const LABEL_MANAGED: &str = "reconcile.external-secrets.io/managed";
/// Label of a Secret that an ExternalSecret owns: hash of its namespace and name.
pub const LABEL_CREATED_BY: &str = "reconcile.external-secrets.io/created-by";
/// Annotation with the hash of the data.
pub const ANNOTATION_DATA_HASH: &str = "reconcile.external-secrets.io/data-hash";
/// Name of the Secret with the key under which data is hashed, in the operator's own namespace.
pub const INSTALLATION_KEY: &str = "keyferry-installation-key";
/// Label of a Secret that is nobody's target.
pub const LABEL_RESERVED: &str = "keyferry.dev/reserved";
/// Finalizer that ESO puts on ExternalSecrets.
pub const FINALIZER: &str = "externalsecrets.external-secrets.io/externalsecret-cleanup";
/// Annotation that kubectl keeps a manifest in.
pub const ANNOTATION_LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

const MANAGER: &str = "externalsecrets.external-secrets.io/";
/// Longest name of a field manager that ESO uses as it is.
const MANAGER_MAX: usize = 63;

fn sha3_224(text: &[u8]) -> String {
    Sha3_224::digest(text)
        .iter()
        .fold(String::new(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

/// Value of [`LABEL_CREATED_BY`].
#[must_use]
pub fn created_by(namespace: &str, name: &str) -> String {
    sha3_224(format!("{namespace}/{name}").as_bytes())
}

/// Field manager of the Secrets of an ExternalSecret; the same as ESO's, so that what it wrote is
/// known as ours.
#[must_use]
pub fn field_manager(name: &str) -> String {
    let plain = format!("{MANAGER}{name}");
    if plain.len() <= MANAGER_MAX {
        plain
    } else {
        format!("{MANAGER}sha3/{}", sha3_224(name.as_bytes()))
    }
}

/// Whether this is the field manager of some ExternalSecret.
#[must_use]
pub fn is_field_manager(manager: &str) -> bool {
    manager.starts_with(MANAGER)
}

/// Every name under which fields of this ExternalSecret may stand: ESO used the plain form for labels
/// and annotations where it used the hashed one for data.
#[must_use]
pub fn field_managers(name: &str) -> [String; 2] {
    [field_manager(name), format!("{MANAGER}{name}")]
}

/// `status.syncedResourceVersion` of an object as it is: ESO's own formula, so that the day of the
/// switch is not the day of a full re-sync.
#[must_use]
pub fn synced_resource_version(
    generation: i64,
    annotations: Option<&BTreeMap<String, String>>,
    labels: Option<&BTreeMap<String, String>>,
) -> String {
    let map = |map: Option<&BTreeMap<String, String>>| {
        let pairs: Vec<String> = map
            .into_iter()
            .flatten()
            .map(|(k, v)| format!("{k}:{v}"))
            .collect();
        pairs.join(" ")
    };
    let text = format!(
        "{{annotations:map[{}] labels:map[{}]}}",
        map(annotations),
        map(labels)
    );
    format!("{generation}-{}", sha3_224(text.as_bytes()))
}

/// The hash that ESO puts into [`ANNOTATION_DATA_HASH`]: of Go's text of the map.
#[must_use]
pub fn eso_data_hash<'a>(data: impl Iterator<Item = (&'a String, &'a [u8])>) -> String {
    let pairs: Vec<String> = data
        .map(|(key, value)| {
            let bytes: Vec<String> = value.iter().map(u8::to_string).collect();
            format!("{key}:[{}]", bytes.join(" "))
        })
        .collect();
    sha3_224(format!("map[{}]", pairs.join(" ")).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_esos() {
        assert_eq!(
            synced_resource_version(1, None, None),
            "1-f47fe3c0b255b6dd8047cdffa772587bb829efe7a1cb70febeda2eb2"
        );
        let annotations = [("a".to_string(), "b".to_string())].into();
        assert_eq!(
            synced_resource_version(3, Some(&annotations), None),
            "3-bf2e191ffa050d7e5617bad52426046fb9b3f137ba45f6c09b8f320b"
        );
    }

    #[test]
    fn the_hash_of_data_is_esos() {
        let (foo, bar) = ("foo".to_string(), "bar".to_string());
        let data = [(&bar, b"value2".as_slice()), (&foo, b"value1".as_slice())];
        assert_eq!(
            eso_data_hash(data.into_iter()),
            "1bed8bcbcb4547ffe19a19cd47d9078e84aa6598266d86b99f992d64"
        );
    }

    #[test]
    fn a_long_name_makes_a_hashed_manager_and_both_forms_are_known() {
        assert_eq!(
            field_manager("postgres-secret"),
            "externalsecrets.external-secrets.io/postgres-secret"
        );
        let long = "a".repeat(28);
        assert!(field_manager(&long).starts_with("externalsecrets.external-secrets.io/sha3/"));
        assert_eq!(
            field_managers(&long)[1],
            format!("externalsecrets.external-secrets.io/{long}")
        );
    }
}
