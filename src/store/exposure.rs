//! What a store gives away to the server that it names: a ServiceAccount token that the API server would take too, or
//! everything to whoever listens on the way.

use std::net::IpAddr;

use url::{Host, Url};

use super::credentials::JwtSource;
use super::settings::Settings;

/// Why the token that a store sends is good for the API server as well, and what to add; `None` if it is not, or if it
/// is read from a Secret, whose writer decides.
#[must_use]
pub fn token_without_audience(settings: &Settings) -> Option<String> {
    let (source, field) = settings.auth.method().service_account_token()?;
    match source {
        JwtSource::ServiceAccount { audiences, .. } if audiences.is_empty() => Some(format!(
            "the ServiceAccount token that is sent to {} has no audience, and so the API server takes it too, which \
             --require-token-audience forbids; add 'audiences: [vault]' (spec.provider.….auth.{field}) and 'audience' \
             to the Vault role",
            settings.url
        )),
        JwtSource::Own => Some(format!(
            "the operator's own token would be sent to {}, which --require-token-audience forbids; name a \
             ServiceAccount and its audiences (spec.provider.….auth.{field})",
            settings.url
        )),
        JwtSource::ServiceAccount { .. } | JwtSource::Secret(_) => None,
    }
}

/// Whether what is sent to this server can be read on the way, as far as its name tells: plain http to what is neither
/// this machine nor a Service or an address of the cluster.
#[must_use]
pub fn is_plain_and_outside(server: &str) -> bool {
    let Ok(url) = Url::parse(server) else { return false };
    url.scheme() == "http"
        && match url.host() {
            Some(Host::Domain(name)) => !is_of_the_cluster(name),
            Some(Host::Ipv4(address)) => !is_private(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => !is_private(IpAddr::V6(address)),
            None => false,
        }
}

/// `vault`, `vault.security`, `vault.security.svc`, or with the cluster's domain. Two labels may also be a domain of
/// the internet: an official one is not told apart from a namespace, so that both are taken for the cluster's.
fn is_of_the_cluster(name: &str) -> bool {
    let labels: Vec<&str> = name.trim_end_matches('.').split('.').collect();
    labels.len() <= 2 || labels.contains(&"svc") || name.ends_with(".localhost")
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::external_secret::StoreKind;
    use crate::api::store::StoreKey;
    use crate::store::settings::{Served, resolve};

    fn told(auth: &Value) -> Option<String> {
        let key = StoreKey {
            kind: StoreKind::ClusterSecretStore,
            namespace: None,
            name: "s".into(),
        };
        let spec =
            json!({"provider": {"vault": {"server": "https://vault:8200", "path": "secret", "auth": auth}}});
        match resolve(&key, &serde_json::from_value(spec).unwrap(), "") {
            Ok(Served::Vault(settings)) => token_without_audience(&settings),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_token_that_the_api_server_would_take_is_told_with_the_field_to_add() {
        let account = |further: Value| {
            let mut account = json!({"name": "a", "namespace": "n"});
            account["audiences"] = further;
            account
        };
        let kubernetes = |account: Value| json!({"kubernetes": {"role": "r", "serviceAccountRef": account}});
        let jwt = |audiences: Value| {
            json!({"jwt": {"role": "r", "kubernetesServiceAccountToken": {
                "serviceAccountRef": account(json!([])), "audiences": audiences, "expirationSeconds": 3600}}})
        };
        for (auth, field) in [
            (
                kubernetes(account(json!([]))),
                Some("auth.kubernetes.serviceAccountRef.audiences"),
            ),
            (kubernetes(account(json!(["vault"]))), None),
            (
                json!({"kubernetes": {"role": "r"}}),
                Some("the operator's own token"),
            ),
            (
                json!({"kubernetes": {"role": "r", "secretRef": {"name": "t", "namespace": "n", "key": "k"}}}),
                None,
            ),
            (
                jwt(json!([])),
                Some("auth.jwt.kubernetesServiceAccountToken.audiences"),
            ),
            (jwt(Value::Null), None),
            (
                json!({"tokenSecretRef": {"name": "t", "namespace": "n", "key": "k"}}),
                None,
            ),
        ] {
            let told = told(&auth);
            match field {
                Some(field) => assert!(
                    told.as_ref().is_some_and(|told| told.contains(field)),
                    "{auth}: {told:?}"
                ),
                None => assert_eq!(told, None, "{auth}"),
            }
        }
    }

    #[test]
    fn only_plain_http_to_what_is_not_of_the_cluster_is_told() {
        for (server, outside) in [
            ("http://vault:8200", false),
            ("http://vault.security:8200", false),
            ("http://vault.security.svc:8200", false),
            ("http://vault.security.svc.cluster.local:8200", false),
            ("http://127.0.0.1:8200", false),
            ("http://[::1]:8200", false),
            ("http://10.96.0.7:8200", false),
            ("http://vault.home.example.org:8200", true),
            ("http://203.0.113.7", true),
            ("https://vault.home.example.org", false),
            ("not a url", false),
        ] {
            assert_eq!(is_plain_and_outside(server), outside, "{server}");
        }
    }
}
