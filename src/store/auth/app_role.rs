//! `appRole`: a role ID and a secret ID, as machines log in.

use async_trait::async_trait;

use super::{Method, Proof, login_at, mount_or, text};
use crate::api::vault::VaultAppRole;
use crate::store::credentials::{CredentialError, Credentials, Identity};
use crate::store::scope::{Invalid, Need, Scope, SecretKey};
use crate::vault::error::VaultError;

/// A login by the AppRole auth method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRole {
    mount: String,
    role_id: RoleId,
    secret_id: SecretKey,
}

/// The role ID, or where it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RoleId {
    Given(String),
    Kept(SecretKey),
}

impl AppRole {
    pub(super) fn resolve(scope: &Scope<'_>, auth: &VaultAppRole) -> Result<Self, Invalid> {
        let field = scope.field("auth.appRole");
        let given = auth.role_id.as_deref().map(str::trim).unwrap_or_default();
        let role_id = match &auth.role_ref {
            _ if !given.is_empty() => RoleId::Given(given.to_owned()),
            Some(kept) => RoleId::Kept(scope.secret(&format!("{field}.roleRef"), kept, None)?),
            None => {
                return Err(Invalid(format!(
                    "invalid Auth.AppRole: neither `roleId` nor `roleRef` was supplied; set one below {field}"
                )));
            }
        };
        Ok(Self {
            mount: mount_or(auth.path.as_deref(), "approle"),
            role_id,
            secret_id: scope.secret(&format!("{field}.secretRef"), &auth.secret_ref, None)?,
        })
    }
}

#[async_trait]
impl Method for AppRole {
    fn whom(&self) -> String {
        let role = match &self.role_id {
            RoleId::Given(id) => format!("role ID '{id}'"),
            RoleId::Kept(key) => format!("the role ID in Secret {}", key.name),
        };
        format!("{role} (mount '{}')", self.mount)
    }

    fn mount(&self) -> Option<(&str, &'static str)> {
        Some((&self.mount, "appRole.path"))
    }

    fn needs(&self) -> Vec<Need> {
        let mut needs = vec![Need::from(&self.secret_id)];
        if let RoleId::Kept(key) = &self.role_id {
            needs.push(Need::from(key));
        }
        needs
    }

    fn advice(&self) -> &'static str {
        "check the role ID and the role's bound CIDRs, and put a new secret ID into the Secret if that one has \
         expired, was destroyed or is used up"
    }

    fn locks_out(&self, answer: &VaultError) -> bool {
        super::is_wrong_proof(answer)
    }

    async fn proof(&self, cluster: &dyn Credentials, identity: &Identity) -> Result<Proof, CredentialError> {
        let kept;
        let role_id = match &self.role_id {
            RoleId::Given(id) => id.as_str(),
            RoleId::Kept(key) => {
                kept = cluster.secret(key, identity).await?;
                text(&kept, "the role ID")?.trim()
            }
        };
        let secret_id = cluster.secret(&self.secret_id, identity).await?;
        let secret = text(&secret_id, "the secret ID")?.trim();
        Ok(Proof::Login {
            call: login_at(&self.mount, &[("role_id", role_id), ("secret_id", secret)])?,
            whose: format!("the secret ID in Secret {}", self.secret_id.place(identity)),
        })
    }
}
