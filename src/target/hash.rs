//! Whether a Secret still holds what was written.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use hmac::{Hmac, KeyInit as _, Mac as _};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::names;

const PREFIX: &str = "hmac-sha256:";

/// See [`DataHasher::fingerprint`].
pub type Fingerprint = [u8; 16];

/// Hashes data under the installation's key. A bare hash, as ESO's, can be guessed for weak values by
/// anybody who may read metadata; a keyed one cannot (promise 8).
pub struct DataHasher(Zeroizing<Vec<u8>>);

impl fmt::Debug for DataHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataHasher")
    }
}

impl DataHasher {
    /// Under this key.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        Self(Zeroizing::new(key.to_vec()))
    }

    /// The annotation for this data.
    #[must_use]
    pub fn annotation(&self, data: &BTreeMap<String, ByteString>) -> String {
        self.hash(data.iter().map(|(key, value)| (key, value.0.as_slice())))
    }

    /// The keyed hash of names and values, in their order.
    #[must_use]
    pub fn hash<'a>(&self, pairs: impl Iterator<Item = (impl AsRef<str>, &'a [u8])>) -> String {
        let bytes = self.mac(pairs).unwrap_or_default();
        bytes.iter().fold(PREFIX.to_string(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// A short form of the keyed hash, to be kept in memory; `None` is like no other.
    #[must_use]
    pub fn fingerprint<'a>(
        &self,
        pairs: impl Iterator<Item = (impl AsRef<str>, &'a [u8])>,
    ) -> Option<Fingerprint> {
        self.mac(pairs)?.first_chunk().copied()
    }

    fn mac<'a>(&self, pairs: impl Iterator<Item = (impl AsRef<str>, &'a [u8])>) -> Option<[u8; 32]> {
        // HMAC takes a key of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        for (key, value) in pairs {
            // With lengths, so that no two maps make the same bytes.
            for part in [key.as_ref().as_bytes(), value] {
                mac.update(&(part.len() as u64).to_be_bytes());
                mac.update(part);
            }
        }
        Some(mac.finalize().into_bytes().into())
    }

    /// Whether the Secret is managed and its data is what the annotation was made of. A hash by ESO
    /// counts, so that taking a Secret over does not touch its data.
    #[must_use]
    pub fn intact(&self, secret: &Secret) -> bool {
        let labels = secret.metadata.labels.as_ref();
        let managed = labels
            .and_then(|labels| labels.get(names::LABEL_MANAGED))
            .is_some_and(|value| value == "true");
        let annotations = secret.metadata.annotations.as_ref();
        let Some(hash) = annotations
            .and_then(|a| a.get(names::ANNOTATION_DATA_HASH))
            .filter(|_| managed)
        else {
            return false;
        };
        let none = BTreeMap::new();
        let data = secret.data.as_ref().unwrap_or(&none);
        if hash.starts_with(PREFIX) {
            *hash == self.annotation(data)
        } else {
            *hash == names::eso_data_hash(data.iter().map(|(key, value)| (key, value.0.as_slice())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(hash: &str) -> Secret {
        serde_json::from_value(json!({
            "metadata": {
                "labels": {names::LABEL_MANAGED: "true"}, "annotations": {names::ANNOTATION_DATA_HASH: hash},
            },
            "data": {"foo": "dmFsdWUx", "bar": "dmFsdWUy"},
        }))
        .unwrap_or_default()
    }

    #[test]
    fn our_hash_and_esos_are_both_known() {
        let hasher = DataHasher::new(b"key");
        let ours = hasher.annotation(&secret("").data.unwrap_or_default());
        assert!(hasher.intact(&secret(&ours)));
        assert!(hasher.intact(&secret(
            "1bed8bcbcb4547ffe19a19cd47d9078e84aa6598266d86b99f992d64"
        )));
        assert!(!hasher.intact(&secret("wrong")));
        assert!(!DataHasher::new(b"other").intact(&secret(&ours)));
    }

    #[test]
    fn moving_a_byte_between_key_and_value_changes_the_hash() {
        let hasher = DataHasher::new(b"key");
        let map = |k: &str, v: &str| BTreeMap::from([(k.to_string(), ByteString(v.as_bytes().to_vec()))]);
        assert_ne!(
            hasher.annotation(&map("ab", "c")),
            hasher.annotation(&map("a", "bc"))
        );
    }

    #[test]
    fn a_secret_that_lost_its_label_is_not_intact() {
        let hasher = DataHasher::new(b"key");
        let mut bare = secret(&hasher.annotation(&secret("").data.unwrap_or_default()));
        bare.metadata.labels = None;
        assert!(!hasher.intact(&bare));
    }
}
