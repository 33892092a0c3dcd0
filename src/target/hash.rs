//! Whether a Secret still holds what was written.

use std::fmt::{self, Write as _};

use hmac::{Hmac, KeyInit as _, Mac as _};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::names;

const PREFIX: &str = "hmac-sha256:";
/// Bytes of a key's mark in a hash: enough to tell the keys of one installation apart.
const MARK: usize = 4;
/// Keys that this process knew before, at most.
const FORMER_MAX: usize = 4;

/// See [`DataHasher::fingerprint`].
pub type Fingerprint = [u8; 16];

/// The key of an installation, as its Secret holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct InstallationKey {
    bytes: Zeroizing<Vec<u8>>,
    installation: String,
}

impl InstallationKey {
    /// Of these.
    #[must_use]
    pub fn new(bytes: &[u8], installation: &str) -> Self {
        Self {
            bytes: Zeroizing::new(bytes.to_vec()),
            installation: installation.to_owned(),
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// UID of the installation: a copy of the key elsewhere makes other hashes.
    #[must_use]
    pub fn installation(&self) -> &str {
        &self.installation
    }
}

/// A key, and what is made of it.
struct Key {
    given: InstallationKey,
    /// What hashes are made with. Bound to the installation.
    bound: Zeroizing<[u8; 32]>,
    /// Names it in a hash, and says nothing of it.
    mark: String,
}

impl Key {
    fn new(given: InstallationKey) -> Self {
        let nothing = std::iter::empty::<(&str, &[u8])>;
        let own: [(&str, &[u8]); 1] = [("installation", given.installation.as_bytes())];
        let bound = Zeroizing::new(mac(&given.bytes, &own, nothing()));
        let mark = mac(&*bound, &[("mark", &[])], nothing());
        Self {
            mark: hex(&mark[..MARK]),
            given,
            bound,
        }
    }
}

/// Hashes data under the installation's key. A bare hash, as ESO's, can be guessed for weak values by
/// anybody who may read metadata; a keyed one cannot (promise 8). It is bound to the Secret's namespace and
/// name: equal values in two Secrets are not seen to be equal.
///
/// A hash names its key. One under a key that is not known says nothing: neither that the data is what was
/// written, nor that it is not.
pub struct DataHasher {
    present: Key,
    /// Newest first.
    former: Vec<Key>,
}

impl fmt::Debug for DataHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataHasher")
    }
}

/// Which Secret a hash is for.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Place<'a> {
    /// The Secret of this name.
    #[must_use]
    pub fn new(namespace: &'a str, name: &'a str) -> Self {
        Self { namespace, name }
    }

    /// This one.
    #[must_use]
    pub fn of(secret: &'a Secret) -> Self {
        let metadata = &secret.metadata;
        Self::new(
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        )
    }
}

/// What a Secret's hash says of its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// It is what was written.
    Intact,
    /// The same, by a form or a key of before: to be replaced when the Secret is written next.
    Old,
    /// The same, by a hash that ESO left, which can be guessed: to be replaced soon.
    Bare,
    /// It is under a key that is not known.
    Unknown,
    /// It is not what was written, or the Secret is not marked as managed.
    Broken,
}

/// What a hash says of the values that it was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    Same,
    /// Under a key or in a form of before.
    SameOld,
    Different,
    UnknownKey,
    /// It does not name its key, and is no hash of these under any that is known.
    Unnamed,
}

impl DataHasher {
    /// Under this key.
    #[must_use]
    pub fn new(key: InstallationKey) -> Self {
        Self {
            present: Key::new(key),
            former: Vec::new(),
        }
    }

    /// Under another key from now on; what was signed under the present one is known still.
    #[must_use]
    pub fn succeeded_by(&self, key: InstallationKey) -> Self {
        let known = std::iter::once(&self.present).chain(&self.former);
        let former = known.filter(|known| known.given != key);
        let former = former.take(FORMER_MAX).map(|known| Key::new(known.given.clone()));
        Self {
            former: former.collect(),
            present: Key::new(key),
        }
    }

    /// The present key.
    #[must_use]
    pub fn key(&self) -> &InstallationKey {
        &self.present.given
    }

    /// The annotation for a Secret's data.
    #[must_use]
    pub fn annotation(&self, secret: &Secret) -> String {
        self.sign(Place::of(secret), "data", pairs(secret))
    }

    /// The keyed hash of names and values, in their order, for this Secret and this purpose.
    pub(super) fn sign<'a>(
        &self,
        place: Place<'_>,
        purpose: &'static str,
        pairs: impl Iterator<Item = (impl AsRef<str>, &'a [u8])>,
    ) -> String {
        signature(&self.present, place, purpose, pairs)
    }

    /// Whether a hash that [`sign`](Self::sign) made, or a version that bound it to nothing, is of these.
    pub(super) fn matches<'a, K: AsRef<str>, I>(
        &self,
        hash: &str,
        place: Place<'_>,
        purpose: &'static str,
        pairs: I,
    ) -> Match
    where
        I: Iterator<Item = (K, &'a [u8])> + Clone,
    {
        let rest = hash.strip_prefix(PREFIX).unwrap_or_default();
        let keys = || std::iter::once(&self.present).chain(&self.former);
        let Some((mark, _)) = rest.split_once(':') else {
            // It does not say of which key it is.
            let same = keys().any(|key| rest == hex(&mac(&key.given.bytes, &[], pairs.clone())));
            return if same { Match::SameOld } else { Match::Unnamed };
        };
        let Some(key) = keys().find(|key| key.mark == mark) else {
            return Match::UnknownKey;
        };
        match hash == signature(key, place, purpose, pairs) {
            true if mark == self.present.mark => Match::Same,
            true => Match::SameOld,
            false => Match::Different,
        }
    }

    /// Whether a hash names a key that is known.
    pub(super) fn knows(&self, hash: &str) -> bool {
        let named = hash.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':'));
        let mut keys = std::iter::once(&self.present).chain(&self.former);
        named.is_some_and(|(mark, _)| keys.any(|key| key.mark == mark))
    }

    /// A short form of the keyed hash, to be kept in memory; `None` is like no other.
    #[must_use]
    pub fn fingerprint<'a>(
        &self,
        pairs: impl Iterator<Item = (impl AsRef<str>, &'a [u8])>,
    ) -> Option<Fingerprint> {
        mac(&*self.present.bound, &[], pairs).first_chunk().copied()
    }

    /// What the Secret's hash says of its data.
    #[must_use]
    pub fn seal(&self, secret: &Secret) -> Seal {
        let managed = secret.labels().get(names::LABEL_MANAGED);
        let hash = secret.annotations().get(names::ANNOTATION_DATA_HASH);
        let Some(hash) = hash.filter(|_| managed.is_some_and(|value| value == "true")) else {
            return Seal::Broken;
        };
        if !hash.starts_with(PREFIX) {
            return match *hash == names::eso_data_hash(pairs(secret)) {
                true => Seal::Bare,
                false => Seal::Broken,
            };
        }
        match self.matches(hash, Place::of(secret), "data", pairs(secret)) {
            Match::Same => Seal::Intact,
            Match::SameOld => Seal::Old,
            Match::Different => Seal::Broken,
            Match::UnknownKey | Match::Unnamed => Seal::Unknown,
        }
    }
}

impl Seal {
    /// Whether the data is known to be what was written.
    #[must_use]
    pub fn is_intact(self) -> bool {
        matches!(self, Self::Intact | Self::Old | Self::Bare)
    }
}

fn pairs(secret: &Secret) -> impl Iterator<Item = (&String, &[u8])> + Clone {
    let data = secret.data.iter().flatten();
    data.map(|(key, value): (&String, &ByteString)| (key, value.0.as_slice()))
}

fn signature<'a>(
    key: &Key,
    place: Place<'_>,
    purpose: &'static str,
    pairs: impl Iterator<Item = (impl AsRef<str>, &'a [u8])>,
) -> String {
    let place = [
        ("purpose", purpose.as_bytes()),
        ("namespace", place.namespace.as_bytes()),
        ("name", place.name.as_bytes()),
    ];
    format!("{PREFIX}{}:{}", key.mark, hex(&mac(&*key.bound, &place, pairs)))
}

fn mac<'a>(
    key: &[u8],
    place: &[(&str, &[u8])],
    pairs: impl Iterator<Item = (impl AsRef<str>, &'a [u8])>,
) -> [u8; 32] {
    // HMAC takes a key of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return [0; 32];
    };
    let mut feed = |key: &str, value: &[u8]| {
        // With lengths, so that no two maps make the same bytes.
        for part in [key.as_bytes(), value] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
    };
    place.iter().for_each(|(key, value)| feed(key, value));
    pairs.for_each(|(key, value)| feed(key.as_ref(), value));
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use serde_json::json;

    pub fn hasher(bytes: &[u8]) -> DataHasher {
        DataHasher::new(InstallationKey::new(bytes, "uid"))
    }

    /// The hash that versions made which bound it to nothing.
    pub fn unbound<'a>(bytes: &[u8], pairs: impl Iterator<Item = (impl AsRef<str>, &'a [u8])>) -> String {
        format!("{PREFIX}{}", hex(&mac(bytes, &[], pairs)))
    }

    fn of(namespace: &str, name: &str, hash: &str) -> Secret {
        serde_json::from_value(json!({
            "metadata": {
                "namespace": namespace, "name": name,
                "labels": {names::LABEL_MANAGED: "true"}, "annotations": {names::ANNOTATION_DATA_HASH: hash},
            },
            "data": {"foo": "dmFsdWUx", "bar": "dmFsdWUy"},
        }))
        .unwrap_or_default()
    }

    fn secret(hash: &str) -> Secret {
        of("db", "pg", hash)
    }

    const BARE: &str = "1bed8bcbcb4547ffe19a19cd47d9078e84aa6598266d86b99f992d64";

    #[test]
    fn what_each_form_of_hash_says() {
        let present = hasher(b"key");
        let ours = present.annotation(&secret(""));
        let others = hasher(b"other").annotation(&secret(""));
        let unbound = |bytes: &[u8]| unbound(bytes, pairs(&secret("")));
        let mut broken = ours.clone();
        broken.pop();
        for (hash, wanted) in [
            (ours.as_str(), Seal::Intact),
            (&unbound(b"key"), Seal::Old),
            (BARE, Seal::Bare),
            (&broken, Seal::Broken),
            ("wrong", Seal::Broken),
            ("", Seal::Broken),
            (&others, Seal::Unknown),
            (&unbound(b"other"), Seal::Unknown),
        ] {
            assert_eq!(present.seal(&secret(hash)), wanted, "{hash}");
        }
    }

    #[test]
    fn what_a_former_key_signed_is_known_and_signed_again() {
        let former = hasher(b"key");
        let ours = former.annotation(&secret(""));
        let present = former.succeeded_by(InstallationKey::new(b"other", "uid"));
        assert_eq!(present.seal(&secret(&ours)), Seal::Old);
        assert_eq!(
            present.seal(&secret(&unbound(b"key", pairs(&secret(""))))),
            Seal::Old
        );
        assert_eq!(present.seal(&of("db", "other", &ours)), Seal::Broken);
        let back = present.succeeded_by(InstallationKey::new(b"key", "uid"));
        assert_eq!(back.seal(&secret(&ours)), Seal::Intact);
    }

    #[test]
    fn only_some_former_keys_are_known() {
        let mut last = hasher(b"first");
        let ours = last.annotation(&secret(""));
        for i in 0..=FORMER_MAX {
            last = last.succeeded_by(InstallationKey::new(
                &[u8::try_from(i).unwrap_or_default()],
                "uid",
            ));
        }
        assert_eq!(last.seal(&secret(&ours)), Seal::Unknown);
    }

    #[test]
    fn equal_data_in_two_secrets_or_two_installations_shows_different_hashes() {
        let present = hasher(b"key");
        let hash = |namespace: &str, name: &str| present.annotation(&of(namespace, name, ""));
        let mut hashes = vec![
            hash("db", "pg"),
            hash("db", "pg2"),
            hash("web", "pg"),
            hash("dbp", "g"),
            DataHasher::new(InstallationKey::new(b"key", "another uid")).annotation(&secret("")),
        ];
        for hash in &mut hashes {
            *hash = hash.rsplit(':').next().unwrap_or_default().to_owned();
        }
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 5, "{hashes:?}");
        assert_eq!(present.seal(&of("web", "pg", &hash("db", "pg"))), Seal::Broken);
    }

    #[test]
    fn a_hash_for_one_purpose_is_none_for_another() {
        let (present, secret) = (hasher(b"key"), secret(""));
        let of = Place::of(&secret);
        let hash = present.sign(of, "one", pairs(&secret));
        assert_eq!(present.matches(&hash, of, "one", pairs(&secret)), Match::Same);
        assert_eq!(
            present.matches(&hash, of, "two", pairs(&secret)),
            Match::Different
        );
    }

    #[test]
    fn moving_a_byte_between_key_and_value_changes_the_hash() {
        let present = hasher(b"key");
        let map = |k: &str, v: &str| {
            let data = BTreeMap::from([(k.to_string(), ByteString(v.as_bytes().to_vec()))]);
            let data = Some(data);
            present.annotation(&Secret { data, ..secret("") })
        };
        assert_ne!(map("ab", "c"), map("a", "bc"));
    }

    #[test]
    fn a_secret_that_lost_its_label_is_not_intact() {
        let present = hasher(b"key");
        let mut bare = secret(&present.annotation(&secret("")));
        bare.metadata.labels = None;
        assert_eq!(present.seal(&bare), Seal::Broken);
    }
}
