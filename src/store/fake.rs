//! The `fake` provider: values that stand in the store itself, for trying templates and for tests of manifests
//! without a Vault. They are no secrets: whoever may read the store sees them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::scope::Invalid;
use crate::api::store::FakeProvider;
use crate::secret::SecretBytes;

/// ESO's `ValidationResultError`.
const VALIDATION_ERROR: i32 = 2;

/// The values of a fake store.
#[derive(Clone, PartialEq, Eq)]
pub struct Fake {
    /// By key, and then by version; the version of one without is empty.
    values: BTreeMap<String, BTreeMap<String, Arc<SecretBytes>>>,
    fails: bool,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fake({} keys)", self.values.len())
    }
}

impl Fake {
    /// Checks what ESO's webhook checks: every entry has a key and a value.
    ///
    /// # Errors
    /// The entry that lacks one.
    pub fn resolve(spec: &FakeProvider) -> Result<Self, Invalid> {
        let mut values: BTreeMap<String, BTreeMap<String, Arc<SecretBytes>>> = BTreeMap::new();
        for (at, entry) in spec.data.iter().enumerate() {
            let missing =
                |what: &str| Invalid(format!("spec.provider.fake.data[{at}].{what} is missing; set it"));
            let value = entry.value.as_deref().filter(|value| !value.is_empty());
            let value = value.ok_or_else(|| missing("value"))?;
            if entry.key.is_empty() {
                return Err(missing("key"));
            }
            let version = entry.version.clone().unwrap_or_default();
            let versions = values.entry(entry.key.clone()).or_default();
            versions.insert(version, Arc::new(value.into()));
        }
        Ok(Self {
            values,
            fails: spec.validation_result == Some(VALIDATION_ERROR),
        })
    }

    /// Whether the store is to be shown as one that is not valid.
    #[must_use]
    pub fn fails(&self) -> bool {
        self.fails
    }

    /// The value of a key in exactly this version; without one, that which has none, as in ESO.
    #[must_use]
    pub fn value(&self, key: &str, version: Option<&str>) -> Option<Arc<SecretBytes>> {
        self.values.get(key)?.get(version.unwrap_or_default()).cloned()
    }

    /// Every key with its latest version, by the order of their texts.
    pub fn latest(&self) -> impl Iterator<Item = (&str, &SecretBytes)> {
        self.values
            .iter()
            .filter_map(|(key, versions)| Some((key.as_str(), versions.last_key_value()?.1.as_ref())))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::store::FakeProviderData;

    fn entry(key: &str, value: &str, version: Option<&str>) -> FakeProviderData {
        FakeProviderData {
            key: key.into(),
            value: Some(value.into()),
            version: version.map(Into::into),
        }
    }

    fn fake(data: Vec<FakeProviderData>) -> Result<Fake, Invalid> {
        Fake::resolve(&FakeProvider {
            data,
            validation_result: None,
        })
    }

    #[test]
    fn a_version_must_be_named_as_it_is_and_a_search_takes_the_latest() {
        let fake = fake(vec![
            entry("/a", "old", Some("v1")),
            entry("/a", "new", Some("v2")),
            entry("/b", "b", None),
        ]);
        let fake = fake.unwrap();
        assert_eq!(*fake.value("/a", Some("v1")).unwrap(), "old".into());
        assert_eq!(fake.value("/a", None), None);
        assert_eq!(*fake.value("/b", None).unwrap(), "b".into());
        let latest: Vec<_> = fake.latest().collect();
        assert_eq!(latest, [("/a", &"new".into()), ("/b", &"b".into())]);
    }

    #[test]
    fn an_entry_without_a_value_is_named_and_no_value_is_shown() {
        let error = fake(vec![entry("a", "hunter2", None), entry("b", "", None)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "spec.provider.fake.data[1].value is missing; set it"
        );
        assert!(!format!("{:?}", fake(vec![entry("a", "hunter2", None)])).contains("hunter2"));
    }
}
