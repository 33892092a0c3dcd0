//! HTTP to AWS, with bounds: answers are a few kilobytes, and a redirect has no business there.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, ClientBuilder, RequestBuilder, redirect};
use zeroize::Zeroizing;

use crate::vault::body::bounded_body;
use crate::vault::error::Unreachable;

/// Bytes of an answer that are read at most.
const BODY_LIMIT: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);

/// What came back, whatever its status.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Zeroizing<Vec<u8>>,
}

/// A client for a few requests: a login needs at most three, once in the life of a token.
///
/// # Errors
/// If TLS cannot be set up.
pub fn client() -> Result<Client, String> {
    built(bounded())
}

/// The same for the agent beside the pod: a proxy has no business between the two.
///
/// # Errors
/// As [`client`].
pub fn direct_client() -> Result<Client, String> {
    built(bounded().no_proxy())
}

fn bounded() -> ClientBuilder {
    Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(TIMEOUT)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("keyferry/", env!("CARGO_PKG_VERSION")))
}

fn built(builder: ClientBuilder) -> Result<Client, String> {
    builder.build().map_err(|_| "TLS to AWS cannot be set up".into())
}

/// Headers whose values no log shows.
///
/// # Errors
/// If one has characters that no header may hold; the text has its name only.
pub fn sensitive<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let unfit = || format!("the value of header '{name}' has characters that no header may hold");
        let known = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unfit())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| unfit())?;
        value.set_sensitive(true);
        map.insert(known, value);
    }
    Ok(map)
}

/// Sends a request.
///
/// # Errors
/// What went wrong, to follow the name of the other side.
pub async fn exchange(request: RequestBuilder) -> Result<Answer, &'static str> {
    let response = request.send().await.map_err(|error| fault((&error).into()))?;
    let status = response.status().as_u16();
    let body = bounded_body(response, BODY_LIMIT).await.map_err(fault)?;
    let body = body.ok_or("sent more than 64 KiB, which was not read")?;
    Ok(Answer { status, body })
}

fn fault(error: Unreachable) -> &'static str {
    match error {
        Unreachable::Dns => "is unreachable: its host name was not found",
        Unreachable::Refused => "is unreachable: connection refused",
        Unreachable::Tls(_) => "is unreachable: no trusted TLS connection",
        Unreachable::Timeout => "is unreachable: no answer in time",
        Unreachable::Broken => "is unreachable: the connection was closed before an answer came",
    }
}
