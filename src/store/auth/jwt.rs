//! `jwt`: a signed token of a ServiceAccount or of somebody else, which Vault checks by itself.

use async_trait::async_trait;

use super::{Method, Proof, login_at, mount_or, no_role, role_at, text};
use crate::api::vault::{VaultJwtAuth, VaultServiceAccountToken};
use crate::store::credentials::{CredentialError, Credentials, Identity, JwtSource, TOKEN_SECONDS};
use crate::store::scope::{Invalid, Need, Scope, object_name};
use crate::vault::error::VaultError;

/// A login by the JWT auth method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwt {
    mount: String,
    /// Empty for the method's default role.
    role: String,
    jwt: JwtSource,
}

impl Jwt {
    pub(super) fn resolve(scope: &Scope<'_>, auth: &VaultJwtAuth) -> Result<Self, Invalid> {
        let field = scope.field("auth.jwt");
        let jwt = match (&auth.secret_ref, &auth.kubernetes_service_account_token) {
            (Some(secret), _) => {
                JwtSource::Secret(scope.secret(&format!("{field}.secretRef"), secret, None)?)
            }
            (None, Some(token)) => {
                requested(scope, &format!("{field}.kubernetesServiceAccountToken"), token)?
            }
            (None, None) => {
                return Err(Invalid(format!(
                    "neither `secretRef` nor `kubernetesServiceAccountToken` was supplied as token source for jwt \
                     authentication; set one below {field}"
                )));
            }
        };
        Ok(Self {
            mount: mount_or(auth.path.as_deref(), "jwt"),
            role: auth.role.as_deref().unwrap_or_default().trim().to_owned(),
            jwt,
        })
    }
}

/// ESO's rules: the audiences of both places, `vault` if the second is absent; ten minutes.
fn requested(scope: &Scope<'_>, field: &str, token: &VaultServiceAccountToken) -> Result<JwtSource, Invalid> {
    let account = &token.service_account_ref;
    let further = token.audiences.clone().unwrap_or_else(|| vec!["vault".into()]);
    let seconds = token.expiration_seconds.unwrap_or(TOKEN_SECONDS);
    if seconds < TOKEN_SECONDS {
        return Err(Invalid(format!(
            "{field}.expirationSeconds is {seconds}; Kubernetes grants no token for less than {TOKEN_SECONDS}"
        )));
    }
    let field = format!("{field}.serviceAccountRef");
    let audiences = [account.audiences.clone(), further].concat();
    // Without an audience it is good for the API server too: it lives no longer than it must.
    let seconds = if audiences.is_empty() {
        TOKEN_SECONDS
    } else {
        seconds
    };
    Ok(JwtSource::ServiceAccount {
        namespace: scope.namespace(&field, account.namespace.as_deref())?,
        name: object_name(&field, &account.name)?,
        audiences,
        seconds,
    })
}

#[async_trait]
impl Method for Jwt {
    fn whom(&self) -> String {
        match self.role.as_str() {
            "" => format!("the default role (mount '{}')", self.mount),
            role => role_at(role, &self.mount),
        }
    }

    fn mount(&self) -> Option<(&str, &'static str)> {
        Some((&self.mount, "jwt.path"))
    }

    fn needs(&self) -> Vec<Need> {
        self.jwt.need().into_iter().collect()
    }

    fn service_account_token(&self) -> Option<(&JwtSource, &'static str)> {
        Some((&self.jwt, "jwt.kubernetesServiceAccountToken.audiences"))
    }

    fn advice(&self) -> &'static str {
        "check the role's bound_audiences, bound_subject and bound_claims, and the keys and the issuer that the method \
         is configured with"
    }

    fn explain(&self, answer: &VaultError) -> Option<String> {
        let VaultError::Status {
            status: 400,
            phrase: Some(phrase),
        } = answer
        else {
            return None;
        };
        match *phrase {
            "could not be found" => Some(no_role(&self.role, &self.mount, "jwt.role")),
            "missing role" => Some(format!(
                "has no default role at auth mount '{}'; set auth.jwt.role",
                self.mount
            )),
            _ => None,
        }
    }

    async fn proof(&self, cluster: &dyn Credentials, identity: &Identity) -> Result<Proof, CredentialError> {
        let token = cluster.jwt(&self.jwt, identity).await?;
        let jwt = text(&token.jwt, "the token")?.trim();
        Ok(Proof::Login {
            call: login_at(&self.mount, &[("jwt", jwt), ("role", &self.role)])?,
            whose: token.whose,
        })
    }
}
