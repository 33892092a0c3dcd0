//! The rules of references: a namespaced store stays in its namespace (promise 7).

use std::fmt;

use super::credentials::{Identity, JwtSource, TOKEN_SECONDS};
use crate::api::meta::{SecretKeySelector, ServiceAccountSelector, is_object_name};
use crate::api::store::StoreKey;

/// Why a store cannot be used, whatever Vault says. Only a change of the store cures it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(pub String);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key of a Secret. `namespace: None` is the namespace of the ExternalSecret (referent authentication).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretKey {
    /// Namespace of the Secret.
    pub namespace: Option<String>,
    /// Name of the Secret.
    pub name: String,
    /// Key in it.
    pub key: String,
}

impl SecretKey {
    /// `namespace/name` of the Secret that it is for somebody.
    #[must_use]
    pub fn place(&self, identity: &Identity) -> String {
        let namespace = self.namespace.as_deref().or(identity.referent.as_deref());
        format!("{}/{}", namespace.unwrap_or("?"), self.name)
    }
}

/// Kind of an object that a store depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReferenceKind {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
    /// A ServiceAccount.
    ServiceAccount,
}

/// An object that a store depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Its kind.
    pub kind: ReferenceKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// An object that a store needs, and maybe not yet where: `namespace: None` is the namespace of each
/// ExternalSecret (referent authentication).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Its kind.
    pub kind: ReferenceKind,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl From<&SecretKey> for Need {
    fn from(key: &SecretKey) -> Self {
        Self {
            kind: ReferenceKind::Secret,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        }
    }
}

impl Need {
    /// The object, if it is known without the namespace of an ExternalSecret.
    #[must_use]
    pub fn reference(self) -> Option<Reference> {
        Some(Reference {
            kind: self.kind,
            namespace: self.namespace?,
            name: self.name,
        })
    }
}

/// A store, and where in its spec references are read.
pub struct Scope<'a> {
    /// The store.
    pub key: &'a StoreKey,
    /// Its provider's field: `vault` or `openBao`.
    pub provider: &'static str,
}

impl Scope<'_> {
    /// A field of the provider, as messages name it.
    #[must_use]
    pub fn field(&self, name: &str) -> String {
        format!("spec.provider.{}.{name}", self.provider)
    }

    /// That a field cannot be served.
    #[must_use]
    pub fn not_served(&self, name: &str) -> Invalid {
        Invalid(format!(
            "{} is not served by this version of Keyferry; remove it, or use a served one",
            self.field(name)
        ))
    }

    /// That no way to log in is given.
    #[must_use]
    pub fn no_auth(&self) -> Invalid {
        Invalid(format!(
            "no valid auth method specified; set one below {}, for example kubernetes",
            self.field("auth")
        ))
    }

    /// Where a ServiceAccount token comes from: `serviceAccountRef`, else `secretRef` (key `token`), else the
    /// operator's own.
    ///
    /// # Errors
    /// If a reference is incomplete, leaves the store's namespace, or is missing in a SecretStore.
    pub fn jwt(
        &self,
        field: &str,
        account: Option<&ServiceAccountSelector>,
        secret: Option<&SecretKeySelector>,
    ) -> Result<JwtSource, Invalid> {
        if let Some(account) = account {
            let field = format!("{field}.serviceAccountRef");
            return Ok(JwtSource::ServiceAccount {
                namespace: self.namespace(&field, account.namespace.as_deref())?,
                name: object_name(&field, &account.name)?,
                audiences: account.audiences.clone(),
                seconds: TOKEN_SECONDS,
            });
        }
        match secret {
            Some(secret) => Ok(JwtSource::Secret(self.secret(
                &format!("{field}.secretRef"),
                secret,
                Some("token"),
            )?)),
            None => self.own_identity(field).map(|()| JwtSource::Own),
        }
    }

    /// Whether the store may speak as the operator. Whoever may write a SecretStore names its server too, and would
    /// be handed the operator's token, which may do what no tenant may. ESO allows it.
    ///
    /// # Errors
    /// If it is a SecretStore.
    pub fn own_identity(&self, field: &str) -> Result<(), Invalid> {
        match &self.key.namespace {
            None => Ok(()),
            Some(_) => Err(Invalid(format!(
                "{field} names no credentials, which means those of the operator; only a ClusterSecretStore may use them. \
                 Name a ServiceAccount or a Secret of the store's namespace"
            ))),
        }
    }

    /// A key of a Secret.
    ///
    /// # Errors
    /// If the reference is incomplete, or leaves the store's namespace.
    pub fn secret(
        &self,
        field: &str,
        from: &SecretKeySelector,
        default: Option<&str>,
    ) -> Result<SecretKey, Invalid> {
        let missing = |what: &str| Invalid(format!("{field}.{what} is missing"));
        let name = from.name.as_deref().filter(|name| !name.is_empty());
        Ok(SecretKey {
            namespace: self.namespace(field, from.namespace.as_deref())?,
            name: object_name(field, name.ok_or_else(|| missing("name"))?)?,
            key: from
                .key
                .clone()
                .filter(|k| !k.is_empty())
                .or_else(|| default.map(String::from))
                .ok_or_else(|| missing("key"))?,
        })
    }

    /// The namespace of a reference; `None` is that of each ExternalSecret.
    ///
    /// # Errors
    /// If it leaves the store's namespace.
    pub fn namespace(&self, field: &str, given: Option<&str>) -> Result<Option<String>, Invalid> {
        match (&self.key.namespace, given.filter(|n| !n.is_empty())) {
            (None, given) => given
                .map(|given| valid(&format!("{field}.namespace"), given))
                .transpose(),
            (Some(own), Some(given)) if own != given => Err(Invalid(format!(
                "{field}.namespace: namespace should either be empty or match the namespace of the SecretStore for a \
                 namespaced SecretStore; it says '{given}', the store is in '{own}'"
            ))),
            (Some(own), _) => Ok(Some(own.clone())),
        }
    }
}

/// The name of an object that a store refers to.
///
/// # Errors
/// If no object can bear it.
pub fn object_name(field: &str, name: &str) -> Result<String, Invalid> {
    valid(&format!("{field}.name"), name)
}

fn valid(field: &str, name: &str) -> Result<String, Invalid> {
    if is_object_name(name) {
        return Ok(name.to_owned());
    }
    Err(Invalid(format!(
        "{field}: {name:?} is no name that an object in Kubernetes may have; use small ASCII letters, digits, '-' and '.'"
    )))
}
