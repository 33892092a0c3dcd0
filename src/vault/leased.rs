//! Answers whose values are leased: `database/creds/x`, `aws/creds/x` and their like make a credential for every read,
//! and end it with its lease, or with the token that asked.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::kv::{Question, SecretPath};
use crate::api::vault::KvVersion;

/// The longest that a lease is taken to last, and what one without an end is taken for.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The terms of a lease. Its name stays out of it: nobody needs it, and whoever knows it may renew or end the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long it lasts from the answer on, if nobody renews it.
    pub lasts: Duration,
}

/// Only what tells a lease of an answer.
#[derive(Deserialize)]
struct Envelope {
    lease_id: Option<String>,
    lease_duration: Option<Value>,
}

/// The terms of the answer to a question, if its values are leased. KV v1 answers with a duration and without a lease:
/// only one with a name can end.
#[must_use]
pub fn terms(path: &SecretPath, question: Question, body: &[u8]) -> Option<Terms> {
    // KV v2 never leases, and names are no credentials: nothing is looked through twice for them.
    if path.version() != KvVersion::V1 || !matches!(question, Question::Value(_)) {
        return None;
    }
    let envelope: Envelope = serde_json::from_slice(body).ok()?;
    envelope.lease_id.filter(|id| !id.is_empty())?;
    let seconds = envelope.lease_duration.as_ref().and_then(Value::as_u64);
    let lasts = seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs);
    Some(Terms {
        lasts: lasts.unwrap_or(LONGEST).min(LONGEST),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::vault::kv::Kv;

    fn seconds(version: KvVersion, question: Question, body: &str) -> Option<u64> {
        let mount = Some("database".into());
        let path = Kv { mount, version }.locate("creds/app").unwrap();
        terms(&path, question, body.as_bytes()).map(|terms| terms.lasts.as_secs())
    }

    #[test]
    fn only_an_answer_with_the_name_of_a_lease_is_leased() {
        let value = Question::Value(None);
        for (body, wanted) in [
            (
                r#"{"lease_id":"database/creds/app/x","lease_duration":3600,"renewable":true,"data":{}}"#,
                Some(3600),
            ),
            // A proper KV v1 says how often one might look again.
            (
                r#"{"lease_id":"","lease_duration":2764800,"renewable":false,"data":{}}"#,
                None,
            ),
            (r#"{"lease_id":null,"lease_duration":60,"data":{}}"#, None),
            (r#"{"data":{"lease_id":"x","lease_duration":60}}"#, None),
            (
                r#"{"lease_id":"x","data":{"lease_id":"","lease_duration":1}}"#,
                Some(LONGEST.as_secs()),
            ),
            (r#"{"lease_id":"x","lease_duration":0}"#, Some(LONGEST.as_secs())),
            (r#"{"lease_id":"x","lease_duration":-1}"#, Some(LONGEST.as_secs())),
            (
                r#"{"lease_id":"x","lease_duration":18446744073709551615}"#,
                Some(LONGEST.as_secs()),
            ),
            ("not JSON", None),
        ] {
            assert_eq!(seconds(KvVersion::V1, value, body), wanted, "{body}");
        }
        let leased = r#"{"lease_id":"x","lease_duration":60}"#;
        assert_eq!(seconds(KvVersion::V2, value, leased), None);
        assert_eq!(seconds(KvVersion::V1, Question::Names, leased), None);
    }
}
