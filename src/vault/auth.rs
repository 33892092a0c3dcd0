//! Logging in, and what becomes of the token.

use std::sync::Arc;
use std::time::Duration;

use rustify::endpoint::Endpoint;
use serde::Deserialize;
use vaultrs::api::token::requests::{LookupTokenSelfRequest, RenewTokenSelfRequest, RevokeTokenSelfRequest};
use zeroize::Zeroizing;

use super::body::Body;
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
    /// How many requests it serves; `None` means without limit.
    pub uses: Option<u64>,
}

impl Lease {
    /// A token that was given to us and of which nothing is known: used as it is.
    #[must_use]
    pub fn given(token: Token) -> Self {
        Self {
            token,
            ttl: None,
            renewable: false,
            revocable: false,
            uses: None,
        }
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
    #[serde(default)]
    num_uses: u64,
}

/// Only what is needed of an answer to a look at a token.
#[derive(Deserialize)]
struct LookUpAnswer {
    data: LookedUp,
}

#[derive(Deserialize)]
struct LookedUp {
    #[serde(default)]
    ttl: u64,
    #[serde(default)]
    renewable: bool,
}

fn lease(body: &[u8]) -> Result<Lease, VaultError> {
    // The error of serde_json is dropped: it may quote the body.
    let answer: AuthAnswer = serde_json::from_slice(body).map_err(|_| VaultError::NotVault)?;
    // Login MFA answers so, and asks for a second factor.
    let auth = answer.auth.filter(|auth| !auth.client_token.is_empty());
    let auth = auth.ok_or(VaultError::BadAnswer(
        "Vault's answer to the login holds no token; if login MFA is enforced at that mount, exempt it: nobody can answer \
         for the operator",
    ))?;
    let uses = (auth.num_uses > 0).then_some(auth.num_uses);
    Ok(Lease {
        token: Token::new(&SecretBytes::from(auth.client_token.as_str()))?,
        ttl: (auth.lease_duration > 0).then(|| Duration::from_secs(auth.lease_duration)),
        // A renewal is a use: what has few of them is better spent on reads.
        renewable: auth.renewable && uses.is_none(),
        revocable: auth.token_type != "batch",
        uses,
    })
}

/// Sends a login.
///
/// # Errors
/// What Vault answered; 403 and 400 are faults of the proof or of the role.
pub async fn log_in(
    transport: Arc<Transport>,
    namespace: Option<String>,
    login: Call,
) -> Result<Lease, VaultError> {
    let reply = transport.send(login.namespace(namespace)).await?;
    lease(&reply.success()?)
}

/// Asks what is known of a token that was given to us.
///
/// # Errors
/// What Vault answered; 403 with 'invalid token' if it lives no more.
pub async fn look_up(
    transport: Arc<Transport>,
    namespace: Option<String>,
    token: Token,
) -> Result<Lease, VaultError> {
    let request = LookupTokenSelfRequest::builder().build().ok();
    let body = ask_as(&transport, namespace, &token, request).await?;
    let answer: LookUpAnswer = serde_json::from_slice(&body).map_err(|_| {
        VaultError::BadAnswer("Vault's answer to the look at the token is not of the known form")
    })?;
    Ok(Lease {
        ttl: (answer.data.ttl > 0).then(|| Duration::from_secs(answer.data.ttl)),
        renewable: answer.data.renewable,
        ..Lease::given(token)
    })
}

/// Renews a token; the life that comes back may be capped.
///
/// # Errors
/// What Vault answered; the caller then logs in again.
pub async fn renew(
    transport: Arc<Transport>,
    namespace: Option<String>,
    token: Token,
) -> Result<Lease, VaultError> {
    let request = RenewTokenSelfRequest::builder().build().ok();
    lease(&ask_as(&transport, namespace, &token, request).await?)
}

/// Revokes a token that a login gave us.
///
/// # Errors
/// What Vault answered; the token then ends with its life.
pub async fn revoke(
    transport: Arc<Transport>,
    namespace: Option<String>,
    token: Token,
) -> Result<(), VaultError> {
    let request = RevokeTokenSelfRequest::builder().build().ok();
    ask_as(&transport, namespace, &token, request).await.map(drop)
}

/// The body of a successful answer to what a token asks about itself.
async fn ask_as<E: Endpoint>(
    transport: &Transport,
    namespace: Option<String>,
    token: &Token,
    request: Option<E>,
) -> Result<Body, VaultError> {
    let request =
        request.ok_or_else(|| VaultError::BadRequest("the request about the token is incomplete".into()))?;
    let call = Call::new(&request)?.token(token).namespace(namespace);
    transport.send(call).await?.success()
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
    fn a_token_with_few_uses_spends_none_on_renewals() {
        let body = br#"{"auth":{"client_token":"s","lease_duration":60,"renewable":true,"num_uses":10}}"#;
        let lease = lease(body).unwrap();
        assert!(!lease.renewable && lease.uses == Some(10));
    }

    #[test]
    fn an_answer_of_another_shape_does_not_show_its_content() {
        let error = lease(br#"{"auth":"hunter2"}"#).err().unwrap();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
