//! From a store's spec to what is needed to use it: everything unclear is refused here, by name.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::retries::Retries;
use crate::api::meta::{SecretKeySelector, ServiceAccountSelector};
use crate::api::store::{Provider, SecretStoreSpec, StoreKey};
use crate::api::vault::{CaProvider, CaProviderType, KvVersion, OpenBaoProvider, VaultAuth, VaultProvider};
use crate::vault::kv::Kv;

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

/// Where the ServiceAccount token of a Kubernetes login comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum JwtSource {
    /// Requested for this ServiceAccount. `namespace: None` as in [`SecretKey`].
    ServiceAccount {
        /// Namespace of the ServiceAccount.
        namespace: Option<String>,
        /// Its name.
        name: String,
        /// Audiences of the token; none means the API server's own.
        audiences: Vec<String>,
    },
    /// Read from a Secret.
    Secret(SecretKey),
    /// The operator's own, projected into its pod.
    Own,
}

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Auth {
    /// With a token that is given.
    Token(SecretKey),
    /// By the Kubernetes auth method.
    Kubernetes {
        /// Mount path of the method.
        mount: String,
        /// Role of the method.
        role: String,
        /// Source of the ServiceAccount token.
        jwt: JwtSource,
    },
}

/// Where the certificates come from that replace the system's roots.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Ca {
    /// The system's roots.
    System,
    /// Written in the store.
    Pem(Vec<u8>),
    /// A key of a Secret.
    Secret(SecretKey),
    /// A key of a ConfigMap.
    ConfigMap(SecretKey),
}

/// A Vault store, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Base URL of the server.
    pub url: String,
    /// Namespace of Vault Enterprise or OpenBao.
    pub namespace: Option<String>,
    /// Namespace to log in to, if it differs.
    pub auth_namespace: Option<String>,
    /// Headers to add.
    pub headers: Vec<(String, String)>,
    /// Certificates.
    pub ca: Ca,
    /// The engine.
    pub kv: Kv,
    /// How to log in.
    pub auth: Auth,
    /// How to repeat a read that failed by the server's fault.
    pub retries: Retries,
}

/// What a store is for us.
#[derive(Clone, Debug, PartialEq)]
pub enum Served {
    /// A Vault or an OpenBao.
    Vault(Box<Settings>),
    /// Another class of operator looks after it.
    OtherClass,
}

impl Settings {
    /// Whether its identity depends on the namespace of the ExternalSecret.
    #[must_use]
    pub fn is_referent(&self) -> bool {
        match &self.auth {
            Auth::Token(key)
            | Auth::Kubernetes {
                jwt: JwtSource::Secret(key),
                ..
            } => key.namespace.is_none(),
            Auth::Kubernetes {
                jwt: JwtSource::ServiceAccount { namespace, .. },
                ..
            } => namespace.is_none(),
            Auth::Kubernetes {
                jwt: JwtSource::Own, ..
            } => false,
        }
    }
}

/// Checks a store.
///
/// # Errors
/// What cannot be served, with the field's name and what to do.
pub fn resolve(key: &StoreKey, spec: &SecretStoreSpec, class: &str) -> Result<Served, Invalid> {
    if spec
        .controller
        .as_deref()
        .is_some_and(|wanted| !wanted.is_empty() && wanted != class)
    {
        return Ok(Served::OtherClass);
    }
    spec.refresh_interval(std::time::Duration::ZERO)
        .map_err(|e| Invalid(e.to_string()))?;
    let scope = Scope { key };
    let retries = Retries::of(spec).map_err(Invalid)?;
    let mut settings = match &spec.provider {
        Provider {
            vault: Some(vault), ..
        } => scope.vault(vault)?,
        Provider {
            open_bao: Some(bao), ..
        } => scope.open_bao(bao)?,
        other => {
            let name = other.name().map_err(|e| Invalid(e.to_string()))?;
            return Err(Invalid(format!(
                "provider {name} is not served by Keyferry; it serves vault and openBao. Set spec.controller to the \
                 class of the operator that serves it"
            )));
        }
    };
    settings.retries = retries;
    Ok(Served::Vault(Box::new(settings)))
}

/// The rules of references: a namespaced store stays in its namespace (promise 7).
struct Scope<'a> {
    key: &'a StoreKey,
}

impl Scope<'_> {
    fn vault(&self, vault: &VaultProvider) -> Result<Settings, Invalid> {
        let refuse = |field: &str| refused(&format!("spec.provider.vault.{field}"));
        if vault
            .tls
            .as_ref()
            .is_some_and(|tls| tls.cert_secret_ref.is_some() || tls.key_secret_ref.is_some())
        {
            return refuse("tls");
        }
        if vault.read_your_writes == Some(true) {
            return refuse("readYourWrites");
        }
        if vault.forward_inconsistent == Some(true) {
            return refuse("forwardInconsistent");
        }
        let auth = vault.auth.as_ref().ok_or_else(|| no_auth("vault"))?;
        Ok(Settings {
            url: vault.server.trim().trim_end_matches('/').to_string(),
            namespace: vault.namespace.clone().filter(|n| !n.is_empty()),
            auth_namespace: auth.namespace.clone().filter(|n| !n.is_empty()),
            headers: vault.headers.clone().unwrap_or_default().into_iter().collect(),
            ca: self.ca("vault", vault.ca_bundle.as_deref(), vault.ca_provider.as_ref())?,
            kv: Kv {
                mount: vault
                    .path
                    .clone()
                    .filter(|path| !path.trim_matches('/').is_empty()),
                version: vault.version.unwrap_or_default(),
            },
            auth: self.auth(auth)?,
            retries: Retries::default(),
        })
    }

    fn open_bao(&self, bao: &OpenBaoProvider) -> Result<Settings, Invalid> {
        let auth = bao.auth.as_ref().ok_or_else(|| no_auth("openBao"))?;
        let prefix = "spec.provider.openBao.auth";
        let resolved = if let Some(token) = &auth.token_secret_ref {
            Auth::Token(self.secret(&format!("{prefix}.tokenSecretRef"), token, None)?)
        } else if let Some(kubernetes) = &auth.kubernetes {
            let field = format!("{prefix}.kubernetes");
            Auth::Kubernetes {
                mount: kubernetes.path.clone().unwrap_or_else(|| "kubernetes".into()),
                role: kubernetes.role.clone(),
                jwt: self.jwt(
                    &field,
                    kubernetes.service_account_ref.as_ref(),
                    kubernetes.secret_ref.as_ref(),
                )?,
            }
        } else if auth.app_role.is_some() {
            return refused(&format!("{prefix}.appRole"));
        } else if auth.user_pass.is_some() {
            return refused(&format!("{prefix}.userPass"));
        } else {
            return Err(no_auth("openBao"));
        };
        Ok(Settings {
            url: bao.server.trim().trim_end_matches('/').to_string(),
            namespace: bao.namespace.clone().filter(|n| !n.is_empty()),
            auth_namespace: auth.namespace.clone().filter(|n| !n.is_empty()),
            headers: Vec::new(),
            ca: self.ca("openBao", bao.ca_bundle.as_deref(), bao.ca_provider.as_ref())?,
            kv: Kv {
                mount: Some(bao.path.clone().unwrap_or_else(|| "kv".into())),
                version: bao.version.unwrap_or(KvVersion::V2),
            },
            auth: resolved,
            retries: Retries::default(),
        })
    }

    fn auth(&self, auth: &VaultAuth) -> Result<Auth, Invalid> {
        let later = [
            ("appRole", auth.app_role.is_some()),
            ("ldap", auth.ldap.is_some()),
            ("userPass", auth.user_pass.is_some()),
            ("jwt", auth.jwt.is_some()),
            ("cert", auth.cert.is_some()),
            ("iam", auth.iam.is_some()),
            ("gcp", auth.gcp.is_some()),
        ];
        if let Some(token) = &auth.token_secret_ref {
            return Ok(Auth::Token(self.secret(
                "spec.provider.vault.auth.tokenSecretRef",
                token,
                None,
            )?));
        }
        // ESO takes appRole before kubernetes when both are set.
        if let Some(kubernetes) = auth.kubernetes.as_ref().filter(|_| auth.app_role.is_none()) {
            let field = "spec.provider.vault.auth.kubernetes";
            return Ok(Auth::Kubernetes {
                mount: kubernetes
                    .mount_path
                    .clone()
                    .unwrap_or_else(|| "kubernetes".into()),
                role: kubernetes.role.clone(),
                jwt: self.jwt(
                    field,
                    kubernetes.service_account_ref.as_ref(),
                    kubernetes.secret_ref.as_ref(),
                )?,
            });
        }
        match later.iter().find(|(_, set)| *set) {
            Some((method, _)) => refused(&format!("spec.provider.vault.auth.{method}")),
            None => Err(no_auth("vault")),
        }
    }

    fn jwt(
        &self,
        field: &str,
        account: Option<&ServiceAccountSelector>,
        secret: Option<&SecretKeySelector>,
    ) -> Result<JwtSource, Invalid> {
        if let Some(account) = account {
            let field = format!("{field}.serviceAccountRef");
            return Ok(JwtSource::ServiceAccount {
                namespace: self.namespace(&field, account.namespace.as_deref())?,
                name: account.name.clone(),
                audiences: account.audiences.clone(),
            });
        }
        match secret {
            Some(secret) => Ok(JwtSource::Secret(self.secret(
                &format!("{field}.secretRef"),
                secret,
                Some("token"),
            )?)),
            None => Ok(JwtSource::Own),
        }
    }

    fn ca(&self, provider: &str, bundle: Option<&str>, from: Option<&CaProvider>) -> Result<Ca, Invalid> {
        if let Some(bundle) = bundle.filter(|text| !text.is_empty()) {
            return decode_bundle(bundle).map(Ca::Pem).ok_or_else(|| {
                Invalid(format!(
                    "spec.provider.{provider}.caBundle is not base64 of a PEM certificate"
                ))
            });
        }
        let Some(from) = from else { return Ok(Ca::System) };
        let field = format!("spec.provider.{provider}.caProvider");
        let namespace = self.namespace(&field, from.namespace.as_deref())?;
        if namespace.is_none() {
            return Err(Invalid(format!(
                "{field}.namespace is missing; a ClusterSecretStore must name it"
            )));
        }
        let key = from
            .key
            .clone()
            .ok_or_else(|| Invalid(format!("{field}.key is missing")))?;
        let key = SecretKey {
            namespace,
            name: from.name.clone(),
            key,
        };
        Ok(match from.type_ {
            CaProviderType::Secret => Ca::Secret(key),
            CaProviderType::ConfigMap => Ca::ConfigMap(key),
        })
    }

    fn secret(
        &self,
        field: &str,
        from: &SecretKeySelector,
        default: Option<&str>,
    ) -> Result<SecretKey, Invalid> {
        let missing = |what: &str| Invalid(format!("{field}.{what} is missing"));
        Ok(SecretKey {
            namespace: self.namespace(field, from.namespace.as_deref())?,
            name: from
                .name
                .clone()
                .filter(|n| !n.is_empty())
                .ok_or_else(|| missing("name"))?,
            key: from
                .key
                .clone()
                .filter(|k| !k.is_empty())
                .or_else(|| default.map(String::from))
                .ok_or_else(|| missing("key"))?,
        })
    }

    fn namespace(&self, field: &str, given: Option<&str>) -> Result<Option<String>, Invalid> {
        match (&self.key.namespace, given.filter(|n| !n.is_empty())) {
            (None, given) => Ok(given.map(String::from)),
            (Some(own), Some(given)) if own != given => Err(Invalid(format!(
                "{field}.namespace: namespace should either be empty or match the namespace of the SecretStore for a \
                 namespaced SecretStore; it says '{given}', the store is in '{own}'"
            ))),
            (Some(own), _) => Ok(Some(own.clone())),
        }
    }
}

fn refused<T>(field: &str) -> Result<T, Invalid> {
    Err(Invalid(format!(
        "{field} is not served by this version of Keyferry; remove it, or use a served one"
    )))
}

fn no_auth(provider: &str) -> Invalid {
    Invalid(format!(
        "no valid auth method specified; set one below spec.provider.{provider}.auth, for example kubernetes"
    ))
}

/// ESO accepts a bundle that was encoded twice, because users paste the base64 of a Secret.
fn decode_bundle(text: &str) -> Option<Vec<u8>> {
    let strip = |bytes: &[u8]| {
        bytes
            .iter()
            .copied()
            .filter(|b| !b.is_ascii_whitespace())
            .collect::<Vec<u8>>()
    };
    let is_pem = |bytes: &[u8]| bytes.windows(11).any(|window| window == b"-----BEGIN ");
    let once = STANDARD.decode(strip(text.as_bytes())).ok()?;
    if is_pem(&once) {
        return Some(once);
    }
    STANDARD.decode(strip(&once)).ok().filter(|twice| is_pem(twice))
}

impl Auth {
    /// Who is speaking, for messages.
    #[must_use]
    pub fn whose(&self) -> String {
        match self {
            Self::Token(key) => format!("the token in Secret {}", key.name),
            Self::Kubernetes { mount, role, .. } => format!("role '{role}' (mount '{mount}')"),
        }
    }
}

/// Kind of an object that a store depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceKind {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
    /// A ServiceAccount.
    ServiceAccount,
}

/// An object that a store depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its kind.
    pub kind: ReferenceKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Settings {
    /// What the store depends on, as far as it is known without the namespace of an ExternalSecret.
    #[must_use]
    pub fn references(&self) -> Vec<Reference> {
        let (auth_kind, auth_namespace, auth_name) = match &self.auth {
            Auth::Token(key)
            | Auth::Kubernetes {
                jwt: JwtSource::Secret(key),
                ..
            } => (ReferenceKind::Secret, key.namespace.as_ref(), Some(&key.name)),
            Auth::Kubernetes {
                jwt: JwtSource::ServiceAccount { namespace, name, .. },
                ..
            } => (ReferenceKind::ServiceAccount, namespace.as_ref(), Some(name)),
            Auth::Kubernetes {
                jwt: JwtSource::Own, ..
            } => (ReferenceKind::ServiceAccount, None, None),
        };
        let (ca_kind, ca) = match &self.ca {
            Ca::Secret(key) => (ReferenceKind::Secret, Some(key)),
            Ca::ConfigMap(key) => (ReferenceKind::ConfigMap, Some(key)),
            Ca::System | Ca::Pem(_) => (ReferenceKind::Secret, None),
        };
        let reference = |kind, namespace: Option<&String>, name: Option<&String>| {
            Some(Reference {
                kind,
                namespace: namespace?.clone(),
                name: name?.clone(),
            })
        };
        let auth = reference(auth_kind, auth_namespace, auth_name);
        auth.into_iter()
            .chain(reference(
                ca_kind,
                ca.and_then(|key| key.namespace.as_ref()),
                ca.map(|key| &key.name),
            ))
            .collect()
    }
}
