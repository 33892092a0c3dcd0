//! `ldap`: a user of an LDAP directory that Vault asks.

use async_trait::async_trait;

use super::password::{Password, Spec};
use super::{Method, Proof};
use crate::api::vault::VaultLdapAuth;
use crate::store::credentials::{CredentialError, Credentials, Identity};
use crate::store::scope::{Invalid, Need, Scope};
use crate::vault::error::VaultError;

/// How Vault says that its LDAP server does not answer.
const NO_DIRECTORY: &str = "LDAP Result Code 200 \"Network Error\"";

/// A login by the LDAP auth method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ldap(Password);

impl Ldap {
    pub(super) fn resolve(scope: &Scope<'_>, auth: &VaultLdapAuth) -> Result<Self, Invalid> {
        let spec = Spec {
            field: "ldap",
            path: auth.path.as_deref(),
            default_path: "ldap",
            username: &auth.username,
            secret: auth.secret_ref.as_ref(),
        };
        Password::resolve(scope, &spec).map(Self)
    }
}

#[async_trait]
impl Method for Ldap {
    fn whom(&self) -> String {
        self.0.whom()
    }

    fn mount(&self) -> Option<(&str, &'static str)> {
        Some((&self.0.mount, "ldap.path"))
    }

    fn needs(&self) -> Vec<Need> {
        vec![Need::from(&self.0.key)]
    }

    fn advice(&self) -> &'static str {
        "check the user's name and the method's configuration, and put the present password into the Secret"
    }

    fn explain(&self, answer: &VaultError) -> Option<String> {
        match answer {
            VaultError::Status {
                phrase: Some(NO_DIRECTORY),
                ..
            } => Some(format!(
                "cannot reach its LDAP server; check the directory, and the url in auth/{}/config",
                self.0.mount
            )),
            _ => self.0.explain(answer),
        }
    }

    fn locks_out(&self, answer: &VaultError) -> bool {
        super::is_wrong_proof(answer)
    }

    async fn proof(&self, cluster: &dyn Credentials, identity: &Identity) -> Result<Proof, CredentialError> {
        self.0.proof(cluster, identity).await
    }
}
