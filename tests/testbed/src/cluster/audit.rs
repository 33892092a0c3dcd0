//! The API server's audit log.

use std::collections::HashMap;

use serde::Deserialize;

/// The user name of the operator's ServiceAccount.
const OPERATOR: &str = "system:serviceaccount:security:keyferry";

/// One request as the API server noted it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// Verb.
    pub verb: String,
    /// Path with query.
    #[serde(rename = "requestURI")]
    pub uri: String,
    user: AuditUser,
    object_ref: Option<AuditObject>,
    response_status: Option<AuditStatus>,
    /// When the request arrived.
    pub request_received_timestamp: String,
    /// When the answer was complete.
    pub stage_timestamp: String,
}

#[derive(Clone, Debug, Deserialize)]
struct AuditUser {
    #[serde(default)]
    username: String,
    #[serde(default)]
    extra: HashMap<String, Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct AuditObject {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
struct AuditStatus {
    #[serde(default)]
    code: u16,
}

impl AuditEvent {
    /// Whether the operator asked, by the ServiceAccount that the chart makes.
    #[must_use]
    pub fn is_operators(&self) -> bool {
        self.user.username == OPERATOR
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn reads(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// Which token it was shown, if it was one of a ServiceAccount: of several programs with one account each has
    /// its own.
    #[must_use]
    pub fn credential(&self) -> Option<&str> {
        let ids = self
            .user
            .extra
            .get("authentication.kubernetes.io/credential-id")?;
        ids.first().map(String::as_str)
    }

    /// `secrets`, or `externalsecrets/status`.
    #[must_use]
    pub fn resource(&self) -> String {
        let object = self.object_ref.clone().unwrap_or_default();
        if object.subresource.is_empty() {
            object.resource
        } else {
            format!("{}/{}", object.resource, object.subresource)
        }
    }

    /// Namespace and name of the object.
    #[must_use]
    pub fn object(&self) -> (String, String) {
        let object = self.object_ref.clone().unwrap_or_default();
        (object.namespace, object.name)
    }

    /// HTTP status.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.response_status.as_ref().map_or(0, |status| status.code)
    }
}
