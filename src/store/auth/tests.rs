//! What stores say of logins, and what is refused by name.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::api::external_secret::StoreKind;
use crate::api::store::StoreKey;

fn resolved(namespace: Option<&str>, auth: Value) -> Result<Auth, String> {
    let key = StoreKey {
        kind: if namespace.is_some() {
            StoreKind::SecretStore
        } else {
            StoreKind::ClusterSecretStore
        },
        namespace: namespace.map(String::from),
        name: "vault".into(),
    };
    let scope = Scope {
        key: &key,
        provider: "vault",
    };
    Auth::resolve(&scope, &serde_json::from_value(auth).unwrap()).map_err(|invalid| invalid.0)
}

fn every_method() -> Value {
    let key = json!({"name": "s", "key": "k"});
    json!({
        "tokenSecretRef": key,
        "appRole": {"path": "approle", "roleId": "r", "secretRef": key},
        "kubernetes": {"mountPath": "kubernetes", "role": "r", "secretRef": key},
        "ldap": {"username": "u", "secretRef": key},
        "userPass": {"username": "u", "secretRef": key},
        "jwt": {"role": "r", "secretRef": key},
        "cert": {"clientCert": key, "secretRef": key},
    })
}

#[test]
fn of_several_methods_the_first_in_esos_order_is_used() {
    let mut auth = every_method();
    for (field, mount) in [
        ("tokenSecretRef", None),
        ("appRole", Some("approle")),
        ("kubernetes", Some("kubernetes")),
        ("ldap", Some("ldap")),
        ("userPass", Some("userpass")),
        ("jwt", Some("jwt")),
        ("cert", Some("cert")),
    ] {
        let found = resolved(Some("apps"), auth.clone()).unwrap();
        assert_eq!(found.method().mount().map(|(mount, _)| mount), mount);
        auth.as_object_mut().unwrap().remove(field);
    }
    let none = resolved(Some("apps"), auth).unwrap_err();
    assert!(none.starts_with("no valid auth method specified"), "{none}");
}

#[test]
fn what_is_missing_or_leaves_its_place_is_refused_by_name() {
    let key = json!({"name": "s", "key": "k"});
    for (auth, wanted) in [
        (
            json!({"appRole": {"path": "approle", "secretRef": key}}),
            "invalid Auth.AppRole: neither `roleId` nor `roleRef` was supplied; set one below \
             spec.provider.vault.auth.appRole",
        ),
        (
            json!({"appRole": {"path": "approle", "roleId": "r", "secretRef": {"name": "s"}}}),
            "spec.provider.vault.auth.appRole.secretRef.key is missing",
        ),
        (
            json!({"appRole": {"path": "a/../b", "roleId": "r", "secretRef": key}}),
            "spec.provider.vault.auth.appRole.path is a part of the login's path and must hold no",
        ),
        (
            json!({"kubernetes": {"mountPath": "a//b", "role": "r", "secretRef": key}}),
            "spec.provider.vault.auth.kubernetes.mountPath is a part of the login's path",
        ),
        (
            json!({"userPass": {"username": "..", "secretRef": key}}),
            "spec.provider.vault.auth.userPass.username is a part of the login's path",
        ),
        (
            json!({"userPass": {"username": "al\tice", "secretRef": key}}),
            "spec.provider.vault.auth.userPass.username holds control characters",
        ),
        (
            json!({"ldap": {"username": " ", "secretRef": key}}),
            "spec.provider.vault.auth.ldap.username is missing",
        ),
        (
            json!({"ldap": {"username": "u"}}),
            "spec.provider.vault.auth.ldap.secretRef is missing",
        ),
        (
            json!({"jwt": {"role": "r"}}),
            "neither `secretRef` nor `kubernetesServiceAccountToken` was supplied as token source for jwt authentication",
        ),
        (
            json!({"jwt": {"kubernetesServiceAccountToken": {"serviceAccountRef": {"name": "a"}, "expirationSeconds": 60}}}),
            "expirationSeconds is 60; Kubernetes grants no token for less than 600",
        ),
        (
            json!({"cert": {"secretRef": key}}),
            "spec.provider.vault.auth.cert.clientCert is missing",
        ),
        (
            json!({"cert": {"clientCert": key, "secretRef": {"name": "s"}}}),
            "spec.provider.vault.auth.cert.secretRef.key is missing",
        ),
    ] {
        let error = resolved(Some("apps"), auth).unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn no_reference_of_a_namespaced_store_leaves_its_namespace() {
    let (own, other) = (
        json!({"name": "s", "key": "k"}),
        json!({"name": "s", "key": "k", "namespace": "b"}),
    );
    for (auth, field) in [
        (json!({"tokenSecretRef": other}), "tokenSecretRef"),
        (
            json!({"appRole": {"path": "a", "roleId": "r", "secretRef": other}}),
            "appRole.secretRef",
        ),
        (
            json!({"appRole": {"path": "a", "roleRef": other, "secretRef": own}}),
            "appRole.roleRef",
        ),
        (
            json!({"ldap": {"username": "u", "secretRef": other}}),
            "ldap.secretRef",
        ),
        (
            json!({"userPass": {"username": "u", "secretRef": other}}),
            "userPass.secretRef",
        ),
        (json!({"jwt": {"role": "r", "secretRef": other}}), "jwt.secretRef"),
        (
            json!({"jwt": {"kubernetesServiceAccountToken": {"serviceAccountRef": {"name": "a", "namespace": "b"}}}}),
            "jwt.kubernetesServiceAccountToken.serviceAccountRef",
        ),
        (
            json!({"cert": {"clientCert": other, "secretRef": own}}),
            "cert.clientCert",
        ),
        (
            json!({"cert": {"clientCert": own, "secretRef": other}}),
            "cert.secretRef",
        ),
    ] {
        let error = resolved(Some("a"), auth.clone()).unwrap_err();
        let wanted = format!("spec.provider.vault.auth.{field}.namespace: namespace should either be empty");
        assert!(error.starts_with(&wanted), "{error}");
        assert!(resolved(Some("b"), auth).is_ok(), "{field}");
    }
}

#[test]
fn a_cluster_store_without_namespaces_speaks_for_each_namespace_but_shows_no_certificate_of_it() {
    for method in ["tokenSecretRef", "appRole", "ldap", "userPass", "jwt"] {
        let auth = json!({method: every_method()[method]});
        assert!(resolved(None, auth.clone()).unwrap().is_referent(), "{method}");
        assert!(!resolved(Some("a"), auth).unwrap().is_referent(), "{method}");
    }
    let error = resolved(None, json!({"cert": every_method()["cert"]})).unwrap_err();
    assert!(error.contains("both references need a namespace"), "{error}");
}

#[test]
fn a_login_at_a_mount_that_does_not_exist_is_told_apart_as_far_as_vault_does() {
    let auth = resolved(Some("a"), json!({"jwt": every_method()["jwt"]})).unwrap();
    let denied = |phrase| VaultError::Denied { phrase: Some(phrase) };
    let message = auth.refusal("http://v", &denied("permission denied"), "the token in Secret s");
    assert!(
        message.starts_with(
            "Vault http://v answered 403 to the login: role 'r' (mount 'jwt') does not allow the token in Secret s; check \
             that an auth method is enabled at mount 'jwt' (auth.jwt.path); check the role's bound_audiences"
        ),
        "{message}"
    );
}

#[test]
fn a_namespaced_store_never_speaks_as_the_operator() {
    for auth in [
        json!({"kubernetes": {"role": "r"}}),
        json!({"iam": {"vaultRole": "r", "region": "eu-west-1"}}),
    ] {
        let error = resolved(Some("a"), auth.clone()).unwrap_err();
        assert!(
            error.contains("only a ClusterSecretStore may use them"),
            "{error}"
        );
        assert!(!resolved(None, auth).unwrap().is_referent());
    }
}
