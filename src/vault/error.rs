//! The meaning of every answer that is not the one asked for.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::memory::Busy;

/// Why no answer came at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unreachable {
    /// The host name was not found.
    Dns,
    /// Nothing listens there.
    Refused,
    /// No TLS.
    Tls(TlsFault),
    /// No answer in time.
    Timeout,
    /// The connection broke.
    Broken,
}

/// Why no TLS connection came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsFault {
    /// The certificate's authority is not trusted.
    UnknownAuthority,
    /// The certificate has expired.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// The certificate is for another name.
    WrongName,
    /// The other side speaks no TLS.
    NotTls,
    /// The other side ended the handshake.
    Refused,
    /// Anything else.
    Other,
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
    /// Something else answers at its address.
    NotVault,
}

impl TlsFault {
    /// What is wrong and what to do.
    fn sentence(self) -> &'static str {
        match self {
            Self::UnknownAuthority => {
                "its certificate is signed by an authority that is not trusted; name that authority's certificate in \
                 caBundle or caProvider of the store"
            }
            Self::Expired => "its certificate has expired; renew it",
            Self::NotYetValid => {
                "its certificate is not valid yet; check the clocks of its host and of this one"
            }
            Self::WrongName => {
                "its certificate is for another name than the one in spec.provider.vault.server; write there a name \
                 that the certificate has, or renew it with this one"
            }
            Self::NotTls => {
                "no TLS is spoken on that port; correct the port in spec.provider.vault.server, or begin it with http://"
            }
            Self::Refused => {
                "it ended the TLS handshake; if it asks for a client certificate, check that of the store"
            }
            Self::Other => {
                "no trusted TLS connection; check its certificate, and caBundle or caProvider of the store"
            }
        }
    }
}

impl Unreachable {
    /// What is wrong and what to do.
    fn sentence(self) -> &'static str {
        match self {
            Self::Dns => "its host name was not found; check spec.provider.vault.server",
            Self::Refused => {
                "connection refused; nothing listens on that port: start Vault, or correct spec.provider.vault.server"
            }
            Self::Tls(fault) => fault.sentence(),
            Self::Timeout => "no answer in time; check the network between the operator and Vault",
            Self::Broken => {
                "the connection broke before a whole answer came; check what stands between the operator and Vault"
            }
        }
    }
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
            Self::Unreachable(Unreachable::Tls(_)) => "VaultTLSFailure",
            Self::Unreachable(Unreachable::Timeout) => "VaultTimeout",
            Self::Unreachable(Unreachable::Broken) => "VaultConnectionBroken",
            Self::Failing(_) => "VaultFailing",
            Self::NotVault => "VaultNotRecognized",
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
            Self::Unreachable(why) => format!("is unreachable: {}", why.sentence()),
            Self::Failing(status) => failing(status),
            Self::NotVault => {
                "is not what answers there: its health check brought something else; check spec.provider.vault.server, \
                 and what stands in front of Vault"
                    .into()
            }
        }
    }
}

/// What a status of the health check means, as far as Vault and those in front of it are known to answer so.
fn failing(status: u16) -> String {
    let advice = match status {
        300..=399 => "it redirects; name the address where that leads in spec.provider.vault.server",
        400 => "if TLS is spoken on that port, begin spec.provider.vault.server with https://",
        472 => {
            "it is a disaster recovery secondary, which serves nobody; name the primary in spec.provider.vault.server"
        }
        530 => "it was removed from its cluster; let it join again, or name another node",
        500.. => "see the log of Vault and of what stands in front of it",
        _ => {
            "check spec.provider.vault.server, and that what stands in front of Vault lets v1/sys/health through"
        }
    };
    format!("answers HTTP {status} to its health check; {advice}")
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
    // AppRole. The second one goes on with the secret ID itself.
    "invalid role or secret ID",
    "invalid secret_id",
    "missing secret_id",
    "CIDR restrictions",
    // Users and LDAP.
    "invalid username or password",
    "invalid credentials",
    "failed to determine alias name from login request",
    "ldap backend not configured",
    "LDAP Result Code 200 \"Network Error\"",
    // JWT.
    "could not be found",
    "missing role",
    "missing token",
    "role with oidc role_type is not allowed",
    "could not load configuration",
    "no known key successfully validated the token signature",
    "error verifying token signature",
    "invalid issuer (iss) claim",
    "invalid subject (sub) claim",
    "aud claim does not match any bound audience",
    "audience claim found in JWT but no audiences bound to the role",
    "sub claim does not match bound subject",
    "does not match any associated bound claim values",
    // Certificates.
    "failed to match all constraints for this login certificate",
    "tls connection required",
    "client certificate must be supplied",
    "no client certificate found",
    // A dead token is told by this beside 'permission denied'.
    "invalid token",
    "bad token",
    "permission denied",
    "Vault is sealed",
    "local node not active but active cluster node not found",
    "no active Vault instance found",
    "no handler for route",
    "unsupported path",
    "unsupported operation",
    // KV v2, for a moment after it is enabled or upgraded.
    "unavailable for a brief period",
    "rate limit quota exceeded",
    "lease count quota exceeded",
    "token not renewable",
    "lease is not renewable",
    // The AWS auth method, and what STS answered to it.
    "entry for role",
    "does not belong to the role",
    "auth method iam not allowed",
    "error validating X-Vault-AWS-IAM-Server-ID header",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "error making upstream request",
];

/// A request that Vault did not fulfil.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// No answer.
    #[error("no answer from Vault: {}", .0.sentence())]
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
    #[error("Vault answered {status}{}{}", phrase_in_brackets(.phrase), look_into(*.status))]
    Status {
        /// The HTTP status.
        status: u16,
        /// What Vault said, if it is known to be harmless.
        phrase: Option<&'static str>,
    },
    /// A redirect that a token must not follow.
    #[error(
        "Vault redirects, which is followed only once and only to the same address, because the token goes along; name \
         the address where it leads in spec.provider.vault.server"
    )]
    Redirected,
    /// Something else answered.
    #[error(
        "the answer is not one of Vault's; check spec.provider.vault.server, and what stands in front of Vault"
    )]
    NotVault,
    /// A refusal that is not Vault's.
    #[error("something in front of Vault answered {status} with a web page; see its log")]
    InFront {
        /// The HTTP status.
        status: u16,
    },
    /// An answer of more bytes than it was given room for.
    #[error("Vault's answer is larger than {} and was not read; a Kubernetes Secret holds 1 MiB at most", size(*.0))]
    Larger(usize),
    /// There is no room for what would be made of the answer.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// Success, but not in a form that can be used.
    #[error("{0}")]
    BadAnswer(&'static str),
    /// The request could not be made from what the manifest says.
    #[error("{0}")]
    BadRequest(String),
}

fn size(bytes: usize) -> String {
    match bytes >> 20 {
        0 => format!("{} KiB", bytes >> 10),
        mib => format!("{mib} MiB"),
    }
}

fn phrase_in_brackets(phrase: &Option<&'static str>) -> String {
    phrase.map(|p| format!(" ({p})")).unwrap_or_default()
}

/// Whether a body is a page for people, with which proxies and firewalls answer whatever was asked.
#[must_use]
pub fn is_page(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"<")
}

fn look_into(status: u16) -> &'static str {
    match status {
        500.. => "; see the log of Vault and of what stands in front of it",
        _ => "",
    }
}

/// The first phrase of the table that the body holds.
#[must_use]
pub fn known_phrase(body: &[u8]) -> Option<&'static str> {
    if is_page(body) {
        return None;
    }
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
            (404, _) if is_page(body) => Self::NotVault,
            (400..500, _) if is_page(body) => Self::InFront { status },
            (403, _) => Self::Denied { phrase },
            (301 | 302 | 307 | 308, _) => Self::Redirected,
            _ => Self::Status { status, phrase },
        }
    }

    /// Whether Vault says that the token lives no more. Vaults before 1.12 do not say it: there a dead token looks
    /// like one without a policy.
    #[must_use]
    pub fn is_dead_token(&self) -> bool {
        matches!(
            self,
            Self::Denied {
                phrase: Some("invalid token" | "bad token")
            }
        )
    }

    /// Whether the server itself may be at fault, so that it is worth asking for its health.
    #[must_use]
    pub fn casts_suspicion(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Outage(_) | Self::NotVault | Self::InFront { .. } => true,
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
            Self::NotVault | Self::InFront { .. } | Self::Larger(_) | Self::BadAnswer(_) => "bad_answer",
            Self::Busy(_) => "busy",
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
        if let Some(error) = inner.downcast_ref::<rustls::Error>() {
            return Some(Self::Tls(error.into()));
        }
        Self::of_io(inner.downcast_ref::<std::io::Error>()?)
    }
}

impl From<&rustls::Error> for TlsFault {
    fn from(error: &rustls::Error) -> Self {
        use rustls::CertificateError::{
            Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
            NotValidYetContext, UnknownIssuer,
        };
        match error {
            rustls::Error::InvalidCertificate(fault) => match fault {
                UnknownIssuer => Self::UnknownAuthority,
                Expired | ExpiredContext { .. } => Self::Expired,
                NotValidYet | NotValidYetContext { .. } => Self::NotYetValid,
                NotValidForName | NotValidForNameContext { .. } => Self::WrongName,
                _ => Self::Other,
            },
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            rustls::Error::AlertReceived(_) => Self::Refused,
            _ => Self::Other,
        }
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
            if let Some(error) = current.downcast_ref::<rustls::Error>() {
                return Self::Tls(error.into());
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
    fn a_page_that_refuses_is_neither_a_missing_policy_nor_a_missing_mount() {
        let of = |status| VaultError::of_status(status, None, b" <html>permission denied hunter2");
        assert_eq!(of(403), VaultError::InFront { status: 403 });
        assert!(!of(403).to_string().contains("hunter2"));
        assert_eq!(of(404), VaultError::NotVault);
        assert!(matches!(of(429), VaultError::RateLimited { .. }));
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
