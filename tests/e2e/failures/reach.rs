//! Vault is not reached, or reached and out of service.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyferry_testbed::pki::Authority;
use keyferry_testbed::{Answer, End, Mode, TlsFront, free_port};
use serde_json::json;
use std::time::Duration;

use super::stage::{CANARY, Case, Fault};
use crate::scene::Scene;

/// Servers with odd certificates, and addresses without one.
pub struct Servers {
    plain: String,
    tls: String,
    closed: u16,
    ca: String,
    other_ca: String,
    expired: TlsFront,
    elsewhere: TlsFront,
    mutual: TlsFront,
}

impl Servers {
    pub async fn start(scene: &Scene) -> Result<Self> {
        let authority = scene.cluster.authority();
        let other = Authority::new("another")?;
        let upstream = scene.vault.address().trim_start_matches("http://").parse()?;
        let elsewhere = authority.server_elsewhere(&["vault.example.com"])?;
        Ok(Self {
            plain: scene.vault.address().to_owned(),
            tls: scene.vault.tls_address().to_owned(),
            closed: free_port()?,
            ca: STANDARD.encode(&authority.pem),
            other_ca: STANDARD.encode(&other.pem),
            expired: TlsFront::start(upstream, &authority.server_expired()?).await?,
            elsewhere: TlsFront::start(upstream, &elsewhere).await?,
            mutual: TlsFront::start_mutual(upstream, &authority.server(&[])?, &authority.pem).await?,
        })
    }

    pub fn cases(&self) -> Vec<Case> {
        let server = |url: &str| Fault::Provider(json!({"server": url}));
        let trusting = |url: &str, ca: &str| Fault::Provider(json!({"server": url, "caBundle": ca}));
        let front = |front: &TlsFront| format!("https://{}", front.address());
        let tls = |name, fault, sentence| Case::outage(name, fault, "VaultTLSFailure", sentence);
        vec![
            Case::outage(
                "dns",
                server("http://vault.invalid:8200"),
                "VaultDNSFailure",
                "is unreachable: its host name was not found; check spec.provider.vault.server",
            ),
            Case::outage(
                "refused",
                server(&format!("http://127.0.0.1:{}", self.closed)),
                "VaultConnectionRefused",
                "is unreachable: connection refused; nothing listens on that port: start Vault, or correct spec.provider.vault.server",
            ),
            tls(
                "tls-unknown-ca",
                trusting(&self.tls, &self.other_ca),
                "is unreachable: its certificate is signed by an authority that is not trusted; name that authority's certificate in caBundle or caProvider of the store",
            ),
            tls(
                "tls-system-roots",
                server(&self.tls),
                "is unreachable: its certificate is signed by an authority that is not trusted; name that authority's certificate in caBundle or caProvider of the store",
            ),
            tls(
                "tls-expired",
                trusting(&front(&self.expired), &self.ca),
                "is unreachable: its certificate has expired; renew it",
            ),
            tls(
                "tls-wrong-name",
                trusting(&front(&self.elsewhere), &self.ca),
                "is unreachable: its certificate is for another name than the one in spec.provider.vault.server; write there a name that the certificate has, or renew it with this one",
            ),
            tls(
                "tls-client-certificate",
                trusting(&front(&self.mutual), &self.ca),
                "is unreachable: it ended the TLS handshake; if it asks for a client certificate, check that of the store",
            ),
            tls(
                "tls-to-plain-port",
                trusting(&self.plain.replace("http", "https"), &self.ca),
                "is unreachable: no TLS is spoken on that port; correct the port in spec.provider.vault.server, or begin it with http://",
            ),
            Case::outage(
                "plain-to-tls-port",
                server(&self.tls.replace("https", "http")),
                "VaultFailing",
                "answers HTTP 400 to its health check; if TLS is spoken on that port, begin spec.provider.vault.server with https://",
            ),
            Case::outage(
                "plain-to-other-tls-port",
                server(&front(&self.mutual).replace("https", "http")),
                "VaultConnectionBroken",
                "is unreachable: the connection broke before a whole answer came; check what stands between the operator and Vault",
            ),
            Case::store(
                "server-without-scheme",
                server("vault.security.svc:8200"),
                "InvalidProviderConfig",
                "spec.provider.vault.server must begin with http:// or https:// and name a host",
            ),
        ]
    }
}

/// Everything behind one address fails in one way.
pub fn outages() -> Vec<Case> {
    let all = |status: u16, headers: &str, body: &str| {
        let body = body.replace("canary", CANARY);
        Fault::Wire(Mode::Answers(vec![Answer::http("", status, headers, body)]))
    };
    let errors = |said: &str| format!("{{\"errors\":[\"{said}\"],\"canary\":\"canary\"}}");
    let failing = |name, status, headers, body: &str, sentence| {
        Case::outage(name, all(status, headers, body), "VaultFailing", sentence)
    };
    let raw = |bytes: &str, end: End| Fault::Wire(Mode::Answers(vec![Answer::raw("", bytes, end)]));
    let broken = |name, fault| {
        Case::outage(
            name,
            fault,
            "VaultConnectionBroken",
            "is unreachable: the connection broke before a whole answer came; check what stands between the operator and Vault",
        )
    };
    let html = "<html><body>canary</body></html>";
    vec![
        Case::outage(
            "sealed",
            all(503, "", r#"{"initialized":true,"sealed":true,"x":"canary"}"#),
            "VaultSealed",
            "is sealed; unseal it",
        ),
        Case::outage(
            "uninitialized",
            all(501, "", r#"{"initialized":false,"x":"canary"}"#),
            "VaultUninitialized",
            "is not initialised; run 'vault operator init'",
        ),
        Case::outage(
            "standby-without-active-node",
            all(474, "", "{}"),
            "VaultNoActiveNode",
            "has no active node that answers; its cluster is electing a leader, has lost its quorum, or its nodes do not reach each other's cluster_addr",
        ),
        failing(
            "secondary",
            472,
            "",
            "{}",
            "answers HTTP 472 to its health check; it is a disaster recovery secondary, which serves nobody; name the primary in spec.provider.vault.server",
        ),
        failing(
            "removed-from-cluster",
            530,
            "",
            "{}",
            "answers HTTP 530 to its health check; it was removed from its cluster; let it join again, or name another node",
        ),
        failing(
            "bad-gateway",
            502,
            "Content-Type: text/html",
            html,
            "answers HTTP 502 to its health check; see the log of Vault and of what stands in front of it",
        ),
        failing(
            "gateway-timeout",
            504,
            "Content-Type: text/html",
            html,
            "answers HTTP 504 to its health check; see the log of Vault and of what stands in front of it",
        ),
        Case::outage(
            "service-unavailable",
            all(503, "Content-Type: text/html", html),
            "VaultFailing",
            "answers HTTP 503 to its health check; see the log of Vault and of what stands in front of it",
        ),
        failing(
            "all-500",
            500,
            "",
            &errors("internal error"),
            "answers HTTP 500 to its health check; see the log of Vault and of what stands in front of it",
        ),
        Case::outage(
            "refuse",
            Fault::Wire(Mode::Refuse),
            "VaultConnectionBroken",
            "is unreachable: the connection broke before a whole answer came; check what stands between the operator and Vault",
        ),
        broken("cut", Fault::Wire(Mode::Cut)),
        broken("reset", raw("", End::Reset)),
        broken("no-http", raw(&format!("SSH-2.0-{CANARY}\r\n"), End::Close)),
        Case::outage(
            "hang",
            Fault::Wire(Mode::Hang),
            "VaultTimeout",
            "is unreachable: no answer in time; check the network between the operator and Vault",
        ),
        Case::outage(
            "drip",
            Fault::Wire(Mode::Drip(1, Duration::from_millis(200))),
            "VaultTimeout",
            "is unreachable: no answer in time; check the network between the operator and Vault",
        ),
    ]
}
