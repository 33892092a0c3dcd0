//! `tokenSecretRef`: a token that somebody else made and put into a Secret.

use async_trait::async_trait;

use super::{Method, Proof};
use crate::api::meta::SecretKeySelector;
use crate::store::credentials::{CredentialError, Credentials, Identity};
use crate::store::scope::{Invalid, Need, Scope, SecretKey};

/// A given token: used as it is, and never revoked by us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenToken {
    key: SecretKey,
}

impl GivenToken {
    pub(super) fn resolve(scope: &Scope<'_>, reference: &SecretKeySelector) -> Result<Self, Invalid> {
        let key = scope.secret(&scope.field("auth.tokenSecretRef"), reference, None)?;
        Ok(Self { key })
    }
}

#[async_trait]
impl Method for GivenToken {
    fn whom(&self) -> String {
        format!("the token in Secret {}", self.key.name)
    }

    fn mount(&self) -> Option<(&str, &'static str)> {
        None
    }

    fn needs(&self) -> Vec<Need> {
        vec![Need::from(&self.key)]
    }

    fn advice(&self) -> &'static str {
        "put a living token into it"
    }

    async fn proof(&self, cluster: &dyn Credentials, identity: &Identity) -> Result<Proof, CredentialError> {
        cluster.secret(&self.key, identity).await.map(Proof::Token)
    }
}
