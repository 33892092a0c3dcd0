//! An object of a list or watch that may be malformed without harm to the others. kube has a
//! `DeserializeGuard` for it, which reads each object into a tree and copies the tree: an eighth of the
//! operator's own work in a first sync. This one reads the text once, and again only if it is malformed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::unreadable;
use crate::api::meta::Condition;

/// An object, or what is wrong with it.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, Malformed>);

/// An object that cannot be read.
#[derive(Clone, Debug)]
pub struct Malformed {
    /// Which field is wrong, and what should be there; never what is there.
    pub error: String,
    /// Who it is.
    pub metadata: ObjectMeta,
    /// `spec.controller`, of a store: its class.
    pub controller: Option<String>,
    /// Its conditions, as far as they can be read.
    pub conditions: Vec<Condition>,
}

/// What can be read of everything.
#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    metadata: Metadata,
    spec: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Class {
    controller: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    conditions: Vec<Condition>,
}

/// Reads a part that may be anything.
fn part<T: Default + DeserializeOwned>(text: Option<&RawValue>) -> T {
    text.and_then(|text| serde_json::from_str(text.get()).ok())
        .unwrap_or_default()
}

/// The text of an object without its status. What is wrong with that is nobody's wish, and it is written anew.
fn without_status(text: &str) -> Option<String> {
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).ok()?;
    fields.remove("status")?;
    serde_json::to_string(&fields).ok()
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
            .or_else(|first| {
                let rest = without_status(text.get());
                let (of, error) = match rest.as_deref().map(|rest| (rest, serde_json::from_str(rest))) {
                    Some((_, Ok(object))) => return Ok(Ok(object)),
                    Some((rest, Err(error))) => (rest, error),
                    None => (text.get(), first),
                };
                let whole: Container = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
                Ok(Err(Malformed {
                    error: unreadable::tell(of, &error),
                    metadata: whole.metadata.into(),
                    controller: part::<Class>(whole.spec.as_deref()).controller,
                    conditions: part::<Told>(whole.status.as_deref()).conditions,
                }))
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
    fn a_malformed_status_does_not_make_an_object_unusable() {
        for status in [
            json!(7),
            json!({"conditions": "none"}),
            json!({"refreshTime": "yesterday"}),
        ] {
            let mut whole = object("a", &json!([]));
            whole["status"] = status;
            let read: Guarded<ExternalSecret> = serde_json::from_str(&whole.to_string()).unwrap();
            let object = read.0.unwrap();
            assert_eq!(object.metadata.name.as_deref(), Some("a"));
            assert!(object.status.is_none());
        }
    }

    #[test]
    fn a_malformed_store_is_known_by_its_class_and_what_was_told_of_it_and_its_values_are_not_told() {
        let text = json!({
            "metadata": {"name": "s"},
            "spec": {"controller": "other", "provider": {"fake": {"data": [{"key": "k", "value": {"s3cr3t": 1}}]}}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        let read: Guarded<SecretStore> = serde_json::from_str(&text.to_string()).unwrap();
        let malformed = read.0.unwrap_err();
        assert_eq!(malformed.controller.as_deref(), Some("other"));
        assert_eq!(malformed.conditions[0].status, "True");
        assert!(
            malformed.error.starts_with("spec.provider") && !malformed.error.contains("s3cr3t"),
            "{}",
            malformed.error
        );
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
