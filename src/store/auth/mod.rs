//! The ways to log in, one file each, behind one small trait. A method knows what its fields mean, which
//! objects of the cluster it needs, and the request that it makes of them; when to log in, and what becomes of
//! the token, is [`super::login`]'s.

mod app_role;
mod aws;
mod cert;
mod gcp;
mod iam;
mod jwt;
mod kubernetes;
mod ldap;
mod password;
mod token;
mod user_pass;

use async_trait::async_trait;

use self::app_role::AppRole;
use self::cert::Cert;
use self::gcp::Gcp;
use self::iam::Iam;
use self::jwt::Jwt;
use self::kubernetes::Kubernetes;
use self::ldap::Ldap;
use self::token::GivenToken;
use self::user_pass::UserPass;
use super::credentials::{CredentialError, Credentials, Identity, JwtSource};
use super::scope::{Invalid, Need, Scope};
use super::settings::ClientCertificate;
use crate::api::vault::VaultAuth;
use crate::secret::SecretBytes;
use crate::vault::error::VaultError;
use crate::vault::transport::Call;

/// What a session proves itself with; it lives for one login.
pub enum Proof {
    /// A token that was given to us.
    Token(SecretBytes),
    /// A login, complete but for the server and the namespace.
    Login {
        /// The request.
        call: Call,
        /// Whose proof it holds, for messages: for example `ServiceAccount security/eso-vault-auth`.
        whose: String,
    },
}

/// One way to log in.
#[async_trait]
pub trait Method: Send + Sync {
    /// Whom Vault takes us for, for messages: for example `role 'eso-reader' (mount 'kubernetes')`.
    fn whom(&self) -> String;

    /// Mount path of the method, and the field of `auth` that names it; `None` for a given token.
    fn mount(&self) -> Option<(&str, &'static str)>;

    /// The objects of the cluster that it needs.
    fn needs(&self) -> Vec<Need>;

    /// What to check when Vault refuses the login.
    fn advice(&self) -> &'static str;

    /// A better sentence for an answer that the method knows, to follow `Vault <url>`.
    fn explain(&self, _answer: &VaultError) -> Option<String> {
        None
    }

    /// Whether Vault counts this answer as a wrong password, of which a few lock the account out: for everybody
    /// who uses it, and even with the right one.
    fn locks_out(&self, _answer: &VaultError) -> bool {
        false
    }

    /// The ServiceAccount token that it sends, and the field below `auth` that names its audiences.
    fn service_account_token(&self) -> Option<(&JwtSource, &'static str)> {
        None
    }

    /// The client certificate that the connection must show.
    fn client_certificate(&self) -> Option<&ClientCertificate> {
        None
    }

    /// Gathers the proof.
    ///
    /// # Errors
    /// A sentence for the store's condition: which object is missing or unfit, and what to do.
    async fn proof(&self, cluster: &dyn Credentials, identity: &Identity) -> Result<Proof, CredentialError>;
}

/// How a store logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// With a token that is given.
    Token(GivenToken),
    /// By the AppRole auth method.
    AppRole(AppRole),
    /// By the Kubernetes auth method.
    Kubernetes(Kubernetes),
    /// By the LDAP auth method.
    Ldap(Ldap),
    /// By the userpass auth method.
    UserPass(UserPass),
    /// By the JWT auth method.
    Jwt(Jwt),
    /// By the TLS certificate auth method.
    Cert(Cert),
    /// By the AWS auth method.
    Iam(Iam),
    /// By the Google Cloud auth method.
    Gcp(Gcp),
}

impl Auth {
    /// The method that a store's `auth` names; of several the first in ESO's order.
    ///
    /// # Errors
    /// What is missing or cannot be served, with the field's name and what to do.
    pub fn resolve(scope: &Scope<'_>, auth: &VaultAuth) -> Result<Self, Invalid> {
        let found = if let Some(given) = &auth.token_secret_ref {
            Self::Token(GivenToken::resolve(scope, given)?)
        } else if let Some(given) = &auth.app_role {
            Self::AppRole(AppRole::resolve(scope, given)?)
        } else if let Some(given) = &auth.kubernetes {
            Self::Kubernetes(Kubernetes::resolve(scope, given)?)
        } else if let Some(given) = &auth.ldap {
            Self::Ldap(Ldap::resolve(scope, given)?)
        } else if let Some(given) = &auth.user_pass {
            Self::UserPass(UserPass::resolve(scope, given)?)
        } else if let Some(given) = &auth.jwt {
            Self::Jwt(Jwt::resolve(scope, given)?)
        } else if let Some(given) = &auth.cert {
            Self::Cert(Cert::resolve(scope, given)?)
        } else if let Some(given) = &auth.iam {
            Self::Iam(Iam::resolve(scope, given)?)
        } else if let Some(given) = &auth.gcp {
            Self::Gcp(Gcp::resolve(scope, given)?)
        } else {
            return Err(scope.no_auth());
        };
        if let Some((mount, field)) = found.method().mount()
            && let Some(fault) = path_fault(mount)
        {
            return Err(Invalid(format!(
                "{} {fault}",
                scope.field(&format!("auth.{field}"))
            )));
        }
        Ok(found)
    }

    /// What the method does.
    #[must_use]
    pub fn method(&self) -> &dyn Method {
        match self {
            Self::Token(method) => method,
            Self::AppRole(method) => method,
            Self::Kubernetes(method) => method,
            Self::Ldap(method) => method,
            Self::UserPass(method) => method,
            Self::Jwt(method) => method,
            Self::Cert(method) => method,
            Self::Iam(method) => method,
            Self::Gcp(method) => method,
        }
    }

    /// Whether the token is given to us, so that no login of ours can replace it.
    #[must_use]
    pub fn is_given(&self) -> bool {
        matches!(self, Self::Token(_))
    }

    /// Whether who speaks depends on the namespace of the ExternalSecret.
    #[must_use]
    pub fn is_referent(&self) -> bool {
        self.method().needs().iter().any(|need| need.namespace.is_none())
    }

    /// Why a login brought no token, as the store's condition says it.
    #[must_use]
    pub fn refusal(&self, url: &str, error: &VaultError, whose: &str) -> String {
        let method = self.method();
        if let Some(sentence) = method.explain(error) {
            return format!("Vault {url} {sentence}");
        }
        let whom = method.whom();
        match (error, method.mount()) {
            (VaultError::Status { status: 404, .. }, Some((mount, field))) => {
                format!(
                    "Vault {url} has no auth method at mount '{mount}'; enable it, or correct auth.{field}"
                )
            }
            (VaultError::Denied { phrase }, mount) => {
                let said = phrase.filter(|phrase| *phrase != "permission denied");
                // Vault says no more to a login at a mount that it does not have.
                let enabled = match (said, mount) {
                    (None, Some((mount, field))) => {
                        format!("check that an auth method is enabled at mount '{mount}' (auth.{field}); ")
                    }
                    _ => String::new(),
                };
                let said = said.map(|phrase| format!(" ({phrase})")).unwrap_or_default();
                format!(
                    "Vault {url} answered 403 to the login: {whom} does not allow {whose}{said}; {enabled}{}",
                    method.advice()
                )
            }
            (VaultError::Status { status: 400..500, .. }, _) => format!(
                "login to Vault {url} with {whom} and {whose} failed: {error}; {}",
                method.advice()
            ),
            // No fault of the proof: the error says itself what to look at.
            _ => format!("login to Vault {url} with {whom} and {whose} failed: {error}"),
        }
    }
}

/// The path that a store gives, else the one where Vault mounts the method by itself.
fn mount_or(given: Option<&str>, default: &str) -> String {
    let given = given.unwrap_or_default().trim_matches('/');
    if given.is_empty() { default } else { given }.to_owned()
}

/// Whom Vault takes us for, where a method has roles.
fn role_at(role: &str, mount: &str) -> String {
    format!("role '{role}' (mount '{mount}')")
}

/// That Vault has no such role, to follow its URL; `field` of `auth` names the role.
fn no_role(role: &str, mount: &str, field: &str) -> String {
    format!("has no role '{role}' at auth mount '{mount}'; create it, or correct auth.{field}")
}

/// Why a text cannot be a part of a login's path, to follow the name of its field: it would leave its place.
fn path_fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("is missing");
    }
    if text.chars().any(char::is_control) {
        return Some("holds control characters, which no path may hold; remove them");
    }
    let leaves = |part: &str| matches!(part, "" | "." | "..");
    text.split('/').any(leaves).then_some(
        "is a part of the login's path and must hold no '.', '..' or nothing between slashes; correct it",
    )
}

/// Whether Vault refused what was shown, rather than failed.
fn is_wrong_proof(answer: &VaultError) -> bool {
    matches!(
        answer,
        VaultError::Denied { .. } | VaultError::Status { status: 400, .. }
    )
}

/// The login of a method that has no more to its path than a mount.
fn login_at(mount: &str, fields: &[(&str, &str)]) -> Result<Call, String> {
    Call::login(&format!("{mount}/login"), fields).map_err(|error| error.to_string())
}

/// A proof that Vault takes as text.
fn text<'a>(proof: &'a SecretBytes, what: &str) -> Result<&'a str, String> {
    std::str::from_utf8(proof.expose()).map_err(|_| format!("{what} is not text"))
}

#[cfg(test)]
mod tests;
