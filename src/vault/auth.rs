//! Logging in, and what becomes of the token.

use std::time::Duration;

use serde::Deserialize;
use vaultrs::api::auth::kubernetes::requests::LoginWithKubernetesRequest;
use vaultrs::api::token::requests::{RenewTokenSelfRequest, RevokeTokenSelfRequest};
use zeroize::Zeroizing;

use super::error::VaultError;
use super::transport::{Call, Token, Transport};
use crate::secret::SecretBytes;

/// A token, and how long it lives.
#[derive(Clone)]
pub struct Lease {
    /// The token.
    pub token: Token,
    /// Its life from now; `None` means without end.
    pub ttl: Option<Duration>,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// Whether we obtained it by a login and it can be revoked: a batch token cannot, and one that
    /// was given to us is not ours to revoke.
    pub revocable: bool,
}

impl Lease {
    /// A token that was given to us: used as it is, never renewed, never revoked.
    ///
    /// # Errors
    /// If the token cannot be used.
    pub fn given(token: &SecretBytes) -> Result<Self, VaultError> {
        Ok(Self {
            token: Token::new(token)?,
            ttl: None,
            renewable: false,
            revocable: false,
        })
    }
}

/// Only what is needed of an answer to a login or a renewal.
#[derive(Deserialize)]
struct AuthAnswer {
    auth: Option<Auth>,
}

#[derive(Deserialize)]
struct Auth {
    client_token: Zeroizing<String>,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
    #[serde(default)]
    token_type: String,
}

fn lease(body: &[u8]) -> Result<Lease, VaultError> {
    // The error of serde_json is dropped: it may quote the body.
    let answer: AuthAnswer = serde_json::from_slice(body)
        .map_err(|_| VaultError::BadAnswer("Vault's answer to the login is not of the known form"))?;
    let auth = answer.auth.ok_or(VaultError::BadAnswer(
        "Vault's answer to the login holds no token",
    ))?;
    Ok(Lease {
        token: Token::new(&SecretBytes::from(auth.client_token.as_str()))?,
        ttl: (auth.lease_duration > 0).then(|| Duration::from_secs(auth.lease_duration)),
        renewable: auth.renewable,
        revocable: auth.token_type != "batch",
    })
}

/// Logs in by the Kubernetes auth method.
///
/// # Errors
/// What Vault answered; 403 and 400 are faults of role, ServiceAccount or audience.
pub async fn login_kubernetes(
    transport: &Transport,
    namespace: Option<String>,
    mount: &str,
    role: &str,
    jwt: &SecretBytes,
) -> Result<Lease, VaultError> {
    let jwt = std::str::from_utf8(jwt.expose().trim_ascii())
        .map_err(|_| VaultError::BadRequest("the ServiceAccount token is not text".into()))?;
    let request = LoginWithKubernetesRequest::builder()
        .mount(mount.trim_matches('/'))
        .role(role)
        .jwt(jwt)
        .build()
        .map_err(|_| VaultError::BadRequest("the login is incomplete".into()))?;
    let reply = transport.send(Call::new(&request)?.namespace(namespace)).await?;
    lease(&reply.success()?)
}

/// Renews a token; the life that comes back may be capped.
///
/// # Errors
/// What Vault answered; the caller then logs in again.
pub async fn renew(
    transport: &Transport,
    namespace: Option<String>,
    token: &Token,
) -> Result<Lease, VaultError> {
    let request = RenewTokenSelfRequest::builder()
        .build()
        .map_err(|_| VaultError::BadRequest("the renewal is incomplete".into()))?;
    let reply = transport
        .send(Call::new(&request)?.token(token).namespace(namespace))
        .await?;
    lease(&reply.success()?)
}

/// Revokes a token that a login gave us.
///
/// # Errors
/// What Vault answered; the token then ends with its life.
pub async fn revoke(
    transport: &Transport,
    namespace: Option<String>,
    token: &Token,
) -> Result<(), VaultError> {
    let request = RevokeTokenSelfRequest::builder()
        .build()
        .map_err(|_| VaultError::BadRequest("the revocation is incomplete".into()))?;
    let reply = transport
        .send(Call::new(&request)?.token(token).namespace(namespace))
        .await?;
    reply.success().map(|_| ())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_token_is_not_revocable_and_a_token_without_ttl_never_ends() {
        let batch =
            br#"{"auth":{"client_token":"b","lease_duration":60,"renewable":false,"token_type":"batch"}}"#;
        let batch = lease(batch).unwrap();
        assert!(!batch.revocable && batch.ttl == Some(Duration::from_secs(60)));
        let root =
            lease(br#"{"auth":{"client_token":"s","lease_duration":0,"token_type":"service"}}"#).unwrap();
        assert!(root.revocable && root.ttl.is_none());
    }

    #[test]
    fn an_answer_of_another_shape_does_not_show_its_content() {
        let error = lease(br#"{"auth":"hunter2"}"#).err().unwrap();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
