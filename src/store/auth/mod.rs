//! The ways to log in, one file each, behind one small trait. A method knows what its fields mean, which
//! objects of the cluster it needs, and the request that it makes of them; when to log in, and what becomes of
//! the token, is [`super::session`]'s.

mod aws;
mod iam;
mod kubernetes;
mod token;

use async_trait::async_trait;

use self::iam::Iam;
use self::kubernetes::Kubernetes;
use self::token::GivenToken;
use super::credentials::{Credentials, Identity};
use super::scope::{Invalid, Need, Scope};
use super::settings::ClientCertificate;
use crate::api::vault::VaultAuth;
use crate::secret::SecretBytes;
use crate::vault::error::VaultError;
use crate::vault::transport::Call;

/// What a session proves itself with.
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

    /// The client certificate that the connection must show.
    fn client_certificate(&self) -> Option<&ClientCertificate> {
        None
    }

    /// Gathers the proof.
    ///
    /// # Errors
    /// A sentence for the store's condition: which object is missing or unfit, and what to do.
    async fn proof(&self, cluster: &dyn Credentials, identity: &Identity) -> Result<Proof, String>;
}

/// How a store logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// With a token that is given.
    Token(GivenToken),
    /// By the Kubernetes auth method.
    Kubernetes(Kubernetes),
    /// By the AWS auth method.
    Iam(Iam),
}

impl Auth {
    /// The method that a store's `auth` names; of several the first in ESO's order.
    ///
    /// # Errors
    /// What is missing or cannot be served, with the field's name and what to do.
    pub fn resolve(scope: &Scope<'_>, auth: &VaultAuth) -> Result<Self, Invalid> {
        if let Some(token) = &auth.token_secret_ref {
            return GivenToken::resolve(scope, token).map(Self::Token);
        }
        if let Some(kubernetes) = auth.kubernetes.as_ref().filter(|_| auth.app_role.is_none()) {
            return Kubernetes::resolve(scope, kubernetes).map(Self::Kubernetes);
        }
        let later = [
            ("appRole", auth.app_role.is_some()),
            ("ldap", auth.ldap.is_some()),
            ("userPass", auth.user_pass.is_some()),
            ("jwt", auth.jwt.is_some()),
            ("cert", auth.cert.is_some()),
            ("gcp", auth.gcp.is_some()),
        ];
        if let Some((method, _)) = later.iter().find(|(_, set)| *set) {
            return Err(scope.not_served(&format!("auth.{method}")));
        }
        if let Some(iam) = &auth.iam {
            return Iam::resolve(scope, iam).map(Self::Iam);
        }
        Err(scope.no_auth())
    }

    /// What the method does.
    #[must_use]
    pub fn method(&self) -> &dyn Method {
        match self {
            Self::Token(method) => method,
            Self::Kubernetes(method) => method,
            Self::Iam(method) => method,
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
            (VaultError::Denied { phrase }, _) => {
                let said = phrase.filter(|phrase| *phrase != "permission denied");
                let said = said.map(|phrase| format!(" ({phrase})")).unwrap_or_default();
                format!(
                    "Vault {url} answered 403 to the login: {whom} does not allow {whose}{said}; {}",
                    method.advice()
                )
            }
            _ => format!(
                "login to Vault {url} with {whom} as {whose} failed: {error}; {}",
                method.advice()
            ),
        }
    }
}

/// The path that a store gives, else the one where Vault mounts the method by itself.
fn mount_or(given: Option<&str>, default: &str) -> String {
    let given = given.unwrap_or_default().trim_matches('/');
    if given.is_empty() { default } else { given }.to_owned()
}

/// A request of one of vaultrs' types, which fail to build only if a field was forgotten.
fn complete<E: rustify::endpoint::Endpoint>(request: Option<E>) -> Result<Call, String> {
    let request = request.ok_or("the login is incomplete")?;
    Call::new(&request).map_err(|error| error.to_string())
}

/// A proof that Vault takes as text.
fn text<'a>(proof: &'a SecretBytes, what: &str) -> Result<&'a str, String> {
    std::str::from_utf8(proof.expose()).map_err(|_| format!("{what} is not text"))
}
