//! Which engine is mounted where a store looks.

use std::collections::BTreeMap;

use rustify::endpoint::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use serde::Deserialize;

use super::{SecretPath, VaultError};
use crate::api::vault::KvVersion;
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
    path: String,
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

    /// Reads the answer to [`Self::mount_call`]: what is not found there is missing only if a mount has just the path and
    /// the version that the store names. Vault answers about the mount that the path lies in: below the folder `data` of
    /// a mount nothing is ever found. A KV v1 engine has every path of KV v2, and nothing in it. That the identity may
    /// look there is told by both answers: Vault says 403 first.
    ///
    /// The answer names the whole path from the root if the mount is of a namespace below that of the request.
    ///
    /// # Errors
    /// If it is another mount or engine, or that could not be found out.
    pub fn confirm_missing(&self, reply: Reply, namespace: Option<&str>) -> Result<(), VaultError> {
        let (mount, version) = (&self.mount, self.version);
        let unknown = |why: String| {
            VaultError::BadRequest(format!(
                "Vault did not find it, but whether mount '{mount}' is a KV {version} engine, as the store says, could \
                 not be confirmed: {why} to 'sys/internal/ui/mounts/{mount}'; nothing is taken for missing until it is"
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
        let found = within(&answer.data.path, namespace);
        let is = answer.data.options.unwrap_or_default().remove("version");
        if found != mount {
            let rest = mount.strip_prefix(found).and_then(|rest| rest.strip_prefix('/'));
            // What is no part of the path is not shown: it may be anything.
            let rest = rest.ok_or_else(|| unknown("an answer about another mount came".into()))?;
            return Err(self.inside(found, rest));
        }
        let is = match (answer.data.kind.as_str(), is.as_deref()) {
            ("kv", Some("2")) => KvVersion::V2,
            ("kv" | "generic", None | Some("1")) => KvVersion::V1,
            ("kv" | "generic", _) => return Err(unknown("an answer of unknown form came".into())),
            _ => {
                return Err(VaultError::BadRequest(format!(
                    "mount '{mount}' is no KV engine; correct path in the store"
                )));
            }
        };
        if is != version {
            return Err(VaultError::BadRequest(format!(
                "mount '{mount}' is a KV {is} engine, and the store says version {version}; set version: {is} in the \
                 store"
            )));
        }
        Ok(())
    }

    /// What the store names is a folder of this mount.
    fn inside(&self, found: &str, rest: &str) -> VaultError {
        // `data` and `metadata` are of the API of KV v2, as people copy them from policies.
        let folder = match (self.version, rest.split_once('/').unwrap_or((rest, ""))) {
            (KvVersion::V2, ("data" | "metadata", below)) => below,
            _ => rest,
        };
        let keys = match folder {
            "" => String::new(),
            folder => format!(", and begin its keys with '{folder}/'"),
        };
        VaultError::BadRequest(format!(
            "Vault did not find it, but '{}' is no mount: it lies inside mount '{found}', so nothing is taken for \
             missing; set path: {found} in the store{keys}",
            self.mount
        ))
    }
}

/// The path of a mount as a request in this namespace names it.
fn within<'a>(path: &'a str, namespace: Option<&str>) -> &'a str {
    let path = path.trim_matches('/');
    let namespace = namespace.unwrap_or_default().trim_matches('/');
    let below = path
        .strip_prefix(namespace)
        .and_then(|rest| rest.strip_prefix('/'));
    below.filter(|_| !namespace.is_empty()).unwrap_or(path)
}
