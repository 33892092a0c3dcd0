//! `userPass`: a user of Vault's own, with a password.

use async_trait::async_trait;

use super::password::{Password, Spec};
use super::{Method, Proof};
use crate::api::vault::VaultUserPassAuth;
use crate::store::credentials::{CredentialError, Credentials, Identity};
use crate::store::scope::{Invalid, Need, Scope};
use crate::vault::error::VaultError;

/// A login by the userpass auth method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserPass(Password);

impl UserPass {
    pub(super) fn resolve(scope: &Scope<'_>, auth: &VaultUserPassAuth) -> Result<Self, Invalid> {
        let spec = Spec {
            field: "userPass",
            path: auth.path.as_deref(),
            default_path: "userpass",
            username: &auth.username,
            secret: auth.secret_ref.as_ref(),
        };
        Password::resolve(scope, &spec).map(Self)
    }
}

#[async_trait]
impl Method for UserPass {
    fn whom(&self) -> String {
        self.0.whom()
    }

    fn mount(&self) -> Option<(&str, &'static str)> {
        Some((&self.0.mount, "userPass.path"))
    }

    fn needs(&self) -> Vec<Need> {
        vec![Need::from(&self.0.key)]
    }

    fn advice(&self) -> &'static str {
        "check the user's name, and put the present password into the Secret"
    }

    fn explain(&self, answer: &VaultError) -> Option<String> {
        self.0.explain(answer)
    }

    fn locks_out(&self, answer: &VaultError) -> bool {
        super::is_wrong_proof(answer)
    }

    async fn proof(&self, cluster: &dyn Credentials, identity: &Identity) -> Result<Proof, CredentialError> {
        self.0.proof(cluster, identity).await
    }
}
