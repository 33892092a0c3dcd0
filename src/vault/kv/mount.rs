//! Which engine is mounted where a store looks.

use std::collections::BTreeMap;

use rustify::endpoint::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use serde::Deserialize;

use super::{SecretPath, VaultError};
use crate::vault::transport::{Call, Reply};

/// `GET sys/internal/ui/mounts/<mount>`, which the catalogue of vaultrs lacks. Whoever may read anything below a
/// mount may ask for its kind; Vault's own command line does so before it reads.
struct ReadMount(String);

impl Endpoint for ReadMount {
    type Response = MountAnswer;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        format!("/sys/internal/ui/mounts/{}", self.0)
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::GET
    }
}

#[derive(Deserialize)]
struct MountAnswer {
    data: Mount,
}

#[derive(Deserialize)]
struct Mount {
    #[serde(rename = "type")]
    kind: String,
    options: Option<BTreeMap<String, String>>,
}

impl SecretPath {
    /// The mount that it is looked for in.
    #[must_use]
    pub fn mount(&self) -> &str {
        &self.mount
    }

    /// The request that asks which engine is mounted there.
    ///
    /// # Errors
    /// If the mount cannot be written as a URL.
    pub fn mount_call(&self) -> Result<Call, VaultError> {
        Call::new(&ReadMount(self.mount.clone()))
    }

    /// Reads the answer to [`Self::mount_call`]: what is not found there is missing only if the engine is the one that
    /// the store names. A KV v1 engine has every path of KV v2, and nothing in it.
    ///
    /// # Errors
    /// If it is another engine, or that could not be found out.
    pub fn confirm_missing(&self, reply: Reply) -> Result<(), VaultError> {
        let mount = &self.mount;
        let unknown = |why: String| {
            VaultError::BadRequest(format!(
                "Vault did not find it, but whether mount '{mount}' is a KV v2 engine, as the store says, could not be \
                 confirmed: {why} to 'sys/internal/ui/mounts/{mount}'; nothing is taken for missing until it is"
            ))
        };
        let body = match reply.success() {
            Ok(body) => body,
            Err(limit @ VaultError::RateLimited { .. }) => return Err(limit),
            Err(error) if error.casts_suspicion() => return Err(error),
            Err(error) => return Err(unknown(error.to_string())),
        };
        // The error of serde_json is dropped: it may quote the body.
        let answer: MountAnswer =
            serde_json::from_slice(&body).map_err(|_| unknown("an answer of unknown form came".into()))?;
        let version = answer.data.options.unwrap_or_default().remove("version");
        match (answer.data.kind.as_str(), version.as_deref()) {
            ("kv", Some("2")) => Ok(()),
            ("kv" | "generic", _) => Err(VaultError::BadRequest(format!(
                "mount '{mount}' is a KV v1 engine, and the store says version v2; set version: v1 in the store"
            ))),
            _ => Err(VaultError::BadRequest(format!(
                "mount '{mount}' is no KV engine; correct path in the store"
            ))),
        }
    }
}
