//! From PEM, as users store it, to what TLS needs: what is wrong with it is said by name, never shown.

use reqwest::{Certificate, Identity};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, crypto};

use super::error::VaultError;
use crate::secret::SecretBytes;

const BUNDLE: &str = "the CA bundle of the store (caBundle or caProvider)";
const CLIENT: &str = "the client certificate of the store";

/// The certificates of a bundle. Those that are no valid X.509 are left out, as Go does, because a bundle of many
/// often has an ancient one; text between them is no harm.
///
/// # Errors
/// If the PEM is broken, or no certificate of it is of use.
pub(super) fn roots(pem: &[u8]) -> Result<Vec<Certificate>, VaultError> {
    let mut usable = RootCertStore::empty();
    let mut roots = Vec::new();
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        count += 1;
        let certificate = certificate.map_err(|_| {
            bad(format!(
                "{BUNDLE} is broken PEM at its certificate {count}; paste it anew"
            ))
        })?;
        if usable.add(certificate.clone()).is_ok() {
            roots.extend(Certificate::from_der(&certificate));
        }
    }
    match (count, roots.is_empty()) {
        (0, _) => Err(bad(format!("{BUNDLE} holds no PEM certificate"))),
        (_, true) => Err(bad(format!("{BUNDLE} holds no valid X.509 certificate"))),
        _ => Ok(roots),
    }
}

/// The certificate that is shown to the server with its chain, and its key: PKCS#8, PKCS#1 or SEC1.
///
/// # Errors
/// If one of them is missing or broken, or they do not belong together.
pub(super) fn identity(pem: &SecretBytes) -> Result<Identity, VaultError> {
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem.expose()) {
        chain.push(certificate.map_err(|_| bad(format!("{CLIENT} or its key is broken PEM")))?);
    }
    if chain.is_empty() {
        return Err(bad(format!("{CLIENT} holds no PEM certificate")));
    }
    let key = private_key(pem.expose())?;
    CertifiedKey::from_der(chain, key, &crypto::ring::default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => bad(format!("the key of {CLIENT} does not belong to it")),
        _ => bad(format!("{CLIENT} or its key is of a kind that TLS does not know")),
    })?;
    Identity::from_pem(pem.expose()).map_err(|_| {
        bad(format!(
            "{CLIENT} or its key has other PEM beside it; leave only certificates and the private key"
        ))
    })
}

/// The last key, as reqwest takes it.
fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, VaultError> {
    let mut last = None;
    for key in PrivateKeyDer::pem_slice_iter(pem) {
        last = Some(key.map_err(|_| bad(format!("the key of {CLIENT} is broken PEM")))?);
    }
    last.ok_or_else(|| {
        let encrypted = pem.windows(9).any(|window| window == b"ENCRYPTED");
        bad(format!(
            "the key of {CLIENT} {}",
            if encrypted {
                "is encrypted; store it without a passphrase"
            } else {
                "holds no PEM private key"
            }
        ))
    })
}

fn bad(message: String) -> VaultError {
    VaultError::BadRequest(message)
}
