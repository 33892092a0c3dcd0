//! From a store's spec to what is needed to use it: everything unclear is refused here, by name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::auth::Auth;
use super::fake::Fake;
use super::retries::Retries;
use super::scope::{Invalid, Need, Reference, ReferenceKind, Scope, SecretKey, object_name};
use crate::api::bounds;
use crate::api::store::{Provider, SecretStoreSpec, StoreKey};
use crate::api::vault::{
    CaProvider, CaProviderType, KvVersion, OpenBaoAuth, OpenBaoProvider, VaultAuth, VaultClientTls,
    VaultKubernetesAuth, VaultProvider,
};
use crate::vault::consistency::Consistency;
use crate::vault::kv::Kv;

/// The certificate that we show to the server, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM of the certificate and its chain.
    pub certificate: SecretKey,
    /// PEM of the private key.
    pub key: SecretKey,
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
    /// The certificate to show to the server.
    pub client_certificate: Option<ClientCertificate>,
    /// What is asked of nodes that may be behind.
    pub consistency: Consistency,
    /// The engine.
    pub kv: Kv,
    /// How to log in.
    pub auth: Auth,
    /// Whether who speaks depends on the namespace of the ExternalSecret: [`Auth::is_referent`], which each read asks.
    pub referent: bool,
    /// How to repeat a read that failed by the server's fault.
    pub retries: Retries,
}

/// What a store is for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// A Vault or an OpenBao.
    Vault(Box<Settings>),
    /// Values in the store itself.
    Fake(Fake),
    /// Another class of operator looks after it.
    OtherClass,
}

/// Whether a store that names this class is left to another operator than one of the second.
#[must_use]
pub fn is_of_another(wanted: Option<&str>, class: &str) -> bool {
    wanted.is_some_and(|wanted| !wanted.is_empty() && wanted != class)
}

/// Checks a store.
///
/// # Errors
/// What cannot be served, with the field's name and what to do.
pub fn resolve(key: &StoreKey, spec: &SecretStoreSpec, class: &str) -> Result<Served, Invalid> {
    if is_of_another(spec.controller.as_deref(), class) {
        return Ok(Served::OtherClass);
    }
    bounds::check_store(spec)
        .map_err(|exceeded| Invalid(format!("{} {}", exceeded.field, exceeded.problem)))?;
    spec.refresh_interval(std::time::Duration::ZERO)
        .map_err(|e| Invalid(e.to_string()))?;
    let scope = |provider| Scope { key, provider };
    let retries = Retries::of(spec).map_err(Invalid)?;
    let settings = match &spec.provider {
        Provider {
            vault: Some(vault), ..
        } => scope("vault").vault(vault, retries)?,
        Provider {
            open_bao: Some(bao), ..
        } => scope("openBao").open_bao(bao, retries)?,
        Provider { fake: Some(fake), .. } => return Fake::resolve(fake).map(Served::Fake),
        other => {
            let name = other.name().map_err(|e| Invalid(e.to_string()))?;
            return Err(Invalid(format!(
                "provider {name} is not served by Keyferry; it serves vault, openBao and fake. Set spec.controller to the \
                 class of the operator that serves it"
            )));
        }
    };
    Ok(Served::Vault(Box::new(settings)))
}

impl Settings {
    /// What the store depends on, as far as it is known without the namespace of an ExternalSecret.
    #[must_use]
    pub fn references(&self) -> Vec<Reference> {
        let mut needs = self.auth.method().needs();
        match &self.ca {
            Ca::Secret(key) => needs.push(Need::from(key)),
            Ca::ConfigMap(key) => needs.push(Need {
                kind: ReferenceKind::ConfigMap,
                ..Need::from(key)
            }),
            Ca::System | Ca::Pem(_) => {}
        }
        if let Some(shown) = &self.client_certificate {
            needs.extend([Need::from(&shown.certificate), Need::from(&shown.key)]);
        }
        let mut references: Vec<Reference> = Vec::new();
        for reference in needs.into_iter().filter_map(Need::reference) {
            if !references.contains(&reference) {
                references.push(reference);
            }
        }
        references
    }
}

impl Scope<'_> {
    fn vault(&self, vault: &VaultProvider, retries: Retries) -> Result<Settings, Invalid> {
        let auth_spec = vault.auth.as_ref().ok_or_else(|| self.no_auth())?;
        let auth = Auth::resolve(self, auth_spec)?;
        let client_certificate = match auth.method().client_certificate() {
            Some(shown) => Some(shown.clone()),
            None => self.client_certificate(vault.tls.as_ref())?,
        };
        Ok(Settings {
            url: vault.server.trim().trim_end_matches('/').to_string(),
            namespace: given(vault.namespace.as_ref()),
            auth_namespace: given(auth_spec.namespace.as_ref()),
            headers: vault.headers.clone().unwrap_or_default().into_iter().collect(),
            ca: self.ca(vault.ca_bundle.as_deref(), vault.ca_provider.as_ref())?,
            client_certificate,
            consistency: consistency(vault),
            kv: Kv {
                mount: vault
                    .path
                    .clone()
                    .filter(|path| !path.trim_matches('/').is_empty()),
                version: vault.version.unwrap_or_default(),
            },
            referent: auth.is_referent(),
            auth,
            retries,
        })
    }

    fn open_bao(&self, bao: &OpenBaoProvider, retries: Retries) -> Result<Settings, Invalid> {
        let auth_spec = bao.auth.as_ref().ok_or_else(|| self.no_auth())?;
        let auth = Auth::resolve(self, &as_vault(auth_spec))?;
        Ok(Settings {
            url: bao.server.trim().trim_end_matches('/').to_string(),
            namespace: given(bao.namespace.as_ref()),
            auth_namespace: given(auth_spec.namespace.as_ref()),
            headers: Vec::new(),
            ca: self.ca(bao.ca_bundle.as_deref(), bao.ca_provider.as_ref())?,
            client_certificate: None,
            consistency: Consistency::Eventual,
            kv: Kv {
                mount: Some(bao.path.clone().unwrap_or_else(|| "kv".into())),
                version: bao.version.unwrap_or(KvVersion::V2),
            },
            referent: auth.is_referent(),
            auth,
            retries,
        })
    }

    fn client_certificate(&self, tls: Option<&VaultClientTls>) -> Result<Option<ClientCertificate>, Invalid> {
        let Some(tls) = tls else { return Ok(None) };
        let (certificate, key) = match (&tls.cert_secret_ref, &tls.key_secret_ref) {
            (None, None) => return Ok(None),
            (Some(certificate), Some(key)) => (certificate, key),
            _ => {
                return Err(Invalid(format!(
                    "{} needs both certSecretRef and keySecretRef, or neither",
                    self.field("tls")
                )));
            }
        };
        let certificate = self.secret(&self.field("tls.certSecretRef"), certificate, Some("tls.crt"))?;
        let key = self.secret(&self.field("tls.keySecretRef"), key, Some("tls.key"))?;
        let field = self.field("tls");
        ClientCertificate::of_one_store(&field, certificate, key).map(Some)
    }

    fn ca(&self, bundle: Option<&str>, from: Option<&CaProvider>) -> Result<Ca, Invalid> {
        if let Some(bundle) = bundle.filter(|text| !text.is_empty()) {
            return decode_bundle(bundle).map(Ca::Pem).ok_or_else(|| {
                Invalid(format!(
                    "{} is not base64 of a PEM certificate",
                    self.field("caBundle")
                ))
            });
        }
        let Some(from) = from else { return Ok(Ca::System) };
        let field = self.field("caProvider");
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
            name: object_name(&field, &from.name)?,
            key,
        };
        Ok(match from.type_ {
            CaProviderType::Secret => Ca::Secret(key),
            CaProviderType::ConfigMap => Ca::ConfigMap(key),
        })
    }
}

impl ClientCertificate {
    /// A connection is the store's, not an ExternalSecret's: so must be what it shows.
    ///
    /// # Errors
    /// If a ClusterSecretStore leaves a namespace out.
    pub fn of_one_store(field: &str, certificate: SecretKey, key: SecretKey) -> Result<Self, Invalid> {
        if certificate.namespace.is_none() || key.namespace.is_none() {
            return Err(Invalid(format!(
                "{field}: both references need a namespace in a ClusterSecretStore; a client certificate of the \
                 namespace of each ExternalSecret is not served"
            )));
        }
        Ok(Self { certificate, key })
    }
}

/// `forwardInconsistent` needs states to be inconsistent with, and so brings readYourWrites along; ESO sends nothing
/// unless both are set.
fn consistency(vault: &VaultProvider) -> Consistency {
    match (vault.read_your_writes, vault.forward_inconsistent) {
        (_, Some(true)) => Consistency::Forwarded,
        (Some(true), _) => Consistency::ReadYourWrites,
        _ => Consistency::Eventual,
    }
}

fn given(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).cloned()
}

/// The methods of OpenBao are Vault's; one field has another name.
fn as_vault(auth: &OpenBaoAuth) -> VaultAuth {
    let kubernetes = auth.kubernetes.as_ref().map(|kubernetes| VaultKubernetesAuth {
        mount_path: kubernetes.path.clone(),
        service_account_ref: kubernetes.service_account_ref.clone(),
        secret_ref: kubernetes.secret_ref.clone(),
        role: kubernetes.role.clone(),
    });
    VaultAuth {
        namespace: auth.namespace.clone(),
        token_secret_ref: auth.token_secret_ref.clone(),
        app_role: auth.app_role.clone(),
        user_pass: auth.user_pass.clone(),
        kubernetes,
        ..VaultAuth::default()
    }
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
