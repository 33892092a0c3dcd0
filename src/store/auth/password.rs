//! A user's name and password: what the methods `userPass` and `ldap` have in common.

use super::{Proof, mount_or, path_fault, text};
use crate::api::meta::SecretKeySelector;
use crate::store::credentials::{CredentialError, Credentials, Identity};
use crate::store::scope::{Invalid, Scope, SecretKey};
use crate::vault::error::VaultError;
use crate::vault::transport::Call;

/// Who logs in where, and where the password is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Password {
    pub(super) mount: String,
    user: String,
    pub(super) key: SecretKey,
}

/// What a store says of it.
pub(super) struct Spec<'a> {
    pub(super) field: &'static str,
    pub(super) path: Option<&'a str>,
    pub(super) default_path: &'static str,
    pub(super) username: &'a str,
    pub(super) secret: Option<&'a SecretKeySelector>,
}

impl Password {
    pub(super) fn resolve(scope: &Scope<'_>, spec: &Spec<'_>) -> Result<Self, Invalid> {
        let field = scope.field(&format!("auth.{}", spec.field));
        let user = spec.username.trim();
        // The name becomes the end of the login's path, which it must not leave.
        if let Some(fault) = path_fault(user) {
            return Err(Invalid(format!("{field}.username {fault}")));
        }
        let secret = spec.secret.ok_or_else(|| {
            Invalid(format!(
                "{field}.secretRef is missing; name the Secret and key of the password"
            ))
        })?;
        Ok(Self {
            mount: mount_or(spec.path, spec.default_path),
            user: user.to_owned(),
            key: scope.secret(&format!("{field}.secretRef"), secret, None)?,
        })
    }

    pub(super) fn whom(&self) -> String {
        format!("user '{}' (mount '{}')", self.user, self.mount)
    }

    /// A 403 says nothing of a user: locked out, bound to addresses, or no such mount.
    pub(super) fn explain(&self, answer: &VaultError) -> Option<String> {
        matches!(answer, VaultError::Denied { .. }).then(|| {
            format!(
                "answered 403 to the login of {}: the user is locked out for some minutes after wrong passwords, or \
                 bound to other addresses (token_bound_cidrs), or no such auth method is mounted there",
                self.whom()
            )
        })
    }

    /// The password goes byte for byte: a newline at its end may be meant. If it was not, the message says it.
    pub(super) async fn proof(
        &self,
        cluster: &dyn Credentials,
        identity: &Identity,
    ) -> Result<Proof, CredentialError> {
        let password = cluster.secret(&self.key, identity).await?;
        let password = text(&password, "the password")?;
        let place = self.key.place(identity);
        if password.is_empty() {
            return Err(format!("the password in Secret {place} is empty").into());
        }
        let path = format!("{}/login/{}", self.mount, self.user);
        let newline = if password.ends_with('\n') {
            ", which ends with a newline,"
        } else {
            ""
        };
        Ok(Proof::Login {
            call: Call::login(&path, &[("password", password)]).map_err(|error| error.to_string())?,
            whose: format!("the password in Secret {place}{newline}"),
        })
    }
}
