//! What is meant where a manifest says nothing, and views that several rooms need.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use super::duration::{DurationError, GoDuration, SHORTEST_REFRESH};
use super::external_secret::{
    CreationPolicy, DeletionPolicy, ExternalSecret, ExternalSecretSpec, ExternalSecretTemplate,
    ManifestReference, RefreshPolicy, SecretStoreRef, StoreKind,
};
use super::store::{Provider, SecretStoreSpec, StoreKey};

impl ExternalSecretSpec {
    /// `refreshInterval`; 1h if absent.
    ///
    /// # Errors
    /// If it is no duration.
    pub fn refresh_interval(&self) -> Result<GoDuration, DurationError> {
        self.refresh_interval
            .as_deref()
            .map_or(Ok(GoDuration::from_secs(3600)), GoDuration::parse)
    }

    /// `refreshPolicy`; Periodic if absent.
    #[must_use]
    pub fn refresh_policy(&self) -> RefreshPolicy {
        self.refresh_policy.unwrap_or_default()
    }

    /// `target.creationPolicy`; Owner if absent.
    #[must_use]
    pub fn creation_policy(&self) -> CreationPolicy {
        self.target
            .as_ref()
            .and_then(|target| target.creation_policy)
            .unwrap_or_default()
    }

    /// `target.deletionPolicy`; Retain if absent.
    #[must_use]
    pub fn deletion_policy(&self) -> DeletionPolicy {
        self.target
            .as_ref()
            .and_then(|target| target.deletion_policy)
            .unwrap_or_default()
    }

    /// `target.template`.
    #[must_use]
    pub fn template(&self) -> Option<&ExternalSecretTemplate> {
        self.target.as_ref()?.template.as_ref()
    }

    /// `target.manifest`: the kind to write instead of a Secret.
    #[must_use]
    pub fn manifest(&self) -> Option<&ManifestReference> {
        self.target.as_ref()?.manifest.as_ref()
    }

    /// `target.immutable`; false if absent.
    #[must_use]
    pub fn is_immutable(&self) -> bool {
        self.target
            .as_ref()
            .and_then(|target| target.immutable)
            .unwrap_or_default()
    }
}

impl ExternalSecretTemplate {
    /// Bytes of the templates that stand in it: parsing takes as long as they are.
    #[must_use]
    pub fn size(&self) -> usize {
        let literals = self.template_from.iter().filter_map(|from| from.literal.as_ref());
        let metadata = self.metadata.iter();
        let maps = metadata.flat_map(|metadata| [&metadata.labels, &metadata.annotations]);
        let maps = maps.chain([&self.data]).flatten();
        let texts = literals.chain(maps.flat_map(BTreeMap::values));
        texts.map(String::len).sum()
    }
}

impl ExternalSecret {
    /// Name of the Secret: `target.name`, else the object's own.
    #[must_use]
    pub fn target_name(&self) -> String {
        let named = self.spec.target.as_ref().and_then(|target| target.name.clone());
        named
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| self.name_any())
    }
}

impl SecretStoreRef {
    /// The store that is meant from this namespace; `None` without a name.
    #[must_use]
    pub fn key(&self, namespace: &str) -> Option<StoreKey> {
        let name = self.name.clone().filter(|name| !name.is_empty())?;
        let kind = self.kind.unwrap_or_default();
        let namespace = (kind == StoreKind::SecretStore).then(|| namespace.to_string());
        Some(StoreKey {
            kind,
            namespace,
            name,
        })
    }
}

impl fmt::Display for StoreKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "SecretStore {namespace}/{}", self.name),
            None => write!(f, "ClusterSecretStore {}", self.name),
        }
    }
}

impl SecretStoreSpec {
    /// Time between checks, at least a second; whole numbers are seconds, zero and absent mean the default.
    ///
    /// # Errors
    /// As a sentence, if it is no duration or less than zero.
    pub fn refresh_interval(&self, default: Duration) -> Result<Duration, String> {
        let parsed = match &self.refresh_interval {
            None => return Ok(default),
            Some(IntOrString::Int(seconds)) => GoDuration::from_secs(i64::from(*seconds)),
            Some(IntOrString::String(text)) if text.is_empty() => return Ok(default),
            Some(IntOrString::String(text)) => {
                GoDuration::parse(text).map_err(|e| format!("invalid refreshInterval: {e}"))?
            }
        };
        if parsed.is_negative() {
            return Err(format!(
                "invalid refreshInterval \"{parsed}\": must not be negative"
            ));
        }
        Ok(parsed
            .as_std()
            .map_or(default, |interval| interval.max(SHORTEST_REFRESH)))
    }
}

impl Provider {
    /// Name of the one provider that is set.
    ///
    /// # Errors
    /// As a sentence, if there is none or more than one.
    pub fn name(&self) -> Result<&str, String> {
        let served = [
            ("vault", self.vault.is_some()),
            ("openBao", self.open_bao.is_some()),
            ("fake", self.fake.is_some()),
        ];
        let served = served.iter().filter(|(_, set)| *set).map(|(name, _)| *name);
        let names: Vec<&str> = served.chain(self.foreign.keys().map(String::as_str)).collect();
        match names.as_slice() {
            [name] => Ok(name),
            _ => Err(format!(
                "secret stores must only have exactly one backend specified, found {}",
                names.len()
            )),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_size_of_a_template_is_that_of_all_texts_in_it() {
        let template: ExternalSecretTemplate = serde_json::from_value(json!({
            "data": {"a": "12", "b": "3"}, "metadata": {"labels": {"x": "4"}, "annotations": {"y": "56"}},
            "templateFrom": [{"literal": "789"}, {"configMap": {"name": "c", "items": []}}],
        }))
        .unwrap();
        assert_eq!(template.size(), 9);
    }

    fn interval(value: &Value) -> Result<u64, String> {
        let spec = json!({"provider": {"vault": {"server": "http://v"}}, "refreshInterval": value});
        let spec: SecretStoreSpec = serde_json::from_value(spec).unwrap();
        Ok(spec.refresh_interval(Duration::from_secs(300))?.as_secs())
    }

    #[test]
    fn the_interval_of_a_store_is_seconds_or_a_duration_and_zero_means_the_default() {
        for (value, seconds) in [
            (json!(null), 300),
            (json!(60), 60),
            (json!(0), 300),
            (json!("0"), 300),
            (json!("0s"), 300),
            (json!(""), 300),
            (json!("1h30m"), 5_400),
            (json!("1ns"), 1),
        ] {
            assert_eq!(interval(&value), Ok(seconds), "{value}");
        }
    }

    #[test]
    fn an_interval_of_a_store_that_is_none_is_named() {
        for value in [json!("soon"), json!("60"), json!(-1), json!("-1h")] {
            let error = interval(&value).unwrap_err();
            assert!(error.starts_with("invalid refreshInterval"), "{value}: {error}");
        }
    }
}
