//! Where logins get what they prove themselves with: Secrets, requested tokens, our own token.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use kube::api::PostParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::scope::{Need, ReferenceKind, SecretKey};
use crate::memory;
use crate::refusal;
use crate::secret::SecretBytes;

/// Life of a requested token in seconds: the shortest that the API server grants; one login uses it once.
pub const TOKEN_SECONDS: i64 = 600;
const TIMEOUT: Duration = Duration::from_secs(15);

/// For whom a session speaks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Namespace of the ExternalSecret; set only for referent authentication, where it decides.
    pub referent: Option<String>,
}

/// Where the ServiceAccount token of a login comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtSource {
    /// Requested for this ServiceAccount. `namespace: None` as in [`SecretKey`].
    ServiceAccount {
        /// Namespace of the ServiceAccount.
        namespace: Option<String>,
        /// Its name.
        name: String,
        /// Audiences of the token; none means the API server's own.
        audiences: Vec<String>,
        /// Life of the token.
        seconds: i64,
    },
    /// Read from a Secret.
    Secret(SecretKey),
    /// The operator's own, projected into its pod.
    Own,
}

impl JwtSource {
    /// The object that it needs; the operator's own token needs none.
    #[must_use]
    pub fn need(&self) -> Option<Need> {
        match self {
            Self::ServiceAccount { namespace, name, .. } => Some(Need {
                kind: ReferenceKind::ServiceAccount,
                namespace: namespace.clone(),
                name: name.clone(),
            }),
            Self::Secret(key) => Some(Need::from(key)),
            Self::Own => None,
        }
    }
}

/// A ServiceAccount token, and whose it is for messages.
pub struct Jwt {
    /// The token.
    pub jwt: SecretBytes,
    /// For example `ServiceAccount security/eso-vault-auth`.
    pub whose: String,
}

/// Why a credential is not to be had: a sentence for the store's condition. It names the object and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// An object is missing or unfit: somebody must change something.
    #[error("{0}")]
    Unfit(String),
    /// The API server did not do what was asked of it: that passes by itself.
    #[error("{0}")]
    Unreachable(String),
}

impl From<String> for CredentialError {
    fn from(message: String) -> Self {
        Self::Unfit(message)
    }
}

/// Where credentials come from.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// One key of a Secret.
    async fn secret(&self, key: &SecretKey, identity: &Identity) -> Result<SecretBytes, CredentialError>;
    /// One key of a ConfigMap.
    async fn config_map(&self, key: &SecretKey) -> Result<String, CredentialError>;
    /// A ServiceAccount token.
    async fn jwt(&self, source: &JwtSource, identity: &Identity) -> Result<Jwt, CredentialError>;
    /// The annotations of a ServiceAccount. `namespace: None` as in [`SecretKey`].
    async fn annotations(
        &self,
        namespace: Option<&str>,
        name: &str,
        identity: &Identity,
    ) -> Result<BTreeMap<String, String>, CredentialError>;
}

/// The credentials of a cluster.
pub struct ClusterCredentials {
    client: Client,
    own_token: PathBuf,
}

impl ClusterCredentials {
    /// `own_token` is the file with the operator's own projected token.
    #[must_use]
    pub fn new(client: Client, own_token: PathBuf) -> Self {
        Self { client, own_token }
    }

    async fn request_token(
        &self,
        namespace: &str,
        name: &str,
        audiences: &[String],
        seconds: i64,
    ) -> Result<SecretBytes, CredentialError> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: audiences.to_vec(),
                expiration_seconds: Some(seconds),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let answer = match timed(api.create_token_request(name, &PostParams::default(), &request)).await {
            Ok(answer) => answer,
            Err(error) => {
                let role = self.role(namespace, name, "serviceaccounts/token", r#""create""#);
                return Err(error.describe(
                    &format!("ServiceAccount {namespace}/{name}"),
                    "create a token for",
                    &format!(
                        "add {namespace}/{name} to the chart's rbac.serviceAccountTokens, or {}",
                        role.await
                    ),
                ));
            }
        };
        let token = answer.status.map(|status| status.token).unwrap_or_default();
        Ok(SecretBytes::new(token.into_bytes()))
    }

    /// An object that holds credentials.
    async fn get<K>(&self, namespace: &str, name: &str) -> Result<K, CredentialError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        match memory::getting(&namespace.into(), timed(api.get(name))).await {
            Ok(object) => Ok(object),
            Err(error) => {
                let object = format!("{} {namespace}/{name}", K::kind(&()));
                let role = self.role(namespace, name, &K::plural(&()), READ).await;
                Err(error.describe(&object, "read", &role))
            }
        }
    }

    /// The least that allows it.
    async fn role(&self, namespace: &str, name: &str, resource: &str, verbs: &str) -> String {
        let token = tokio::fs::read(&self.own_token).await.map(SecretBytes::new);
        let account = token.ok().and_then(|token| account_of(token.expose()));
        let whom = account.map_or("the operator's ServiceAccount".into(), |account| {
            format!("ServiceAccount {account}")
        });
        format!(
            "bind a Role in namespace {namespace} to {whom}, with the rule {{apiGroups: [\"\"], resources: \
             [\"{resource}\"], resourceNames: [\"{name}\"], verbs: [{verbs}]}}"
        )
    }
}

#[async_trait]
impl Credentials for ClusterCredentials {
    async fn secret(&self, key: &SecretKey, identity: &Identity) -> Result<SecretBytes, CredentialError> {
        let namespace = namespace_of(key.namespace.as_deref(), identity)?;
        let secret: Secret = self.get(namespace, &key.name).await?;
        // The values beside it are wiped as well.
        let data = secret.data.unwrap_or_default().into_iter();
        let mut data: BTreeMap<String, SecretBytes> = data
            .map(|(name, value)| (name, SecretBytes::new(value.0)))
            .collect();
        data.remove(&key.key).ok_or_else(|| {
            let (key, name) = (&key.key, &key.name);
            format!("cannot find secret data for key: \"{key}\" in Secret {namespace}/{name}").into()
        })
    }

    async fn config_map(&self, key: &SecretKey) -> Result<String, CredentialError> {
        let namespace = namespace_of(key.namespace.as_deref(), &Identity { referent: None })?;
        let map: ConfigMap = self.get(namespace, &key.name).await?;
        map.data
            .unwrap_or_default()
            .remove(&key.key)
            .ok_or_else(|| format!("ConfigMap {namespace}/{} has no key \"{}\"", key.name, key.key).into())
    }

    async fn jwt(&self, source: &JwtSource, identity: &Identity) -> Result<Jwt, CredentialError> {
        match source {
            JwtSource::ServiceAccount {
                namespace,
                name,
                audiences,
                seconds,
            } => {
                let namespace = namespace_of(namespace.as_deref(), identity)?;
                let jwt = self.request_token(namespace, name, audiences, *seconds).await?;
                Ok(Jwt {
                    jwt,
                    whose: format!("ServiceAccount {namespace}/{name}"),
                })
            }
            JwtSource::Secret(key) => {
                let jwt = self.secret(key, identity).await?;
                Ok(Jwt {
                    jwt,
                    whose: format!("the token in Secret {}", key.name),
                })
            }
            JwtSource::Own => {
                let path = self.own_token.display();
                let bytes = tokio::fs::read(&self.own_token).await.map_err(|e| {
                    format!("cannot read the operator's own ServiceAccount token at {path}: {e}")
                })?;
                Ok(Jwt {
                    jwt: SecretBytes::new(bytes),
                    whose: "the operator's own ServiceAccount".into(),
                })
            }
        }
    }

    async fn annotations(
        &self,
        namespace: Option<&str>,
        name: &str,
        identity: &Identity,
    ) -> Result<BTreeMap<String, String>, CredentialError> {
        let namespace = namespace_of(namespace, identity)?;
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let account = timed(api.get_metadata(name)).await.map_err(|e| {
            e.describe(
                &format!("ServiceAccount {namespace}/{name}"),
                "read",
                "serviceaccounts",
            )
        })?;
        Ok(account.metadata.annotations.unwrap_or_default())
    }
}

fn namespace_of<'a>(given: Option<&'a str>, identity: &'a Identity) -> Result<&'a str, String> {
    given.or(identity.referent.as_deref()).ok_or_else(|| {
        "the store names no namespace for its credentials, so they belong to the namespace of each ExternalSecret".into()
    })
}

/// What is read is also watched while a store is not ready.
const READ: &str = r#""get", "list", "watch""#;

/// Whose token this is, as `namespace/name`; of the token nothing else is told.
fn account_of(token: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Claims {
        sub: String,
    }
    let claims = token.split(|byte| *byte == b'.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    let (namespace, name) = claims
        .sub
        .strip_prefix("system:serviceaccount:")?
        .split_once(':')?;
    let plain = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
    };
    (plain(namespace) && plain(name)).then(|| format!("{namespace}/{name}"))
}

/// A call to the API server that failed.
enum ApiError {
    Timeout,
    Kube(Box<kube::Error>),
}

impl ApiError {
    /// `cure` is what to do where the operator may not.
    fn describe(&self, object: &str, verb: &str, cure: &str) -> CredentialError {
        let unfit = |why: &str| CredentialError::Unfit(format!("cannot {verb} {object}: {why}"));
        let unreachable = |why: &str| CredentialError::Unreachable(format!("cannot {verb} {object}: {why}"));
        match self {
            Self::Timeout => unreachable("the API server did not answer in time"),
            Self::Kube(error) => match error.as_ref() {
                kube::Error::Api(status) => match status.code {
                    404 => unfit("it does not exist; create it, or correct the store"),
                    403 => unfit(&format!("the operator may not; {cure}")),
                    409 | 429 | 500.. => {
                        unreachable(&format!("the API server answered {}", refusal::told(status)))
                    }
                    _ => unfit(&format!("the API server answered {}", refusal::told(status))),
                },
                _ => unreachable("the API server cannot be reached"),
            },
        }
    }
}

async fn timed<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ApiError> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(result) => result.map_err(|e| ApiError::Kube(Box::new(e))),
        Err(_) => Err(ApiError::Timeout),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_token_tells_whose_it_is_and_nothing_else() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        for (token, wanted) in [
            (
                token(r#"{"sub": "system:serviceaccount:security:keyferry"}"#),
                Some("security/keyferry"),
            ),
            (token(r#"{"sub": "hunter2"}"#), None),
            (token(r#"{"sub": "system:serviceaccount:a:hunter 2"}"#), None),
            (token("hunter2"), None),
            ("hunter2".into(), None),
            (String::new(), None),
        ] {
            assert_eq!(account_of(token.as_bytes()).as_deref(), wanted, "{token}");
        }
    }

    #[test]
    fn what_the_api_server_does_not_do_passes_and_what_it_refuses_does_not() {
        let passes = |error: ApiError| {
            let described = error.describe("Secret db/login", "read", "add a rule");
            matches!(described, CredentialError::Unreachable(_))
        };
        let answered = |code| {
            let status = Status {
                code,
                ..Status::failure("as it is", "Reason")
            };
            passes(ApiError::Kube(Box::new(kube::Error::Api(Box::new(status)))))
        };
        assert!(passes(ApiError::Timeout));
        for code in [409, 429, 500, 503, 504] {
            assert!(answered(code), "{code}");
        }
        for code in [400, 401, 403, 404, 422] {
            assert!(!answered(code), "{code}");
        }
    }
}
