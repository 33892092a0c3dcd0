//! An object of a list or watch that may be malformed without harm to the others. kube has a
//! `DeserializeGuard` for it, which reads each object into a tree and copies the tree: an eighth of the
//! operator's own work in a first sync. This one reads the text once, and again only if it is malformed.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::error_boundary::InvalidObject;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An object, or what is wrong with it.
#[derive(Clone, Debug)]
pub struct Guarded<K>(pub Result<K, InvalidObject>);

/// What can be read of nearly everything.
#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    metadata: ObjectMeta,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        serde_json::from_str(text.get())
            .map(Ok)
            .or_else(|error| {
                let Container { metadata } = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
                let error = error.to_string();
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
