//! An object of a list or watch that may be malformed without harm to the others. kube has a
//! `DeserializeGuard` for it, which reads each object into a tree and copies the tree: an eighth of the
//! operator's own work in a first sync. This one reads the text once, and again only if it is malformed.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::core::error_boundary::InvalidObject;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An object, or what is wrong with it.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, InvalidObject>);

/// What can be read of everything.
#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    metadata: Metadata,
}

/// What has to be known of a malformed object. Not `managedFields`: they are as deep as the object, which may be
/// deeper than any reader goes, and an object that cannot be read at all would end the list of all.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    deletion_timestamp: Option<Time>,
}

impl From<Metadata> for ObjectMeta {
    fn from(known: Metadata) -> Self {
        Self {
            name: known.name,
            namespace: known.namespace,
            uid: known.uid,
            resource_version: known.resource_version,
            generation: known.generation,
            deletion_timestamp: known.deletion_timestamp,
            ..Self::default()
        }
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        serde_json::from_str(text.get())
            .map(Ok)
            .or_else(|error| {
                let Container { metadata } = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
                let (error, metadata) = (error.to_string(), metadata.into());
                Ok(Err(InvalidObject { error, metadata }))
            })
            .map(Self)
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &Self::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &Self::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => object.meta(),
            Err(invalid) => &invalid.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(invalid) => &mut invalid.metadata,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use kube::api::WatchEvent;
    use kube::core::ObjectList;
    use serde_json::json;

    use super::*;
    use crate::api::external_secret::ExternalSecret;
    use crate::api::store::SecretStore;

    fn object(name: &str, data: &serde_json::Value) -> serde_json::Value {
        json!({
            "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
            "metadata": {"namespace": "db", "name": name}, "spec": {"data": data},
        })
    }

    #[test]
    fn a_malformed_object_of_a_list_is_known_by_its_name_and_its_neighbour_is_read() {
        let list = json!({
            "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecretList", "metadata": {},
            "items": [object("bad", &json!("none")), object("good", &json!([]))],
        });
        let list: ObjectList<Guarded<ExternalSecret>> = serde_json::from_str(&list.to_string()).unwrap();
        let [bad, good] = list.items.as_slice() else {
            unreachable!()
        };
        assert_eq!(bad.meta().name.as_deref(), Some("bad"));
        assert!(bad.0.as_ref().unwrap_err().error.contains("expected a sequence"));
        assert_eq!(good.0.as_ref().unwrap().metadata.name.as_deref(), Some("good"));
    }

    #[test]
    fn an_object_that_is_too_deep_to_be_read_is_known_by_its_name_and_its_neighbour_is_read() {
        for depth in [130, 9_000] {
            let spec = format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
            let fields = format!("{}{{}}{}", r#"{"f:a":"#.repeat(depth), "}".repeat(depth));
            let deep = format!(
                r#"{{"metadata":{{"namespace":"db","name":"deep","uid":"u","generation":2,"managedFields":[{{
                "manager":"m","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{fields}}}]}},
                "spec":{{"provider":{{"aws":{spec}}}}}}}"#
            );
            let good = r#"{"metadata":{"name":"good"},"spec":{"provider":{"aws":{}}}}"#;
            let list = format!(r#"{{"metadata":{{}},"items":[{deep},{good}]}}"#);
            let list: ObjectList<Guarded<SecretStore>> = serde_json::from_str(&list).unwrap();
            let [bad, good] = list.items.as_slice() else {
                unreachable!()
            };
            let meta = bad.meta();
            assert_eq!((meta.name.as_deref(), meta.generation), (Some("deep"), Some(2)));
            assert!(bad.0.as_ref().unwrap_err().error.contains("recursion limit"));
            assert!(good.0.is_ok());
        }
    }

    #[test]
    fn a_malformed_object_of_a_watch_is_known_by_its_name() {
        // As the API server writes it: the type first.
        let event = format!(r#"{{"type":"MODIFIED","object":{}}}"#, object("bad", &json!(7)));
        let event: WatchEvent<Guarded<ExternalSecret>> = serde_json::from_str(&event).unwrap();
        let WatchEvent::Modified(object) = event else {
            unreachable!()
        };
        assert_eq!(object.meta().name.as_deref(), Some("bad"));
        assert!(object.0.is_err());
    }
}
