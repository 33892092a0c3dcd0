//! From PEM, as users store it, to what TLS needs: what is wrong with it is said by name, never shown.

use reqwest::{Certificate, Identity};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, crypto};

use super::error::VaultError;
use crate::secret::SecretBytes;

const BUNDLE: &str = "the CA bundle of the store (caBundle or caProvider)";
const CLIENT: &str = "the client certificate of the store (tls.certSecretRef or auth.cert.clientCert)";
const KEY: &str = "the key of the client certificate (tls.keySecretRef or auth.cert.secretRef)";

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
        rustls::Error::InconsistentKeys(_) => bad(format!("{KEY} does not belong to it")),
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
        last = Some(key.map_err(|_| bad(format!("{KEY} is broken PEM")))?);
    }
    last.ok_or_else(|| {
        let encrypted = pem.windows(9).any(|window| window == b"ENCRYPTED");
        bad(format!(
            "{KEY} {}",
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use keyferry_testbed::pki::{Authority, Pair};
    use p256::pkcs8::DecodePrivateKey as _;
    use rsa::pkcs1::EncodeRsaPrivateKey as _;
    use rsa::pkcs8::EncodePrivateKey as _;

    fn why<T>(result: Result<T, VaultError>) -> String {
        result.err().map(|error| error.to_string()).unwrap_or_default()
    }

    fn joined(parts: &[&str]) -> SecretBytes {
        SecretBytes::from(parts.join("\n").as_str())
    }

    fn pair() -> Pair {
        Authority::new("ca").unwrap().client("c", None).unwrap()
    }

    #[test]
    fn a_bundle_may_hold_several_certificates_with_text_and_windows_line_ends_between_them() {
        let (one, two) = (
            Authority::new("one").unwrap().pem,
            Authority::new("two").unwrap().pem,
        );
        let bundle = format!("# the old one\n{one}\nsubject=two\n\n{two}# end");
        assert_eq!(roots(bundle.as_bytes()).unwrap().len(), 2);
        assert_eq!(roots(bundle.replace('\n', "\r\n").as_bytes()).unwrap().len(), 2);
        assert_eq!(roots(one.trim_end().as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn a_bundle_without_a_usable_certificate_is_refused_and_one_odd_certificate_is_left_out() {
        let good = Authority::new("ca").unwrap().pem;
        let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(roots(format!("{odd}{good}").as_bytes()).unwrap().len(), 1);
        let cut = good.replace("-----END CERTIFICATE-----", "");
        for (pem, said) in [
            ("", "holds no PEM certificate"),
            ("hello", "holds no PEM certificate"),
            (pair().key.as_str(), "holds no PEM certificate"),
            (odd, "holds no valid X.509 certificate"),
            (cut.as_str(), "is broken PEM at its certificate 1"),
            (
                "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n",
                "is broken PEM at its certificate 1",
            ),
        ] {
            let error = why(roots(pem.as_bytes()));
            assert!(
                error.contains(said) && error.contains("caBundle or caProvider"),
                "{pem}: {error}"
            );
        }
    }

    #[test]
    fn keys_of_every_form_are_taken_with_the_certificates_in_any_order() {
        let pair = pair();
        assert_eq!(why(identity(&joined(&[&pair.certificate, &pair.key]))), "");
        assert_eq!(why(identity(&joined(&[&pair.key, &pair.certificate]))), "");
        let sec1 = p256::SecretKey::from_pkcs8_pem(&pair.key).unwrap();
        let sec1 = base64::prelude::BASE64_STANDARD.encode(sec1.to_sec1_der().unwrap());
        let sec1 = format!("-----BEGIN EC PRIVATE KEY-----\n{sec1}\n-----END EC PRIVATE KEY-----\n");
        // As 'openssl ecparam -genkey' writes it.
        let curve = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        assert_eq!(why(identity(&joined(&[&pair.certificate, curve, &sec1]))), "");

        let key = rsa::PrivateKey::new(&mut rand::rng(), 2048).unwrap();
        let pkcs8 = key.to_pkcs8_pem(Default::default()).unwrap();
        let certificate = Authority::new("ca").unwrap().client_of_key("c", &pkcs8).unwrap();
        let pkcs1 = key.to_pkcs1_pem(Default::default()).unwrap();
        assert!(pkcs1.contains("BEGIN RSA PRIVATE KEY"));
        for key in [&pkcs8, &pkcs1] {
            assert_eq!(why(identity(&joined(&[&certificate, key]))), "");
        }
    }

    #[test]
    fn a_client_certificate_that_cannot_be_shown_is_refused_by_name_and_never_quoted() {
        let (pair, other) = (pair(), pair());
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let cut = pair.key.replace("-----END PRIVATE KEY-----", "");
        for (parts, said) in [
            ([pair.key.as_str(), ""], "holds no PEM certificate"),
            ([&pair.certificate, ""], "holds no PEM private key"),
            ([&pair.certificate, "canary"], "holds no PEM private key"),
            (
                [&pair.certificate, encrypted],
                "is encrypted; store it without a passphrase",
            ),
            ([&pair.certificate, &other.key], "does not belong to it"),
            ([&pair.certificate, no_key], "of a kind that TLS does not know"),
            ([&pair.certificate, &cut], "is broken PEM"),
            (
                [&format!("{}{public}", pair.certificate), &pair.key],
                "has other PEM beside it",
            ),
        ] {
            let error = why(identity(&joined(&parts)));
            assert!(
                error.contains(said) && !error.contains("canary"),
                "{said}: {error}"
            );
        }
    }
}
