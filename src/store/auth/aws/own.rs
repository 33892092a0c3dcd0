//! The AWS identity that the operator's own pod was given: by IRSA or by EKS Pod Identity, as the pod's environment
//! says it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use aws_credential_types::Credentials as Keys;
use serde::Deserialize;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::sts::Sts;
use super::{keys, wire};

/// Addresses where AWS hands out keys without TLS: its containers' agents, IPv4 and IPv6.
const AGENTS: &[&str] = &["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// How the pod proves who it is.
#[derive(Debug, PartialEq, Eq)]
pub enum Own {
    /// A ServiceAccount token in a file, for a role.
    WebIdentity {
        /// ARN of the role.
        role: String,
        /// The file.
        token: PathBuf,
    },
    /// An agent beside the pod hands out keys.
    Agent {
        /// Its address.
        url: Url,
        /// File with the token that it wants to see.
        token: Option<PathBuf>,
    },
}

/// The agent's answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Handed {
    access_key_id: Zeroizing<String>,
    secret_access_key: Zeroizing<String>,
    token: Zeroizing<String>,
}

impl Own {
    /// What the environment says; of both the first in ESO's order.
    ///
    /// # Errors
    /// Which variable is missing or unfit, and what to do.
    pub fn find(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        if let Some(token) = variable("AWS_WEB_IDENTITY_TOKEN_FILE") {
            let role = variable("AWS_ROLE_ARN").ok_or(
                "the operator's pod has AWS_WEB_IDENTITY_TOKEN_FILE but no AWS_ROLE_ARN; annotate its ServiceAccount \
                 with eks.amazonaws.com/role-arn and restart it",
            )?;
            return Ok(Self::WebIdentity {
                role,
                token: token.into(),
            });
        }
        let Some(url) = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI") else {
            return Err(
                "the operator has no AWS identity of its own; set auth.iam.secretRef or auth.iam.jwt.serviceAccountRef, \
                 or give its ServiceAccount an IAM role (IRSA or EKS Pod Identity)"
                    .into(),
            );
        };
        let url = Url::parse(&url).ok().filter(may_be_asked).ok_or(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI of the operator's pod is neither https nor the address of an agent \
             beside it",
        )?;
        Ok(Self::Agent {
            url,
            token: variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(PathBuf::from),
        })
    }

    /// Temporary keys.
    ///
    /// # Errors
    /// What went wrong and what to do.
    pub async fn keys(&self, sts: &Sts<'_>) -> Result<Keys, String> {
        match self {
            Self::WebIdentity { role, token } => {
                let token = text(token).await?;
                sts.assume_role_with_web_identity(role, &token).await
            }
            Self::Agent { url, token } => {
                let proof = match token {
                    Some(file) => Some(text(file).await?),
                    None => None,
                };
                let headers = proof.iter().map(|proof| ("authorization", proof.trim()));
                ask(url, wire::sensitive(headers)?).await
            }
        }
    }
}

async fn ask(url: &Url, headers: reqwest::header::HeaderMap) -> Result<Keys, String> {
    let failed = |why: &str| format!("no AWS keys for the operator's pod: the agent at {url} {why}");
    let request = wire::direct_client()?.get(url.clone()).headers(headers);
    let answer = wire::exchange(request).await.map_err(failed)?;
    if answer.status != 200 {
        return Err(failed(&format!(
            "answered {}; check the pod identity association of the operator's ServiceAccount",
            answer.status
        )));
    }
    // The error of serde_json is dropped: it may quote the body.
    let handed: Handed =
        serde_json::from_slice(&answer.body).map_err(|_| failed("answered in a form that is not known"))?;
    keys(
        handed.access_key_id.as_bytes(),
        handed.secret_access_key.as_bytes(),
        Some(handed.token.as_bytes()),
    )
    .map_err(|error| failed(&format!("answered keys that cannot be: {error}")))
}

async fn text(file: &Path) -> Result<Zeroizing<String>, String> {
    tokio::fs::read_to_string(file)
        .await
        .map(Zeroizing::new)
        .map_err(|error| {
            format!(
                "cannot read the token of the operator's pod at {}: {error}",
                file.display()
            )
        })
}

/// The rule of AWS's own clients: keys come over TLS, or from this machine, or from an agent of AWS.
fn may_be_asked(url: &Url) -> bool {
    let address: Option<IpAddr> = match url.host() {
        Some(Host::Ipv4(address)) => Some(address.into()),
        Some(Host::Ipv6(address)) => Some(address.into()),
        _ => None,
    };
    match (url.scheme(), address) {
        ("https", _) => true,
        ("http", Some(address)) => {
            address.is_loopback() || AGENTS.iter().any(|agent| agent.parse() == Ok(address))
        }
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn find(variables: &[(&'static str, &'static str)]) -> Result<Own, String> {
        let variables = variables.to_vec();
        Own::find(&move |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn irsa_comes_before_pod_identity() {
        let found = find(&[
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
            (
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                "http://169.254.170.23/v1/credentials",
            ),
        ]);
        let wanted = Own::WebIdentity {
            role: "arn:aws:iam::1:role/r".into(),
            token: "/token".into(),
        };
        assert_eq!(found, Ok(wanted));
    }

    #[test]
    fn keys_are_only_asked_of_agents_beside_the_pod_or_over_tls() {
        for (url, allowed) in [
            ("http://169.254.170.23/v1/credentials", true),
            ("http://[fd00:ec2::23]/v1/credentials", true),
            ("http://127.0.0.1:1/x", true),
            ("https://keys.example.com/", true),
            ("http://keys.example.com/", false),
            ("http://169.254.169.254/", false),
            ("http://10.0.0.1/", false),
            ("file:///etc/passwd", false),
            ("no url", false),
        ] {
            let found = find(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)]);
            assert_eq!(found.is_ok(), allowed, "{url}");
        }
    }

    #[test]
    fn a_pod_without_an_identity_is_told_what_to_set() {
        let error = find(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "")]).unwrap_err();
        assert!(
            error.contains("auth.iam.secretRef") && error.contains("IRSA"),
            "{error}"
        );
        let error = find(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/token")]).unwrap_err();
        assert!(error.contains("no AWS_ROLE_ARN"), "{error}");
    }

    /// An agent that answers this to whoever shows the token `pod-token`.
    async fn agent(status: u16, body: String) -> Url {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/credentials", listener.local_addr().unwrap());
        let answer = move |headers: axum::http::HeaderMap| {
            let known = headers
                .get("authorization")
                .is_some_and(|token| token == "pod-token");
            let status = if known { status } else { 401 };
            let answer = (axum::http::StatusCode::from_u16(status).unwrap(), body.clone());
            async { answer }
        };
        let app = axum::Router::new().route("/v1/credentials", axum::routing::get(answer));
        tokio::spawn(async { axum::serve(listener, app).await });
        Url::parse(&url).unwrap()
    }

    async fn handed(status: u16, body: &str, token: &str) -> Result<Keys, String> {
        let url = agent(status, body.into()).await;
        let file = std::env::temp_dir().join(format!("keyferry-agent-{}", url.port().unwrap()));
        std::fs::write(&file, token).unwrap();
        let own = Own::Agent {
            url,
            token: Some(file.clone()),
        };
        let keys = own.keys(&Sts::new("eu-west-1", &|_| None).unwrap()).await;
        std::fs::remove_file(file).unwrap();
        keys
    }

    const KEYS: &str =
        r#"{"AccessKeyId":"ASIA1","SecretAccessKey":"hunter2","Token":"t==","Expiration":"x"}"#;

    #[tokio::test]
    async fn the_agent_of_pod_identity_hands_out_keys_for_the_token_of_the_pod() {
        let keys = handed(200, KEYS, "pod-token\n").await.unwrap();
        assert_eq!(
            (
                keys.access_key_id(),
                keys.secret_access_key(),
                keys.session_token()
            ),
            ("ASIA1", "hunter2", Some("t=="))
        );
    }

    #[tokio::test]
    async fn an_agent_that_hands_out_nothing_is_named_and_its_answer_is_not_shown() {
        let large = format!("{KEYS}{}", " ".repeat(64 << 10));
        for (status, body, token, words) in [
            (200, KEYS, "other", "answered 401"),
            (500, KEYS, "pod-token", "answered 500"),
            (302, KEYS, "pod-token", "answered 302"),
            (200, "hunter2", "pod-token", "not known"),
            (
                200,
                &KEYS.replace("ASIA1", ""),
                "pod-token",
                "the access key ID is empty",
            ),
            (200, &large, "pod-token", "more than 64 KiB"),
        ] {
            let error = handed(status, body, token).await.err().unwrap();
            assert!(error.contains(words) && !error.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_token_file_that_cannot_be_read_is_named() {
        let own = find(&[
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/no/such/token"),
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r"),
        ]);
        let error = own
            .unwrap()
            .keys(&Sts::new("eu-west-1", &|_| None).unwrap())
            .await;
        let error = error.err().unwrap();
        assert!(error.contains("/no/such/token"), "{error}");
    }
}
