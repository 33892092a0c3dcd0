//! Secrets that are nobody's target.
//!
//! The key of an installation is known by its name, in every namespace: other installations have one of the same name,
//! and nobody else has a use for it. Whatever bears the label is refused too.
//!
//! What a store logs in with is refused in the operator's own namespace alone, and only if no ExternalSecret made it. It
//! is common that one store's ExternalSecret makes the credential of another store, and renews it. In other namespaces
//! who may have us write a Secret may as a rule write it; in the operator's, there are the credentials of all.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

use super::names;
use super::plan::{TargetError, name_of};
use crate::api::external_secret::ExternalSecret;

/// Refuses a name that is the operator's own, whether there is such a Secret or not.
///
/// # Errors
/// If the target bears it.
pub fn by_name(owner: &ExternalSecret) -> Result<(), TargetError> {
    match owner.spec.manifest().is_none() && owner.target_name() == names::INSTALLATION_KEY {
        true => Err(TargetError::Reserved(name_of(owner))),
        false => Ok(()),
    }
}

/// Refuses a Secret that bears the label.
///
/// # Errors
/// If it does.
pub(super) fn by_label(owner: &ExternalSecret, existing: Option<&Secret>) -> Result<(), TargetError> {
    match existing.is_some_and(|secret| is(secret, names::LABEL_RESERVED)) {
        true => Err(TargetError::Reserved(name_of(owner))),
        false => Ok(()),
    }
}

/// Refuses a Secret that this store logs in with.
///
/// # Errors
/// If no ExternalSecret made it.
pub fn by_use(owner: &ExternalSecret, existing: &Secret, store: &str) -> Result<(), TargetError> {
    match is(existing, names::LABEL_MANAGED) {
        true => Ok(()),
        false => Err(TargetError::Credential(name_of(owner), store.to_owned())),
    }
}

fn is(secret: &Secret, label: &str) -> bool {
    secret.labels().get(label).is_some_and(|value| value == "true")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn owner(target: Value) -> ExternalSecret {
        serde_json::from_value(json!({
            "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
            "metadata": {"namespace": "db", "name": "pg"}, "spec": {"target": target},
        }))
        .unwrap()
    }

    fn labelled(label: &str, value: &str) -> Secret {
        serde_json::from_value(json!({"metadata": {"labels": {label: value}}})).unwrap()
    }

    #[test]
    fn the_name_of_the_key_is_no_target_under_any_policy() {
        for policy in ["Owner", "Orphan", "Merge", "CreateOrMerge", "None"] {
            let named = json!({"name": names::INSTALLATION_KEY, "creationPolicy": policy});
            let message = by_name(&owner(named)).unwrap_err().to_string();
            assert!(
                message.contains("db/keyferry-installation-key is the operator's own"),
                "{message}"
            );
        }
        assert_eq!(by_name(&owner(json!({"name": "app"}))), Ok(()));
        let namesake = json!({
            "name": names::INSTALLATION_KEY, "manifest": {"apiVersion": "v1", "kind": "ConfigMap"},
        });
        assert_eq!(by_name(&owner(namesake)), Ok(()));
    }

    #[test]
    fn what_bears_the_label_is_no_target() {
        let pg = owner(json!({}));
        assert!(by_label(&pg, Some(&labelled(names::LABEL_RESERVED, "true"))).is_err());
        assert_eq!(
            by_label(&pg, Some(&labelled(names::LABEL_RESERVED, "false"))),
            Ok(())
        );
        assert_eq!(by_label(&pg, None), Ok(()));
    }

    #[test]
    fn a_credential_that_an_external_secret_made_is_renewed_and_any_other_is_refused() {
        let pg = owner(json!({}));
        assert_eq!(
            by_use(&pg, &labelled(names::LABEL_MANAGED, "true"), "SecretStore a"),
            Ok(())
        );
        let message = by_use(&pg, &labelled("team", "true"), "SecretStore a")
            .unwrap_err()
            .to_string();
        assert!(message.contains("SecretStore a logs in with"), "{message}");
    }
}
