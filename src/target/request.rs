//! Requests about objects that hold values, and what their refusals are told as.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::core::Status;

use super::apply::ApplyError;
use crate::refusal;

pub(super) const TIMEOUT: Duration = Duration::from_secs(15);
/// Rounds of reading and writing when somebody else writes the same object at the same time.
pub(super) const ROUNDS: usize = 4;

/// An object that something is asked about.
#[derive(Clone, Debug)]
pub(super) struct About {
    /// For example `Secret db/app`.
    pub what: String,
    /// How the right to it is given, if there is more to say than that it is missing.
    pub right: &'static str,
    /// What has to be compared where it is refused.
    pub compare: &'static str,
}

impl About {
    /// A Secret.
    pub fn secret(namespace: &str, name: &str) -> Self {
        Self::object::<Secret>(namespace, name)
    }

    /// An object of a kind that Kubernetes itself serves.
    pub fn object<K: kube::Resource<DynamicType = ()>>(namespace: &str, name: &str) -> Self {
        Self {
            what: format!("{} {namespace}/{name}", K::kind(&())),
            right: "",
            compare: "compare its type, keys, labels and annotations with what Kubernetes takes",
        }
    }

    /// Asks. `None` means that the object was changed, made or deleted by somebody else meanwhile.
    pub async fn ask<T>(
        &self,
        verb: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<Option<T>, ApplyError> {
        match tokio::time::timeout(TIMEOUT, call).await {
            Ok(Ok(value)) => Ok(Some(value)),
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(None),
            Ok(Err(kube::Error::Api(status)))
                if status.code == 404 && !is_without_namespace(&status, verb) =>
            {
                Ok(None)
            }
            Ok(Err(error)) => Err(self.refused(verb, &error)),
            Err(_) => Err(late()),
        }
    }

    /// Somebody else was faster.
    pub fn overtaken(&self) -> ApplyError {
        ApplyError::Overtaken(self.what.clone())
    }

    /// An error of the API server, without its message.
    pub fn refused(&self, verb: &str, error: &kube::Error) -> ApplyError {
        let kube::Error::Api(status) = error else {
            return ApplyError::Unreachable("the API server cannot be reached".into());
        };
        let (what, told) = (&self.what, refusal::told(status));
        if !(400..500).contains(&status.code) || status.code == 429 {
            return ApplyError::Unreachable(format!(
                "the API server answered {told} to the request to {verb} {what}"
            ));
        }
        ApplyError::Refused(match status.code {
            403 if refusal::has_cause(status, "NamespaceTerminating") => {
                format!("{what} cannot be made: its namespace is being deleted")
            }
            403 => format!(
                "the operator may not {verb} {what} (403); give it the right{}, or look for a quota or an admission rule \
                 that forbids it",
                self.right
            ),
            404 => format!("the API server has no place for {what} (404); make its namespace"),
            _ => format!(
                "the API server refused to {verb} {what} ({told}); its message may quote a value and is not shown: {}",
                self.compare
            ),
        })
    }
}

/// The object is not what is missing, but its namespace.
fn is_without_namespace(status: &Status, verb: &str) -> bool {
    let of_namespaces = status
        .details
        .as_ref()
        .is_some_and(|details| details.kind == "namespaces");
    verb == "create" || of_namespaces
}

pub(super) fn late() -> ApplyError {
    ApplyError::Unreachable("the API server did not answer in time".into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn refused(answer: Value) -> ApplyError {
        let status = serde_json::from_value(answer).unwrap();
        About::secret("db", "app").refused("update", &kube::Error::Api(status))
    }

    #[test]
    fn what_the_api_server_says_is_told_without_the_values_that_it_quotes() {
        for code in [400, 401, 403, 404, 413, 422, 429, 500, 503] {
            let error = refused(json!({
                "code": code, "reason": "Invalid", "message": "data: Invalid value: \"hunter2\"",
                "details": {"causes": [
                    {"reason": "FieldValueInvalid", "field": "data[app.key]", "message": "\"hunter2\""},
                ]},
            }));
            let text = error.to_string();
            assert!(
                text.contains(&code.to_string()) && text.contains("Secret db/app"),
                "{text}"
            );
            assert!(!text.contains("hunter2"), "{text}");
            let passes = matches!(error, ApplyError::Unreachable(_));
            assert_eq!(passes, code == 429 || code >= 500, "{text}");
        }
    }

    #[test]
    fn a_namespace_that_is_being_deleted_is_told_as_such() {
        let answer = json!({"code": 403, "details": {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}});
        assert!(
            refused(answer)
                .to_string()
                .contains("its namespace is being deleted")
        );
    }
}
