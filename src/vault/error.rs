//! The meaning of every answer that is not the one asked for.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Why no answer came at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unreachable {
    /// The host name was not found.
    Dns,
    /// Nothing listens there.
    Refused,
    /// The certificate is not trusted, or the other side speaks no TLS.
    Tls,
    /// No answer in time.
    Timeout,
    /// The connection broke.
    Broken,
}

/// A Vault that cannot serve anybody at this moment. No fault of the objects that use it (promise 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outage {
    /// Sealed: somebody must unseal it.
    Sealed,
    /// Never initialised.
    Uninitialized,
    /// Up, but the cluster has no active node.
    NoActiveNode,
    /// No connection.
    Unreachable(Unreachable),
    /// Answers, but only with this HTTP status.
    Failing(u16),
}

impl Outage {
    /// One word for a condition's reason.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Sealed => "VaultSealed",
            Self::Uninitialized => "VaultUninitialized",
            Self::NoActiveNode => "VaultNoActiveNode",
            Self::Unreachable(Unreachable::Dns) => "VaultDNSFailure",
            Self::Unreachable(Unreachable::Refused) => "VaultConnectionRefused",
            Self::Unreachable(Unreachable::Tls) => "VaultTLSFailure",
            Self::Unreachable(Unreachable::Timeout) => "VaultTimeout",
            Self::Unreachable(Unreachable::Broken) => "VaultConnectionBroken",
            Self::Failing(_) => "VaultFailing",
        }
    }

    /// What is wrong and what to do, to follow the server's name.
    #[must_use]
    pub fn sentence(self) -> String {
        match self {
            Self::Sealed => "is sealed; unseal it".into(),
            Self::Uninitialized => "is not initialised; run 'vault operator init'".into(),
            Self::NoActiveNode => "has no active node that answers; its cluster is electing a leader, has lost its quorum, \
                                   or its nodes do not reach each other's cluster_addr"
                .into(),
            Self::Unreachable(Unreachable::Dns) => {
                "is unreachable: its host name was not found; check spec.provider.vault.server".into()
            }
            Self::Unreachable(Unreachable::Refused) => {
                "is unreachable: connection refused; nothing listens on that port".into()
            }
            Self::Unreachable(Unreachable::Tls) => {
                "is unreachable: no trusted TLS connection; check its certificate, and caBundle or caProvider of the store"
                    .into()
            }
            Self::Unreachable(Unreachable::Timeout) => {
                "is unreachable: no answer in time; check the network between the operator and Vault".into()
            }
            Self::Unreachable(Unreachable::Broken) => {
                "is unreachable: the connection was closed before an answer came".into()
            }
            Self::Failing(status) => format!("answers HTTP {status} to its health check"),
        }
    }
}

/// Phrases of Vault that are worth showing. A body may echo what was sent, so only what is in this
/// table ever reaches a message (promise 8).
const KNOWN_PHRASES: &[&str] = &[
    "service account name not authorized",
    "namespace not authorized",
    "invalid audience",
    "invalid role name",
    "service account unauthorized",
    "claim \"iss\" is invalid",
    "token is expired",
    "missing client token",
    "permission denied",
    "Vault is sealed",
    "local node not active but active cluster node not found",
    "no active Vault instance found",
    "no handler for route",
    "unsupported path",
    "unsupported operation",
    "rate limit quota exceeded",
    "lease count quota exceeded",
    "bad token",
    "invalid token",
    "token not renewable",
    "lease is not renewable",
];

/// A request that Vault did not fulfil.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// No answer.
    #[error("no answer from Vault: {}", Outage::Unreachable(*.0).sentence())]
    Unreachable(Unreachable),
    /// The server as a whole is out of service.
    #[error("Vault {}", .0.sentence())]
    Outage(Outage),
    /// 429.
    #[error("Vault limits the rate of requests (HTTP 429{})", phrase_in_brackets(.phrase))]
    RateLimited {
        /// How long Vault asks to wait.
        retry_after: Option<Duration>,
        /// What Vault said, if it is known to be harmless.
        phrase: Option<&'static str>,
    },
    /// 403.
    #[error("Vault answered 403{}", phrase_in_brackets(.phrase))]
    Denied {
        /// What Vault said, if it is known to be harmless.
        phrase: Option<&'static str>,
    },
    /// Any other status that is not success.
    #[error("Vault answered {status}{}", phrase_in_brackets(.phrase))]
    Status {
        /// The HTTP status.
        status: u16,
        /// What Vault said, if it is known to be harmless.
        phrase: Option<&'static str>,
    },
    /// A redirect to another host, which a token must not follow.
    #[error(
        "Vault redirects to another host, which is not followed because the token would go along; name that host in spec.provider.vault.server"
    )]
    Redirected,
    /// Success, but not in a form that can be used.
    #[error("{0}")]
    BadAnswer(&'static str),
    /// The request could not be made from what the manifest says.
    #[error("{0}")]
    BadRequest(String),
}

fn phrase_in_brackets(phrase: &Option<&'static str>) -> String {
    phrase.map(|p| format!(" ({p})")).unwrap_or_default()
}

/// The first phrase of the table that the body holds.
#[must_use]
pub fn known_phrase(body: &[u8]) -> Option<&'static str> {
    // Vault's JSON escapes quotes, and the phrases are short: no parser is needed, and none can fail.
    let text = String::from_utf8_lossy(body).replace("\\\"", "\"");
    KNOWN_PHRASES
        .iter()
        .find(|phrase| text.contains(**phrase))
        .copied()
}

impl VaultError {
    /// Reads the meaning of a status that is not success.
    #[must_use]
    pub fn of_status(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let phrase = known_phrase(body);
        match (status, phrase) {
            (_, Some("Vault is sealed")) if status >= 500 => Self::Outage(Outage::Sealed),
            (
                _,
                Some(
                    "local node not active but active cluster node not found"
                    | "no active Vault instance found",
                ),
            ) if status >= 500 => Self::Outage(Outage::NoActiveNode),
            (429, _) => Self::RateLimited { retry_after, phrase },
            (403, _) => Self::Denied { phrase },
            (301 | 302 | 307 | 308, _) => Self::Redirected,
            _ => Self::Status { status, phrase },
        }
    }

    /// Whether the server itself may be at fault, so that it is worth asking for its health.
    #[must_use]
    pub fn casts_suspicion(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Outage(_) => true,
            // 472 and 474: a secondary, and a standby without an active node.
            Self::Status { status, .. } => *status >= 500 || matches!(status, 472 | 474),
            _ => false,
        }
    }

    /// One word for a metric's label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Outage(_) => "outage",
            Self::RateLimited { .. } => "rate_limited",
            Self::Denied { .. } => "denied",
            Self::Status { .. } => "status",
            Self::Redirected => "redirected",
            Self::BadAnswer(_) => "bad_answer",
            Self::BadRequest(_) => "bad_request",
        }
    }
}

impl Unreachable {
    /// The TLS library's error lies inside of one or more errors of I/O, out of reach of `source`.
    fn of_io(error: &std::io::Error) -> Option<Self> {
        match error.kind() {
            std::io::ErrorKind::ConnectionRefused => return Some(Self::Refused),
            std::io::ErrorKind::TimedOut => return Some(Self::Timeout),
            _ => {}
        }
        let inner = error.get_ref()?;
        if inner.is::<rustls::Error>() {
            return Some(Self::Tls);
        }
        Self::of_io(inner.downcast_ref::<std::io::Error>()?)
    }
}

impl From<&reqwest::Error> for Unreachable {
    /// Finds the cause at the bottom of the chain; the texts of the chain hold URLs and stay inside.
    fn from(error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Timeout;
        }
        let mut cause: Option<&dyn Error> = Some(error);
        while let Some(current) = cause {
            if current.is::<rustls::Error>() {
                return Self::Tls;
            }
            if let Some(kind) = current.downcast_ref::<std::io::Error>().and_then(Self::of_io) {
                return kind;
            }
            if current.to_string().contains("dns error") {
                return Self::Dns;
            }
            cause = current.source();
        }
        Self::Broken
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_echoes_a_value_reaches_no_message() {
        let error = VaultError::of_status(400, None, br#"{"errors":["cannot parse hunter2"]}"#);
        assert_eq!(error.to_string(), "Vault answered 400");
    }

    #[test]
    fn a_sealed_vault_is_an_outage_and_a_quota_is_not() {
        let sealed = VaultError::of_status(503, None, br#"{"errors":["Vault is sealed"]}"#);
        assert_eq!(sealed, VaultError::Outage(Outage::Sealed));
        let quota = VaultError::of_status(429, None, b"{}");
        assert!(!quota.casts_suspicion());
    }

    #[test]
    fn a_known_phrase_is_shown() {
        let error = VaultError::of_status(
            403,
            None,
            br#"{"errors":["service account name not authorized"]}"#,
        );
        assert_eq!(
            error.to_string(),
            "Vault answered 403 (service account name not authorized)"
        );
    }
}
