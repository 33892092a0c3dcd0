//! `cert`: the client certificate that the connection shows.

use async_trait::async_trait;

use super::{Method, Proof, login_at, mount_or, role_at};
use crate::api::meta::SecretKeySelector;
use crate::api::vault::VaultCertAuth;
use crate::store::credentials::{CredentialError, Credentials, Identity};
use crate::store::scope::{Invalid, Need, Scope, SecretKey};
use crate::store::settings::ClientCertificate;
use crate::vault::error::VaultError;

/// A login by the TLS certificate auth method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cert {
    mount: String,
    /// Empty for whichever role the certificate matches.
    role: String,
    shown: ClientCertificate,
}

impl Cert {
    pub(super) fn resolve(scope: &Scope<'_>, auth: &VaultCertAuth) -> Result<Self, Invalid> {
        let field = scope.field("auth.cert");
        let key = |name: &str, reference: Option<&SecretKeySelector>| {
            let field = format!("{field}.{name}");
            let missing = || Invalid(format!("{field} is missing; name its Secret and key"));
            scope.secret(&field, reference.ok_or_else(missing)?, None)
        };
        let certificate = key("clientCert", auth.client_cert.as_ref())?;
        let private_key = key("secretRef", auth.secret_ref.as_ref())?;
        Ok(Self {
            mount: mount_or(auth.path.as_deref(), "cert"),
            role: auth.vault_role.as_deref().unwrap_or_default().trim().to_owned(),
            shown: ClientCertificate::of_one_store(&field, certificate, private_key)?,
        })
    }

    fn certificate(&self) -> &SecretKey {
        &self.shown.certificate
    }
}

#[async_trait]
impl Method for Cert {
    fn whom(&self) -> String {
        match self.role.as_str() {
            "" => format!("any role (mount '{}')", self.mount),
            role => role_at(role, &self.mount),
        }
    }

    fn mount(&self) -> Option<(&str, &'static str)> {
        Some((&self.mount, "cert.path"))
    }

    fn needs(&self) -> Vec<Need> {
        vec![Need::from(self.certificate()), Need::from(&self.shown.key)]
    }

    fn advice(&self) -> &'static str {
        "check that the certificate is valid, that its CA is that of the role, and the role's allowed names; and that \
         Vault itself, no proxy, ends the TLS connection"
    }

    fn explain(&self, answer: &VaultError) -> Option<String> {
        matches!(
            answer,
            VaultError::Status {
                phrase: Some("tls connection required"),
                ..
            }
        )
        .then(|| {
            "was asked without TLS, so that no certificate was shown; auth.cert needs an https:// server"
                .into()
        })
    }

    fn client_certificate(&self) -> Option<&ClientCertificate> {
        Some(&self.shown)
    }

    async fn proof(&self, _cluster: &dyn Credentials, identity: &Identity) -> Result<Proof, CredentialError> {
        let role = [("name", self.role.as_str())];
        let named = if self.role.is_empty() { &[] } else { &role[..] };
        Ok(Proof::Login {
            call: login_at(&self.mount, named)?,
            whose: format!("the certificate in Secret {}", self.certificate().place(identity)),
        })
    }
}
