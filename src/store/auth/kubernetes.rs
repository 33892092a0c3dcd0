//! The Kubernetes auth method: a ServiceAccount's token that Vault has reviewed by the API server.

use async_trait::async_trait;

use super::{Method, Proof, login_at, mount_or, no_role, role_at, text};
use crate::api::vault::VaultKubernetesAuth;
use crate::store::credentials::{CredentialError, Credentials, Identity, JwtSource};
use crate::store::scope::{Invalid, Need, Scope};
use crate::vault::error::VaultError;

/// A login by the Kubernetes auth method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    mount: String,
    role: String,
    jwt: JwtSource,
}

impl Kubernetes {
    pub(super) fn resolve(scope: &Scope<'_>, auth: &VaultKubernetesAuth) -> Result<Self, Invalid> {
        let field = scope.field("auth.kubernetes");
        Ok(Self {
            mount: mount_or(auth.mount_path.as_deref(), "kubernetes"),
            role: auth.role.clone(),
            jwt: scope.jwt(
                &field,
                auth.service_account_ref.as_ref(),
                auth.secret_ref.as_ref(),
            )?,
        })
    }
}

#[async_trait]
impl Method for Kubernetes {
    fn whom(&self) -> String {
        role_at(&self.role, &self.mount)
    }

    fn mount(&self) -> Option<(&str, &'static str)> {
        Some((&self.mount, "kubernetes.mountPath"))
    }

    fn needs(&self) -> Vec<Need> {
        self.jwt.need().into_iter().collect()
    }

    fn service_account_token(&self) -> Option<(&JwtSource, &'static str)> {
        Some((&self.jwt, "kubernetes.serviceAccountRef.audiences"))
    }

    fn advice(&self) -> &'static str {
        "check the role's bound_service_account_names and bound_service_account_namespaces, and that Vault may review \
         tokens"
    }

    fn explain(&self, answer: &VaultError) -> Option<String> {
        let VaultError::Status {
            status: 400,
            phrase: Some("invalid role name"),
        } = answer
        else {
            return None;
        };
        Some(no_role(&self.role, &self.mount, "kubernetes.role"))
    }

    async fn proof(&self, cluster: &dyn Credentials, identity: &Identity) -> Result<Proof, CredentialError> {
        let token = cluster.jwt(&self.jwt, identity).await?;
        let jwt = text(&token.jwt, "the ServiceAccount token")?.trim();
        Ok(Proof::Login {
            call: login_at(&self.mount, &[("role", &self.role), ("jwt", jwt)])?,
            whose: token.whose,
        })
    }
}
