//! The KV engine: from a key as users write it to a path, and from an answer to its meaning.

mod mount;

use std::collections::BTreeMap;
use std::sync::Arc;

use rustify::endpoint::Endpoint;
use vaultrs::api::kv1::requests::{GetSecretRequest, ListSecretRequest};
use vaultrs::api::kv2::requests::{ListSecretsRequest, ReadSecretMetadataRequest, ReadSecretRequest};

use super::error::{Unreachable, VaultError, known_phrase};
use super::json::{Json, JsonError};
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
    /// Empty for the whole mount, which can only be listed.
    path: String,
    version: KvVersion,
}

/// What is asked about a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// The secret; of the latest version, or of this one.
    Value(Option<u64>),
    /// Its metadata (KV v2): an object of strings.
    Metadata,
    /// The names in this folder, those of folders with a `/` at the end: an array of strings.
    Names,
}

impl Question {
    /// One word for metrics and messages.
    #[must_use]
    pub fn operation(self) -> &'static str {
        match self {
            Self::Value(_) | Self::Metadata => "read",
            Self::Names => "list",
        }
    }
}

/// Whether that which was asked for is there.
#[derive(Clone)]
pub enum KvAnswer {
    /// It is, in the form that [`Question`] tells.
    Found(Arc<Json>),
    /// A clean 'not found' of an unsealed, authorised Vault about the mount that the store names: the only answer that
    /// may delete anything.
    Missing,
}

/// What an answer says by itself.
pub enum Told {
    /// It is there, in the form that [`Question`] tells.
    Found(Arc<Json>),
    /// 'Not found', which other engines and folders that are no mount say too: [`SecretPath::mount_call`] asks whether
    /// it is the engine's that the store names.
    NotFound,
}

impl Kv {
    /// The forms `foo`, `/foo`, `secret/foo` and `secret/data/foo` name one secret of the mount
    /// `secret`, as in ESO; without a mount the key is the API's path with or without `data`.
    ///
    /// # Errors
    /// If the key is empty, leaves the mount or holds control characters.
    pub fn locate(&self, key: &str) -> Result<SecretPath, VaultError> {
        let located = self.split(key)?;
        if located.mount.is_empty() || located.path.is_empty() {
            let why = match self.mount {
                None if !key.trim_matches('/').is_empty() => {
                    "names no mount, and the store has no path; set spec.provider.vault.path"
                }
                _ => "names no secret below the mount",
            };
            return Err(VaultError::BadRequest(format!(
                "key '{}' {why}",
                key.trim_matches('/')
            )));
        }
        Ok(located)
    }

    /// A folder, in the same forms; an empty one is the whole mount.
    ///
    /// # Errors
    /// As [`Self::locate`], and if there is no mount to look through.
    pub fn folder(&self, path: &str) -> Result<SecretPath, VaultError> {
        let located = self.split(path)?;
        if located.mount.is_empty() {
            return Err(VaultError::BadRequest(
                "there is no mount to look through: the store has no path; set spec.provider.vault.path, or begin \
                 find.path with the mount"
                    .into(),
            ));
        }
        Ok(located)
    }

    fn split(&self, key: &str) -> Result<SecretPath, VaultError> {
        check_key(key)?;
        let key = key.trim_matches('/');
        let v2 = self.version == KvVersion::V2;
        let whole = format!("{key}/");
        let (mount, path) = match &self.mount {
            Some(mount) => {
                let mount = mount.trim_matches('/');
                match key.strip_prefix(mount).and_then(|rest| rest.strip_prefix('/')) {
                    Some(rest) if v2 => (mount, rest.strip_prefix("data/").unwrap_or(rest)),
                    Some(rest) => (mount, rest),
                    None => (mount, key),
                }
            }
            None if v2 && whole.contains("/data/") => whole.split_once("/data/").unwrap_or_default(),
            None => whole.split_once('/').unwrap_or_default(),
        };
        Ok(SecretPath {
            mount: mount.into(),
            path: path.trim_end_matches('/').into(),
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
    /// What stands below this folder under this relative path.
    ///
    /// # Errors
    /// If the path leaves the folder.
    pub fn below(&self, path: &str) -> Result<Self, VaultError> {
        check_key(path)?;
        let mut below = self.clone();
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            if !below.path.is_empty() {
                below.path.push('/');
            }
            below.path.push_str(segment);
        }
        Ok(below)
    }

    /// The path as a rule of its store names it: below the mount, or beginning with it if the store names none.
    /// Empty segments are left out, as they are in the request.
    #[must_use]
    pub fn within(&self, kv: &Kv) -> String {
        let mount = kv.mount.is_none().then_some(self.mount.as_str());
        let parts = mount.into_iter().chain([self.path.as_str()]);
        let segments = parts.flat_map(|part| part.split('/'));
        let segments: Vec<&str> = segments.filter(|segment| !segment.is_empty()).collect();
        segments.join("/")
    }

    /// The request that asks.
    ///
    /// # Errors
    /// If the path cannot be written as a URL, or KV v1 does not know the question.
    pub fn call(&self, question: Question) -> Result<Call, VaultError> {
        let refuse = |why: &str| Err(VaultError::BadRequest(why.into()));
        match (self.version, question) {
            (KvVersion::V2, Question::Value(version)) => {
                let mut request = ReadSecretRequest::builder();
                request
                    .mount(self.mount.as_str())
                    .path(self.path.as_str())
                    .version(version);
                built(request.build().ok())
            }
            (KvVersion::V2, Question::Metadata) => {
                let mut request = ReadSecretMetadataRequest::builder();
                request.mount(self.mount.as_str()).path(self.path.as_str());
                built(request.build().ok())
            }
            (KvVersion::V2, Question::Names) => {
                let mut request = ListSecretsRequest::builder();
                request.mount(self.mount.as_str()).path(self.path.as_str());
                built(request.build().ok())?.as_list()
            }
            (KvVersion::V1, Question::Value(None)) => {
                let mut request = GetSecretRequest::builder();
                request.mount(self.mount.as_str()).path(self.path.as_str());
                built(request.build().ok())
            }
            (KvVersion::V1, Question::Names) => {
                let mut request = ListSecretRequest::builder();
                request.mount(self.mount.as_str()).path(self.path.as_str());
                built(request.build().ok())?.as_list()
            }
            (KvVersion::V1, Question::Value(Some(_))) => {
                refuse("remoteRef.version needs KV v2, and the store says version v1")
            }
            (KvVersion::V1, Question::Metadata) => refuse(
                "cannot perform metadata fetch operations with kv version v1; remove metadataPolicy, or read from a \
                 store with version v2",
            ),
        }
    }

    /// The version of the engine, as the store says.
    #[must_use]
    pub fn version(&self) -> KvVersion {
        self.version
    }

    /// The path as Vault's policies name it, for messages.
    #[must_use]
    pub fn policy_path(&self, question: Question) -> String {
        let part = match (self.version, question) {
            (KvVersion::V1, _) => "",
            (KvVersion::V2, Question::Value(_)) => "/data",
            (KvVersion::V2, Question::Metadata | Question::Names) => "/metadata",
        };
        let mut path = format!("{}{part}", self.mount);
        if !self.path.is_empty() {
            path.push('/');
            path.push_str(&self.path);
        }
        if question == Question::Names {
            path.push_str("/*");
        }
        path
    }

    /// Why a read failed and what to do, by where it went.
    #[must_use]
    pub fn explain(&self, question: Question, error: &VaultError) -> String {
        let VaultError::Status { status, phrase } = error else {
            return error.to_string();
        };
        let advice = match (status, phrase) {
            (404, Some("no handler for route")) => {
                "no engine is mounted there; enable one, or correct the path of the store"
            }
            (405, _) | (404, Some("unsupported path" | "unsupported operation")) => {
                "what is mounted there does not serve this; correct the path or the version of the store"
            }
            (500.., _) => return error.to_string(),
            (412, _) => {
                "its node is behind the rest of the cluster; it is asked again. If it stays so, set forwardInconsistent in \
                 the store, or see to the replication"
            }
            (472..=474, _) | (_, Some("unavailable for a brief period")) => {
                "it is not served at this moment; it is asked again"
            }
            _ => "check the key, and the path and the version of the store",
        };
        let (operation, path) = (question.operation(), self.policy_path(question));
        format!("{error} to the {operation} of '{path}': {advice}")
    }

    /// Reads the meaning of the answer to [`Self::call`].
    ///
    /// # Errors
    /// Everything but what was asked for and a clean 'not found'.
    pub fn answer(&self, question: Question, reply: Reply) -> Result<Told, VaultError> {
        if reply.status == 404 {
            return Self::not_found(&reply.body);
        }
        let body = reply.success()?;
        let levels = match (question, self.version) {
            (Question::Value(_), KvVersion::V1) => 2,
            _ => 3,
        };
        let mut root = parse(&body, levels)?.into_object().ok_or(VaultError::NotVault)?;
        let data = root.remove("data").ok_or(VaultError::NotVault)?;
        match question {
            Question::Value(_) => self.value(data),
            Question::Metadata => metadata(data),
            Question::Names => names(data),
        }
    }

    fn value(&self, data: Json) -> Result<Told, VaultError> {
        let mut outer = object(data)?;
        if self.version == KvVersion::V1 {
            return Ok(Told::Found(Arc::new(Json::Object(outer))));
        }
        match outer.remove("data") {
            Some(data @ Json::Object(_)) => Ok(Told::Found(Arc::new(data))),
            Some(Json::Null) if is_deleted(&outer) => Ok(Told::NotFound),
            _ => Err(VaultError::BadAnswer(
                "the answer has no field 'data.data'; is the engine KV v1? Then set version: v1 in the store",
            )),
        }
    }

    /// Vault answers 404 to a missing secret, a deleted version, an unknown mount, and a path of the
    /// wrong KV version. Only the first two mean that the secret is gone.
    fn not_found(body: &[u8]) -> Result<Told, VaultError> {
        let phrase = known_phrase(body);
        if phrase.is_some() {
            return Err(VaultError::Status { status: 404, phrase });
        }
        let root = parse(body, 3).ok().and_then(Json::into_object);
        let root = root.ok_or(VaultError::NotVault)?;
        if matches!(root.get("warnings"), Some(Json::Array(warnings)) if !warnings.is_empty()) {
            return Err(VaultError::BadAnswer(
                "Vault answered 404 with a warning about the path; does the store's version (v1 or v2) fit the engine?",
            ));
        }
        match (root.get("errors"), root.get("data")) {
            (Some(Json::Array(errors)), _) if errors.is_empty() => Ok(Told::NotFound),
            (Some(Json::Array(_)), _) => Err(VaultError::Status {
                status: 404,
                phrase: None,
            }),
            (None, Some(Json::Object(version))) if is_deleted(version) => Ok(Told::NotFound),
            _ => Err(VaultError::NotVault),
        }
    }
}

/// A version that was deleted or destroyed still has metadata, which say so.
fn is_deleted(version: &BTreeMap<String, Json>) -> bool {
    let Some(Json::Object(metadata)) = version.get("metadata") else {
        return false;
    };
    let deleted = metadata.get("deletion_time").and_then(Json::as_str);
    deleted.is_some_and(|time| !time.is_empty()) || metadata.get("destroyed") == Some(&Json::Bool(true))
}

fn object(data: Json) -> Result<BTreeMap<String, Json>, VaultError> {
    data.into_object().ok_or(VaultError::BadAnswer(
        "the answer's field 'data' is not a JSON object; check what stands in front of Vault",
    ))
}

/// What ESO shows of the metadata, all as text; the user's own entries win over the engine's.
fn metadata(data: Json) -> Result<Told, VaultError> {
    const SHOWN: [&str; 3] = ["created_time", "current_version", "delete_version_after"];
    let mut data = object(data)?;
    if !data.contains_key("current_version") {
        return Err(VaultError::BadAnswer(
            "the answer to the read of metadata has no field 'data.current_version'; is the engine KV v2?",
        ));
    }
    let custom = data.remove("custom_metadata").and_then(Json::into_object);
    data.retain(|key, value| SHOWN.contains(&key.as_str()) && *value != Json::Null);
    data.extend(custom.into_iter().flatten());
    let as_text = |value: Json| match value {
        Json::String(_) => value,
        other => Json::String(other.to_go_string()),
    };
    let texts = data.into_iter().map(|(key, value)| (key, as_text(value)));
    Ok(Told::Found(Arc::new(Json::Object(texts.collect()))))
}

/// Vault answers 404 to a folder without entries: a list that is empty all the same says nothing.
fn names(data: Json) -> Result<Told, VaultError> {
    let keys = object(data)?.remove("keys").unwrap_or_default();
    match &keys {
        Json::Array(names) if !names.is_empty() && names.iter().all(|name| name.as_str().is_some()) => {
            Ok(Told::Found(Arc::new(keys)))
        }
        _ => Err(VaultError::BadAnswer(
            "the answer to the list has no names in its field 'data.keys'",
        )),
    }
}

fn built<E: Endpoint>(endpoint: Option<E>) -> Result<Call, VaultError> {
    let endpoint =
        endpoint.ok_or_else(|| VaultError::BadRequest("the path of the secret is incomplete".into()))?;
    Call::new(&endpoint)
}

/// Levels: those of the answer itself, and one of what it tells. Whatever is nested in a value stays text.
fn parse(body: &[u8], levels: usize) -> Result<Json, VaultError> {
    Json::parse_levels(body, levels).map_err(|error| match error {
        JsonError::Truncated if !body.is_empty() => VaultError::Unreachable(Unreachable::Broken),
        JsonError::Truncated | JsonError::Syntax { .. } => VaultError::NotVault,
        JsonError::Unicode => VaultError::BadAnswer("Vault's answer holds a text that is not valid Unicode"),
        JsonError::TooLarge => VaultError::BadAnswer(
            "Vault's answer holds too many members and elements: they take more than 40 MiB in memory; keep fewer in one \
             secret",
        ),
        JsonError::TooDeep => {
            VaultError::BadAnswer("Vault's answer is nested more than 128 levels deep and was not read")
        }
    })
}

#[cfg(test)]
mod tests;
