//! `gcp`: Vault's Google Cloud auth method, with the key of a service account: the proof is signed here, and no
//! service of Google is asked. What needs one (workload identity, the metadata server) is refused by name.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rsa::PrivateKey;
use rsa::pkcs1v15::SigningKey;
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::signature::{RandomizedSigner as _, SignatureEncoding as _};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{Method, Proof, login_at, mount_or, role_at};
use crate::api::meta::SecretKeySelector;
use crate::api::vault::VaultGcpAuth;
use crate::store::credentials::{CredentialError, Credentials, Identity};
use crate::store::scope::{Invalid, Need, Scope, SecretKey};

/// Life of the proof. Vault takes at most 15 minutes by default, and a role may want less.
const LIFE: Duration = Duration::from_secs(300);
/// Longest PEM text of a key: that of 4,096 bits has 3.3 KiB, and the time of a signature grows with its cube.
const KEY_LIMIT: usize = 4 << 10;

/// A login by the Google Cloud auth method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gcp {
    mount: String,
    role: String,
    key: SecretKey,
}

/// What is needed of a service account's key file.
#[derive(Deserialize)]
struct AccountKey {
    #[serde(default)]
    client_email: String,
    #[serde(default)]
    private_key_id: String,
    #[serde(default)]
    private_key: Zeroizing<String>,
}

impl Gcp {
    pub(super) fn resolve(scope: &Scope<'_>, auth: &VaultGcpAuth) -> Result<Self, Invalid> {
        let Some(secrets) = &auth.secret_ref else {
            return Err(unserved(scope, auth));
        };
        let field = scope.field("auth.gcp.secretRef.secretAccessKeySecretRef");
        let reference = secrets
            .get("secretAccessKeySecretRef")
            .and_then(|reference| SecretKeySelector::deserialize(reference).ok())
            .ok_or_else(|| Invalid(format!("{field} is missing; set its name and key")))?;
        Ok(Self {
            mount: mount_or(auth.path.as_deref(), "gcp"),
            role: auth.role.clone(),
            key: scope.secret(&field, &reference, None)?,
        })
    }

    /// The proof: a JWT that the service account signs for the role.
    fn jwt(&self, file: &[u8], now: SystemTime) -> Result<Zeroizing<String>, String> {
        // The error of serde_json is dropped: it may quote the file.
        let account: AccountKey = serde_json::from_slice(file)
            .map_err(|_| "it is not the JSON of a service account's key; put the whole key file there")?;
        for (name, value) in [
            ("client_email", &account.client_email),
            ("private_key_id", &account.private_key_id),
            ("private_key", &account.private_key),
        ] {
            if value.is_empty() {
                return Err(format!(
                    "its JSON has no {name}; put the whole key file of a service account there"
                ));
            }
        }
        let small = Some(account.private_key.trim()).filter(|pem| pem.len() <= KEY_LIMIT);
        let key = small
            .and_then(|pem| PrivateKey::from_pkcs8_pem(pem).ok())
            .ok_or("its private_key is no RSA key of at most 4,096 bits in PEM (PKCS#8)")?;
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": account.private_key_id});
        let claims = json!({
            "iss": account.client_email, "sub": account.client_email, "aud": format!("vault/{}", self.role),
            "iat": seconds, "exp": seconds + LIFE.as_secs(),
        });
        let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encoded(&header), encoded(&claims));
        let signature = SigningKey::<Sha256>::new(key)
            .try_sign_with_rng(&mut rand::rng(), signed.as_bytes())
            .map_err(|_| "its private_key is too small to sign with")?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes())).into())
    }
}

fn unserved(scope: &Scope<'_>, auth: &VaultGcpAuth) -> Invalid {
    let (field, needs) = if auth.workload_identity.is_some() {
        ("auth.gcp.workloadIdentity", "Google's token service")
    } else if auth.service_account_ref.is_some() {
        ("auth.gcp.serviceAccountRef", "Google's metadata server")
    } else {
        ("auth.gcp without secretRef", "Google's metadata server")
    };
    Invalid(format!(
        "{} is not served by this version of Keyferry: it needs {needs}; set \
         auth.gcp.secretRef.secretAccessKeySecretRef, or use auth.kubernetes or auth.jwt with a token of the cluster",
        scope.field(field)
    ))
}

#[async_trait]
impl Method for Gcp {
    fn whom(&self) -> String {
        role_at(&self.role, &self.mount)
    }

    fn mount(&self) -> Option<(&str, &'static str)> {
        Some((&self.mount, "gcp.path"))
    }

    fn needs(&self) -> Vec<Need> {
        vec![Need::from(&self.key)]
    }

    fn advice(&self) -> &'static str {
        "check that the role exists, is of type iam and has the service account in bound_service_accounts, and that \
         the key is not deleted"
    }

    async fn proof(&self, cluster: &dyn Credentials, identity: &Identity) -> Result<Proof, CredentialError> {
        let file = cluster.secret(&self.key, identity).await?;
        let place = format!("key \"{}\" of Secret {}", self.key.key, self.key.place(identity));
        let jwt = self.jwt(file.expose(), SystemTime::now());
        let jwt = jwt.map_err(|error| format!("{place}: {error}"))?;
        Ok(Proof::Login {
            call: login_at(&self.mount, &[("role", &self.role), ("jwt", &jwt)])?,
            whose: format!("the service account in {place}"),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::LazyLock;

    use rsa::pkcs1v15::{Signature, VerifyingKey};
    use rsa::pkcs8::{EncodePrivateKey as _, LineEnding};
    use rsa::signature::Verifier as _;

    use super::*;
    use crate::api::external_secret::StoreKind;
    use crate::api::store::StoreKey;

    static KEY: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::new(&mut rand::rng(), 2048).unwrap());

    fn resolve(auth: &Value) -> Result<Gcp, String> {
        let key = StoreKey {
            kind: StoreKind::SecretStore,
            namespace: Some("db".into()),
            name: "vault".into(),
        };
        let scope = Scope {
            key: &key,
            provider: "vault",
        };
        let auth = serde_json::from_value(auth.clone()).unwrap();
        Gcp::resolve(&scope, &auth).map_err(|error| error.0)
    }

    fn gcp() -> Gcp {
        let secret = json!({"secretAccessKeySecretRef": {"name": "google", "key": "key.json"}});
        resolve(&json!({"role": "dev", "path": "google/", "secretRef": secret})).unwrap()
    }

    fn file() -> Value {
        let pem = KEY.to_pkcs8_pem(LineEnding::LF).unwrap();
        json!({
            "type": "service_account", "project_id": "p", "private_key_id": "k1", "private_key": pem.as_str(),
            "client_email": "reader@p.iam.gserviceaccount.com",
        })
    }

    #[test]
    fn the_proof_is_signed_by_the_service_account_for_the_role_and_lives_five_minutes() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let jwt = gcp().jwt(file().to_string().as_bytes(), now).unwrap();
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let signature = Signature::try_from(URL_SAFE_NO_PAD.decode(signature).unwrap().as_slice()).unwrap();
        VerifyingKey::<Sha256>::new(KEY.to_public_key())
            .verify(signed.as_bytes(), &signature)
            .unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let decoded = |part| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        assert_eq!(
            decoded(header),
            json!({"alg": "RS256", "typ": "JWT", "kid": "k1"})
        );
        let email = "reader@p.iam.gserviceaccount.com";
        assert_eq!(
            decoded(claims),
            json!({"iss": email, "sub": email, "aud": "vault/dev", "iat": 1_000, "exp": 1_300})
        );
    }

    #[test]
    fn a_key_file_that_is_none_is_refused_by_the_name_of_the_field_and_without_its_content() {
        let without = |name: &str, value: Value| {
            let mut file = file();
            file[name] = value;
            file.to_string()
        };
        for (file, words) in [
            ("hunter2".into(), "not the JSON"),
            ("{\"a\":\"hunter2\"}".into(), "no client_email"),
            (without("client_email", json!("")), "no client_email"),
            (without("private_key_id", Value::Null), "not the JSON"),
            (
                without("private_key", json!("hunter2")),
                "private_key is no RSA key",
            ),
            (
                without("private_key", json!("hunter2".repeat(2_000))),
                "private_key is no RSA key",
            ),
            (
                r#"{"client_email":"a@b","private_key_id":"hunter2"}"#.into(),
                "no private_key",
            ),
        ] {
            let error = gcp().jwt(file.as_bytes(), UNIX_EPOCH).unwrap_err();
            assert!(error.contains(words) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_needs_a_service_of_google_is_refused_by_name_with_what_to_do_instead() {
        for (auth, words) in [
            (
                json!({"role": "dev", "workloadIdentity": {}}),
                "auth.gcp.workloadIdentity is not served",
            ),
            (
                json!({"role": "dev", "serviceAccountRef": {"name": "a"}}),
                "auth.gcp.serviceAccountRef is not served",
            ),
            (json!({"role": "dev"}), "auth.gcp without secretRef is not served"),
            (
                json!({"role": "dev", "secretRef": {}}),
                "secretAccessKeySecretRef is missing",
            ),
            (
                json!({"role": "dev", "secretRef": {"secretAccessKeySecretRef": "google"}}),
                "secretAccessKeySecretRef is missing",
            ),
            (
                json!({"role": "dev", "secretRef": {"secretAccessKeySecretRef": {"name": "google"}}}),
                "secretAccessKeySecretRef.key is missing",
            ),
        ] {
            let error = resolve(&auth).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
