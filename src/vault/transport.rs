//! One way to one server: HTTP with bounds, and without the habits of a client library that leak.
//!
//! HTTP/1.1 only. Vault speaks HTTP/2 on its TLS listener, but 2,000 reads, 32 at once over kept connections, took
//! 0.49 to 0.77 s by HTTP/1.1 and 0.46 to 0.85 s by HTTP/2 (curl and Vault 1.21 on two loaded cores): no reason for a
//! second protocol, which a plain listener does not speak anyway.
//!
//! `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` (or in small letters) of the environment hold, for health
//! checks too.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect;
use rustify::endpoint::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use tokio::time::sleep;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::body::{Body, SMALL};
use super::consistency::{Consistency, States};
use super::error::{Unreachable, VaultError};
use super::tls;
use crate::secret::SecretBytes;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);
/// A health check must not wait as long as a read may.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// Before each retry of a request that a node answered with 412, in milliseconds: standbys of Vault Enterprise lag
/// behind by less.
const BEHIND_PAUSES: [u64; 5] = [50, 100, 250, 500, 1000];
/// Headers of a connection, which a store's own would break.
const OF_THE_CONNECTION: [&str; 6] = [
    "connection",
    "content-length",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Where and how to reach a Vault; two stores with equal values share one connection and its health.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Server {
    /// Base URL without a trailing slash.
    pub url: String,
    /// `X-Vault-Namespace` of every request.
    pub namespace: Option<String>,
    /// Headers to add, in order of their names.
    pub headers: Vec<(String, String)>,
    /// PEM certificates that replace the system's roots.
    pub ca_pem: Option<Vec<u8>>,
    /// PEM of the certificate that is shown to the server, and of its key.
    pub client_pem: Option<SecretBytes>,
    /// What is asked of nodes that may be behind.
    pub consistency: Consistency,
}

/// A Vault token, as the header that carries it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(HeaderValue);

impl Token {
    /// Takes a token as users store it: a trailing newline, as `echo` makes it, is cut.
    ///
    /// # Errors
    /// If what remains is empty or cannot stand in a header.
    pub fn new(bytes: &SecretBytes) -> Result<Self, VaultError> {
        let trimmed = bytes.expose().trim_ascii();
        // Every copy of the header is a handle of these bytes, and the last one wipes them.
        let wiped = Bytes::from_owner(Zeroizing::new(trimmed.to_vec()));
        let mut value = HeaderValue::from_maybe_shared(wiped)
            .map_err(|_| VaultError::BadRequest("the token has characters that no header may hold".into()))?;
        if trimmed.is_empty() {
            return Err(VaultError::BadRequest("the token is empty".into()));
        }
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

/// One request, complete but for the server.
#[derive(Clone)]
pub struct Call {
    request: Box<http::Request<Bytes>>,
    token: Option<Token>,
    namespace: Namespace,
}

/// Which namespace a request is for.
#[derive(Clone)]
enum Namespace {
    /// That of the server's settings.
    Servers,
    /// None, whatever the settings say.
    Root,
    /// This one.
    Named(String),
}

impl Call {
    /// From one of the request types of vaultrs; its client is not used, because it panics on odd
    /// tokens, sends tokens along with redirects, and puts bodies into errors.
    ///
    /// # Errors
    /// If the path cannot be written as a URL.
    pub fn new<E: Endpoint>(endpoint: &E) -> Result<Self, VaultError> {
        let request = endpoint
            .request("http://vault/v1")
            .map_err(|_| VaultError::BadRequest("the path cannot be written as a URL".into()))?;
        Ok(Self {
            request: Box::new(request.map(wiped)),
            token: None,
            namespace: Namespace::Servers,
        })
    }

    /// A login at a mount: `path` follows `auth/`, and these are the fields of its body.
    ///
    /// The request types of vaultrs for logins are not used: they keep proofs in texts that nobody wipes.
    ///
    /// # Errors
    /// If the path cannot be written as a URL.
    pub fn login(path: &str, fields: &[(&str, &str)]) -> Result<Self, VaultError> {
        let mut call = Self::new(&Login(path))?;
        *call.request.body_mut() = Bytes::from_owner(object_of(fields)?);
        Ok(call)
    }

    /// What it sends, for tests.
    #[cfg(test)]
    pub fn body(&self) -> &[u8] {
        self.request.body()
    }

    /// The request as `GET ?list=true`, as Vault's own client lists: proxies refuse methods that they do not
    /// know.
    ///
    /// # Errors
    /// If the path cannot be written as a URL.
    pub fn as_list(mut self) -> Result<Self, VaultError> {
        let uri = format!("{}?list=true", self.request.uri());
        *self.request.uri_mut() = uri
            .parse()
            .map_err(|_| VaultError::BadRequest("the path cannot be written as a URL".into()))?;
        *self.request.method_mut() = http::Method::GET;
        Ok(self)
    }

    /// With this token.
    #[must_use]
    pub fn token(mut self, token: &Token) -> Self {
        self.token = Some(token.clone());
        self
    }

    /// In this namespace instead of the server's; `None` leaves the server's.
    #[must_use]
    pub fn namespace(mut self, namespace: Option<String>) -> Self {
        if let Some(name) = namespace {
            self.namespace = Namespace::Named(name);
        }
        self
    }

    /// The URL of the request at a server of this base URL.
    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(super) fn url(&self, base: &str) -> String {
        url_of(&Url::parse(base).unwrap(), self.request.uri()).to_string()
    }

    /// Outside of every namespace.
    #[must_use]
    pub fn without_namespace(mut self) -> Self {
        self.namespace = Namespace::Root;
        self
    }
}

/// Where a login is posted to, below `auth/`.
struct Login<'a>(&'a str);

impl Endpoint for Login<'_> {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        format!("/auth/{}", self.0)
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::POST
    }
}

fn wiped(body: Vec<u8>) -> Bytes {
    Bytes::from_owner(Zeroizing::new(body))
}

/// A JSON object of texts. Its buffer is as large as it can get, so that no smaller one is left behind unwiped.
///
/// # Errors
/// Never: texts can be written as JSON.
pub fn object_of(fields: &[(&str, &str)]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    // An escape is six bytes for one.
    let most = |(name, value): &(&str, &str)| 6 * (name.len() + value.len()) + 6;
    let room = fields.iter().map(most).sum::<usize>() + 2;
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    let mut writer = serde_json::Serializer::new(&mut *body);
    serde::Serializer::collect_map(&mut writer, fields.iter().copied())
        .map_err(|_| VaultError::BadRequest("the login is incomplete".into()))?;
    Ok(body)
}

/// What came back, whatever its status.
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After` in seconds, if it was sent.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Body,
}

impl Reply {
    /// The body if the status is success.
    ///
    /// # Errors
    /// The meaning of any other status.
    pub fn success(self) -> Result<Body, VaultError> {
        if (200..300).contains(&self.status) {
            Ok(self.body)
        } else {
            Err(VaultError::of_status(self.status, self.retry_after, &self.body))
        }
    }
}

/// HTTP to one server.
pub struct Transport {
    http: reqwest::Client,
    base: Url,
    headers: HeaderMap,
    consistency: Consistency,
    states: Arc<States>,
}

/// Whether connections are kept for the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// Kept: for reads and logins.
    Pooled,
    /// A new one for each request: for health checks, because behind a plain Service a kept one
    /// says nothing about the other pods.
    Fresh,
}

impl Transport {
    /// Prepares the client; sends nothing. All clients of one server share what they saw of its `states`.
    ///
    /// # Errors
    /// If the URL, a header or a certificate is not valid; the message names which.
    pub fn new(server: &Server, connections: Connections, states: Arc<States>) -> Result<Self, VaultError> {
        let base = base_url(&server.url)?;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .redirect(same_origin_once())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(64)
            .user_agent(concat!("keyferry/", env!("CARGO_PKG_VERSION")));
        if connections == Connections::Fresh {
            builder = builder
                .pool_max_idle_per_host(0)
                .connect_timeout(PROBE_TIMEOUT)
                .timeout(PROBE_TIMEOUT);
        }
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        if let Some(pem) = &server.ca_pem {
            builder = builder.tls_certs_only(tls::roots(pem)?);
        }
        if let Some(pem) = &server.client_pem {
            builder = builder.identity(tls::identity(pem)?);
        }
        let http = builder
            .build()
            .map_err(|_| VaultError::BadRequest("the TLS settings of the store cannot be used".into()))?;
        Ok(Self {
            http,
            base,
            headers: header_map(server)?,
            consistency: server.consistency,
            states,
        })
    }

    /// The namespace of requests that name none.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.headers.get("X-Vault-Namespace")?.to_str().ok()
    }

    /// Sends one request that has a small answer.
    ///
    /// # Errors
    /// As of [`Self::send_for`].
    pub async fn send(&self, call: Call) -> Result<Reply, VaultError> {
        self.send_for(call, SMALL).await
    }

    /// Sends one request that has an answer of so many bytes at most; again if a node of the cluster is behind (412),
    /// for less than two seconds.
    ///
    /// # Errors
    /// [`VaultError::Unreachable`] if no answer came, [`VaultError::Larger`] if it is too large. Any status is an `Ok`,
    /// also a 412 that stays.
    pub async fn send_for(&self, call: Call, most: usize) -> Result<Reply, VaultError> {
        for pause in BEHIND_PAUSES {
            let reply = self.send_once(&call, most).await?;
            if reply.status != 412 {
                return Ok(reply);
            }
            sleep(Duration::from_millis(pause)).await;
        }
        self.send_once(&call, most).await
    }

    async fn send_once(&self, call: &Call, most: usize) -> Result<Reply, VaultError> {
        let reply = self.exchange(call, most).await?;
        if !self
            .states
            .forwarding_refused(self.consistency, reply.status, &reply.body)
        {
            return Ok(reply);
        }
        tracing::warn!(
            server = %self.base,
            "Vault does not forward requests (allow_forwarding_via_header); forwardInconsistent has no effect, nodes \
             that are behind are asked again"
        );
        self.exchange(call, most).await
    }

    async fn exchange(&self, call: &Call, most: usize) -> Result<Reply, VaultError> {
        let mut headers = self.headers.clone();
        // Health is each node's own, and must not wait for others.
        let consistency = match call.namespace {
            Namespace::Root => Consistency::Eventual,
            _ => self.consistency,
        };
        self.states.require(consistency, &mut headers);
        match &call.namespace {
            Namespace::Servers => {}
            Namespace::Root => drop(headers.remove("X-Vault-Namespace")),
            Namespace::Named(name) => {
                drop(headers.insert("X-Vault-Namespace", header_value("namespace", name)?))
            }
        }
        if let Some(Token(token)) = &call.token {
            headers.insert("X-Vault-Token", token.clone());
        }
        if !call.request.body().is_empty() {
            headers.insert("Content-Type", HeaderValue::from_static("application/json"));
        }
        let request = self
            .http
            .request(
                call.request.method().clone(),
                url_of(&self.base, call.request.uri()),
            )
            .headers(headers)
            .body(call.request.body().clone());
        let response = request
            .send()
            .await
            .map_err(|e| VaultError::Unreachable(Unreachable::from(&e)))?;
        self.states.remember(consistency, response.headers());
        read(response, most).await
    }
}

/// The server's base with the path of a request: `/prefix` + `/v1/…`. Empty segments vanish, as
/// they do in Vault's own client, so that keys with a leading slash work.
fn url_of(base: &Url, uri: &http::Uri) -> Url {
    let mut url = base.clone();
    let path: Vec<&str> = uri
        .path()
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    url.set_path(&format!(
        "{}/{}",
        base.path().trim_end_matches('/'),
        path.join("/")
    ));
    url.set_query(uri.query().filter(|query| !query.is_empty()));
    url
}

/// What listens beside us is asked without a proxy, as Go does: there it would be another machine's loopback.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        None => false,
    }
}

async fn read(response: reqwest::Response, most: usize) -> Result<Reply, VaultError> {
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get("Retry-After")
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    Ok(Reply {
        status,
        retry_after,
        body: Body::read(response, most).await?,
    })
}

fn base_url(text: &str) -> Result<Url, VaultError> {
    let bad = |why: &str| VaultError::BadRequest(format!("spec.provider.vault.server {why}"));
    let url =
        Url::parse(text).map_err(|_| bad("is not a URL, for example http://vault.security.svc:8200"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(bad("must begin with http:// or https:// and name a host"));
    }
    // They would be shown wherever the server is named.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("must not hold a user name or a password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("must end with the path: no '?' and no '#'"));
    }
    Ok(url)
}

fn header_value(what: &str, value: &str) -> Result<HeaderValue, VaultError> {
    HeaderValue::from_str(value)
        .map_err(|_| VaultError::BadRequest(format!("the {what} has characters that no header may hold")))
}

fn header_map(server: &Server) -> Result<HeaderMap, VaultError> {
    let mut headers = HeaderMap::new();
    headers.insert("X-Vault-Request", HeaderValue::from_static("true"));
    if let Some(namespace) = &server.namespace {
        headers.insert("X-Vault-Namespace", header_value("namespace", namespace)?);
    }
    for (name, value) in &server.headers {
        let valid = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
            VaultError::BadRequest(format!("spec.provider.vault.headers: '{name}' is no header name"))
        })?;
        if OF_THE_CONNECTION.contains(&valid.as_str()) {
            return Err(VaultError::BadRequest(format!(
                "spec.provider.vault.headers: '{name}' is set by the connection itself; remove it"
            )));
        }
        let mut value = header_value(
            &format!("value of header '{name}' (spec.provider.vault.headers)"),
            value,
        )?;
        value.set_sensitive(true);
        headers.insert(valid, value);
    }
    Ok(headers)
}

/// Follows one redirect to the same scheme, host and port; anything else is handed back as it came.
fn same_origin_once() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let same = attempt
            .previous()
            .last()
            .is_some_and(|from| from.origin() == attempt.url().origin());
        if same && attempt.previous().len() <= 1 {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

#[cfg(test)]
mod tests;
