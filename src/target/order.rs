//! Which values are newer. What was read is written only over what was there before it was read, by a resourceVersion
//! that the write carries: whatever came after it may be made of newer values, of another ExternalSecret or of a
//! replica that led before or leads now. Then the values are read again.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::core::DynamicObject;

use super::names;

/// A target as it was looked at.
#[derive(Clone)]
pub struct Looked<T> {
    /// The target; none if there was none.
    pub object: Option<T>,
    /// Whether this is how it was before the values were read that are to be written.
    pub before: bool,
}

impl<T> Looked<T> {
    /// Looked at before the values were read.
    #[must_use]
    pub fn before(object: Option<T>) -> Self {
        Self { object, before: true }
    }
}

/// What can be told apart of a target of one kind or the other.
pub trait Target {
    /// Its metadata.
    fn metadata(&self) -> &ObjectMeta;
    /// Whether it holds the same as another form of it.
    fn same_content(&self, other: &Self) -> bool;
}

impl Target for Secret {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn same_content(&self, other: &Self) -> bool {
        self.data == other.data
    }
}

impl Target for DynamicObject {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    /// Its state is nothing that we write.
    fn same_content(&self, other: &Self) -> bool {
        let without = |object: &Self| {
            let fields = object.data.as_object().into_iter().flatten();
            fields.filter(|(field, _)| *field != "status").count()
        };
        let mut fields = self.data.as_object().into_iter().flatten();
        without(self) == without(other)
            && fields.all(|(field, value)| field == "status" || other.data.get(field) == Some(value))
    }
}

impl<T: Target> Looked<T> {
    /// After a write that met another: the target as it is now. Labels, owners and state that others set are no news
    /// of Vault.
    pub(super) fn again(self, now: Option<T>) -> Self {
        let same = match (&self.object, &now) {
            (None, None) => true,
            (Some(then), Some(now)) => {
                let (old, new) = (then.metadata(), now.metadata());
                old.uid == new.uid && then.same_content(now) && writers(old).eq(writers(new))
            }
            _ => false,
        };
        Self {
            before: self.before && same,
            object: now,
        }
    }
}

/// The API server's record of what ExternalSecrets wrote, and when.
fn writers(metadata: &ObjectMeta) -> impl Iterator<Item = &ManagedFieldsEntry> {
    let entries = metadata.managed_fields.iter().flatten();
    entries.filter(|entry| entry.manager.as_deref().is_some_and(names::is_field_manager))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NONE: Value = Value::Null;

    fn secret(uid: &str, value: &str, label: &str, written: &str) -> Value {
        json!({
            "metadata": {"uid": uid, "labels": {"theirs": label}, "managedFields": [
                {"manager": "externalsecrets.external-secrets.io/a", "time": written},
                {"manager": "kubectl", "time": label},
            ]},
            "data": {"key": value},
        })
    }

    #[test]
    fn only_what_others_than_external_secrets_set_beside_the_data_is_no_news() {
        let (t0, t1) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z");
        let then = || secret("u", "MQ==", t0, t0);
        for (then, now, before) in [
            (NONE, NONE, true),
            (then(), then(), true),
            (then(), secret("u", "MQ==", t1, t0), true),
            (then(), secret("u", "Mg==", t0, t0), false),
            // Another value and back again.
            (then(), secret("u", "MQ==", t0, t1), false),
            (then(), secret("v", "MQ==", t0, t0), false),
            (NONE, then(), false),
            (then(), NONE, false),
        ] {
            let told = format!("{then} {now}");
            let of = |value| serde_json::from_value::<Option<Secret>>(value).unwrap();
            let again = Looked::before(of(then)).again(of(now));
            assert_eq!(again.before, before, "{told}");
            // What was looked at too late stays so.
            let late = Looked {
                before: false,
                ..again
            };
            let same = late.object.clone();
            assert!(!late.again(same).before);
        }
    }

    #[test]
    fn the_state_of_a_generic_target_is_no_news() {
        let object = |fields: Value| {
            let mut object = json!({"apiVersion": "v1", "kind": "Any", "metadata": {"uid": "u"}});
            let fields = fields.as_object().unwrap().clone();
            object.as_object_mut().unwrap().extend(fields);
            serde_json::from_value::<DynamicObject>(object).unwrap()
        };
        let then = object(json!({"spec": {"a": 1}, "status": {"b": 1}}));
        for (now, before) in [
            (json!({"spec": {"a": 1}, "status": {"b": 2}}), true),
            (json!({"spec": {"a": 1}}), true),
            (json!({"spec": {"a": 2}, "status": {"b": 1}}), false),
            (json!({"spec": {"a": 1}, "data": {}}), false),
            (json!({}), false),
        ] {
            let told = now.to_string();
            let again = Looked::before(Some(then.clone())).again(Some(object(now)));
            assert_eq!(again.before, before, "{told}");
        }
    }
}
