//! The KV engine: from a key as users write it to a path, and from an answer to its meaning.

use std::sync::Arc;

use rustify::endpoint::Endpoint;
use vaultrs::api::kv1::requests::GetSecretRequest;
use vaultrs::api::kv2::requests::ReadSecretRequest;

use super::error::{VaultError, known_phrase};
use super::json::Json;
use super::transport::{Call, Reply};
use crate::api::vault::KvVersion;

/// A KV engine as a store names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kv {
    /// Where it is mounted; `None` means that keys begin with the mount.
    pub mount: Option<String>,
    /// Which version of the engine.
    pub version: KvVersion,
}

/// The one place that a key names, however it was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretPath {
    mount: String,
    path: String,
    version: KvVersion,
}

/// Whether a secret is there.
#[derive(Clone)]
pub enum KvAnswer {
    /// Its content.
    Found(Arc<Json>),
    /// A clean 'not found' of an unsealed, authorised Vault: the only answer that may delete anything.
    Missing,
}

impl Kv {
    /// The forms `foo`, `/foo`, `secret/foo` and `secret/data/foo` name one secret of the mount
    /// `secret`, as in ESO; without a mount the key is the API's path with or without `data`.
    ///
    /// # Errors
    /// If the key is empty, leaves the mount or holds control characters.
    pub fn locate(&self, key: &str) -> Result<SecretPath, VaultError> {
        check_key(key)?;
        let key = key.trim_matches('/');
        let refuse = |why: &str| Err(VaultError::BadRequest(format!("key '{key}' {why}")));
        let (mount, path) = match &self.mount {
            Some(mount) => {
                let mount = mount.trim_matches('/');
                match key.strip_prefix(mount).and_then(|rest| rest.strip_prefix('/')) {
                    Some(rest) if self.version == KvVersion::V2 => {
                        (mount, rest.strip_prefix("data/").unwrap_or(rest))
                    }
                    Some(rest) => (mount, rest),
                    None => (mount, key),
                }
            }
            None if self.version == KvVersion::V2 && key.contains("/data/") => {
                key.split_once("/data/").unwrap_or((key, ""))
            }
            None => match key.split_once('/') {
                Some(parts) => parts,
                None => {
                    return refuse("names no mount, and the store has no path; set spec.provider.vault.path");
                }
            },
        };
        if mount.is_empty() || path.is_empty() {
            return refuse("names no secret below the mount");
        }
        Ok(SecretPath {
            mount: mount.into(),
            path: path.into(),
            version: self.version,
        })
    }
}

/// Refuses what would leave the mount or break a header line; ESO resolves `..` and lets a key out.
fn check_key(key: &str) -> Result<(), VaultError> {
    let refuse = |why: &str| Err(VaultError::BadRequest(format!("the key {why}")));
    if key.chars().any(char::is_control) {
        return refuse("holds control characters");
    }
    if key.split('/').any(|segment| segment == ".." || segment == ".") {
        return refuse("holds a '.' or '..' segment, which could leave the mount");
    }
    Ok(())
}

impl SecretPath {
    /// The request that reads it.
    ///
    /// # Errors
    /// If the path cannot be written as a URL, or a version is asked of KV v1.
    pub fn read(&self, version: Option<u64>) -> Result<Call, VaultError> {
        match self.version {
            KvVersion::V2 => {
                let mut request = ReadSecretRequest::builder();
                request
                    .mount(self.mount.as_str())
                    .path(self.path.as_str())
                    .version(version);
                built(request.build().ok())
            }
            KvVersion::V1 if version.is_some() => Err(VaultError::BadRequest(
                "remoteRef.version needs KV v2, and the store says version v1".into(),
            )),
            KvVersion::V1 => {
                let mut request = GetSecretRequest::builder();
                request.mount(self.mount.as_str()).path(self.path.as_str());
                built(request.build().ok())
            }
        }
    }

    /// The path as Vault's policies name it, for messages.
    #[must_use]
    pub fn policy_path(&self) -> String {
        match self.version {
            KvVersion::V1 => format!("{}/{}", self.mount, self.path),
            KvVersion::V2 => format!("{}/data/{}", self.mount, self.path),
        }
    }

    /// Reads the meaning of the answer to [`Self::read`].
    ///
    /// # Errors
    /// Everything but the secret and a clean 'not found'.
    pub fn answer(&self, reply: Reply) -> Result<KvAnswer, VaultError> {
        if reply.status == 404 {
            return self.not_found(&reply.body);
        }
        let body = reply.success()?;
        let root = parse(&body)?.into_object();
        let mut root = root.ok_or(VaultError::BadAnswer("Vault's answer is not a JSON object"))?;
        let data = root.remove("data").unwrap_or(Json::Null);
        match (self.version, &data) {
            (_, Json::Null) => return Ok(KvAnswer::Missing),
            (KvVersion::V1, Json::Object(_)) => return Ok(KvAnswer::Found(Arc::new(data))),
            _ => {}
        }
        let outer = data.into_object();
        let mut outer = outer.ok_or(VaultError::BadAnswer(
            "the answer's field 'data' is not a JSON object",
        ))?;
        match outer.remove("data") {
            Some(data @ Json::Object(_)) if self.version == KvVersion::V2 => {
                Ok(KvAnswer::Found(Arc::new(data)))
            }
            // A deleted or destroyed version answers with metadata and no data.
            Some(Json::Null) if self.version == KvVersion::V2 => Ok(KvAnswer::Missing),
            _ => Err(VaultError::BadAnswer(
                "the answer has no field 'data.data'; is the engine KV v1? Then set version: v1 in the store",
            )),
        }
    }

    /// Vault answers 404 to a missing secret, a deleted version, an unknown mount, and a path of the
    /// wrong KV version. Only the first two mean that the secret is gone.
    fn not_found(&self, body: &[u8]) -> Result<KvAnswer, VaultError> {
        let phrase = known_phrase(body);
        if phrase.is_some() {
            return Err(VaultError::Status { status: 404, phrase });
        }
        let root = parse(body)?.into_object().ok_or(VaultError::BadAnswer(
            "a 404 that is not Vault's own; is spec.provider.vault.server right?",
        ))?;
        if matches!(root.get("warnings"), Some(Json::Array(warnings)) if !warnings.is_empty()) {
            return Err(VaultError::BadAnswer(
                "Vault answered 404 with a warning about the path; does the store's version (v1 or v2) fit the engine?",
            ));
        }
        match root.get("errors") {
            None if !root.contains_key("data") => Err(VaultError::BadAnswer(
                "a 404 that is not Vault's own; is spec.provider.vault.server right?",
            )),
            Some(Json::Array(errors)) if !errors.is_empty() => Err(VaultError::Status {
                status: 404,
                phrase: None,
            }),
            _ => Ok(KvAnswer::Missing),
        }
    }
}

fn built<E: Endpoint>(endpoint: Option<E>) -> Result<Call, VaultError> {
    let endpoint =
        endpoint.ok_or_else(|| VaultError::BadRequest("the path of the secret is incomplete".into()))?;
    Call::new(&endpoint)
}

fn parse(body: &[u8]) -> Result<Json, VaultError> {
    Json::parse(body).map_err(|_| {
        VaultError::BadAnswer("Vault's answer is not valid JSON; is something else answering at its address?")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn v2(mount: Option<&str>) -> Kv {
        Kv {
            mount: mount.map(String::from),
            version: KvVersion::V2,
        }
    }

    fn answer(status: u16, body: &str) -> Result<KvAnswer, VaultError> {
        let path = v2(Some("secret")).locate("foo").unwrap();
        path.answer(Reply {
            status,
            retry_after: None,
            body: body.as_bytes().to_vec().into(),
        })
    }

    #[test]
    fn all_forms_of_a_key_name_one_secret() {
        for key in ["foo", "/foo", "secret/foo", "secret/data/foo"] {
            assert_eq!(
                v2(Some("secret")).locate(key).unwrap().policy_path(),
                "secret/data/foo",
                "{key}"
            );
        }
        for key in ["secret/foo", "secret/data/foo"] {
            assert_eq!(
                v2(None).locate(key).unwrap().policy_path(),
                "secret/data/foo",
                "{key}"
            );
        }
    }

    #[test]
    fn a_mount_with_slashes_keeps_them() {
        assert_eq!(
            v2(Some("team/kv")).locate("team/kv/a/b").unwrap().policy_path(),
            "team/kv/data/a/b"
        );
    }

    #[test]
    fn a_key_that_leaves_the_mount_is_refused() {
        for key in ["../x", "a/../../x", "a/./b", "a\nb", "", "/"] {
            assert!(v2(Some("secret")).locate(key).is_err(), "{key:?}");
        }
    }

    #[test]
    fn only_a_clean_not_found_counts_as_missing() {
        assert!(matches!(answer(404, r#"{"errors":[]}"#), Ok(KvAnswer::Missing)));
        let deleted = r#"{"data":{"data":null,"metadata":{"deletion_time":"x"}}}"#;
        assert!(matches!(answer(404, deleted), Ok(KvAnswer::Missing)));
        for body in [
            r#"{"errors":["no handler for route \"secret/data/foo\". route entry not found."]}"#,
            r#"{"errors":[],"warnings":["Invalid path for a versioned K/V secrets engine"]}"#,
            r#"{"errors":["something new"]}"#,
            "<html>nginx</html>",
            "",
            "{}",
        ] {
            assert!(answer(404, body).is_err(), "{body}");
        }
        for status in [400, 403, 405, 412, 429, 500, 502, 503] {
            assert!(answer(status, r#"{"errors":[]}"#).is_err(), "{status}");
        }
    }

    #[test]
    fn an_answer_of_another_shape_is_an_error_and_not_an_empty_secret() {
        for body in [
            "",
            "[]",
            r#"{"data":{"password":"x"}}"#,
            r#"{"data":[]}"#,
            r#"{"data":{"data":[1]}}"#,
        ] {
            assert!(answer(200, body).is_err(), "{body}");
        }
    }

    #[test]
    fn a_version_of_kv_v1_is_refused() {
        let kv = Kv {
            mount: Some("kv".into()),
            version: KvVersion::V1,
        };
        assert!(kv.locate("a").unwrap().read(Some(1)).is_err());
    }
}
