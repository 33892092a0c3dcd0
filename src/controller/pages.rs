//! The list of managed Secrets, page by page. Anybody may label a Secret of a megabyte as managed: a page is as large
//! as its bytes allow, not as its number says, and it is let go before the next one comes.
//!
//! The list comes to its end also while it changes all the time: of a token that has expired the API server tells
//! another one that goes on from there.

use std::time::Duration;

use futures::AsyncReadExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::core::{ObjectList, Request};
use kube::{Client, Resource as _};
use tokio::time::timeout;

use crate::memory;
use crate::target::apply;
use crate::target::names;

/// Bytes of the text of a page. What it is read into takes about as many again.
const PAGE_BYTES: u64 = 4 << 20;
/// A Secret holds a megabyte of data, which is a third more in the text, and as much again in `managedFields`.
const LAST_BYTES: u64 = 16 << 20;
const LIMIT_FIRST: u32 = 50;
const LIMIT_MAX: u32 = 500;
/// A page that takes longer is asked for in a smaller form.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Pages in a row that bring nothing.
const FAILURES_MAX: u32 = 8;
/// Begins of the list anew.
const RESTARTS_MAX: u32 = 3;

/// Why not all Secrets were shown.
#[derive(Debug, thiserror::Error)]
pub enum Unlisted {
    /// They may not be listed.
    #[error("{0}")]
    Forbidden(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl From<String> for Unlisted {
    fn from(problem: String) -> Self {
        Self::Failed(problem)
    }
}

/// Why a page brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    /// More bytes than a page may have.
    TooLarge,
    /// No answer in time.
    Slow,
    /// The token has expired; one that goes on, if the API server gave it.
    Gone(Option<String>),
    /// It may not be listed.
    Forbidden(String),
    /// Anything else, as a sentence.
    Failed(String),
}

/// Where a list stands. Pure.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    limit: u32,
    token: Option<String>,
    /// In a row.
    failures: u32,
    /// In all.
    restarts: u32,
}

impl Place {
    fn first() -> Self {
        Self {
            limit: LIMIT_FIRST,
            token: None,
            failures: 0,
            restarts: 0,
        }
    }

    fn bytes(&self) -> u64 {
        if self.limit == 1 { LAST_BYTES } else { PAGE_BYTES }
    }

    /// Bytes of memory for a page: its text, and what is made of it.
    fn takes(&self) -> usize {
        usize::try_from(3 * self.bytes()).unwrap_or(usize::MAX)
    }

    /// After a page of so many bytes. `None` if it was the last one.
    fn after(self, bytes: u64, token: Option<String>) -> Option<Self> {
        // The next page may be of other Secrets: it grows slowly, and one that is too large costs a request.
        let roomy = bytes < PAGE_BYTES / 4;
        Some(Self {
            limit: if roomy { self.limit * 2 } else { self.limit }.min(LIMIT_MAX),
            token: Some(token.filter(|token| !token.is_empty())?),
            failures: 0,
            ..self
        })
    }

    /// After a page that brought nothing.
    ///
    /// # Errors
    /// If it makes no sense to go on, as a sentence.
    fn again(self, fault: Fault) -> Result<Self, Unlisted> {
        let failures = self.failures + 1;
        let smaller = (self.limit / 4).max(1);
        let problem = match &fault {
            Fault::Failed(problem) => return Err(problem.clone().into()),
            Fault::Forbidden(problem) => return Err(Unlisted::Forbidden(problem.clone())),
            Fault::TooLarge if self.limit == 1 => {
                return Err(format!("a managed Secret is larger than {LAST_BYTES} bytes").into());
            }
            Fault::TooLarge | Fault::Slow => "the list of managed Secrets took too long",
            Fault::Gone(_) => "the list of managed Secrets expired again and again",
        };
        if failures > FAILURES_MAX || self.restarts > RESTARTS_MAX {
            return Err(problem.to_string().into());
        }
        Ok(match fault {
            Fault::Gone(Some(token)) => Self {
                token: Some(token),
                failures,
                ..self
            },
            // What was seen is seen again; with fewer pages it may be faster than the next expiry.
            Fault::Gone(None) => Self {
                token: None,
                limit: LIMIT_MAX,
                failures,
                restarts: self.restarts + 1,
            },
            _ => Self {
                limit: smaller,
                failures,
                ..self
            },
        })
    }
}

/// Shows every managed Secret of a namespace, or of all.
///
/// # Errors
/// What the API server did not do.
pub async fn each(
    client: &Client,
    namespace: Option<&str>,
    mut show: impl FnMut(&Secret),
) -> Result<(), Unlisted> {
    let mut place = Place::first();
    loop {
        // Nobody who has this room waits for Vault or for the API server, but pages like this one.
        let room = memory::budget().make(place.takes()).await;
        let asked = match room {
            Ok(_) => timeout(TIMEOUT, page(client, namespace, &place)).await.ok(),
            Err(_) => None,
        };
        place = match asked.unwrap_or(Err(Fault::Slow)) {
            Ok((list, bytes)) => {
                list.items.iter().for_each(&mut show);
                match place.after(bytes, list.metadata.continue_) {
                    Some(next) => next,
                    None => return Ok(()),
                }
            }
            Err(fault) => place.again(fault)?,
        };
    }
}

/// One page, and how many bytes its text had.
async fn page(
    client: &Client,
    namespace: Option<&str>,
    place: &Place,
) -> Result<(ObjectList<Secret>, u64), Fault> {
    let mut params = ListParams::default()
        .labels(&format!("{}=true", names::LABEL_MANAGED))
        .limit(place.limit);
    if let Some(token) = &place.token {
        params = params.continue_token(token);
    }
    let told = |error: &kube::Error| format!("cannot list managed Secrets: {}", apply::describe(error));
    let request = Request::new(Secret::url_path(&(), namespace))
        .list(&params)
        .map_err(|_| Fault::Failed("the list of managed Secrets cannot be asked for".into()))?;
    let body = match client.request_stream(request).await {
        Ok(body) => body,
        Err(kube::Error::Api(status)) if status.code == 410 => {
            let further = status.metadata.and_then(|metadata| metadata.continue_);
            return Err(Fault::Gone(further.filter(|token| !token.is_empty())));
        }
        Err(error) => {
            let forbidden = matches!(&error, kube::Error::Api(status) if status.code == 403);
            return Err(if forbidden {
                Fault::Forbidden
            } else {
                Fault::Failed
            }(told(&error)));
        }
    };
    let mut text = Vec::new();
    let most = place.bytes();
    let read = body.take(most + 1).read_to_end(&mut text).await;
    read.map_err(|_| Fault::Failed("the list of managed Secrets broke off".into()))?;
    let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
    if bytes > most {
        return Err(Fault::TooLarge);
    }
    let list = serde_json::from_slice(&text)
        .map_err(|_| Fault::Failed("the list of managed Secrets cannot be read".into()))?;
    Ok((list, bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server with so many Secrets of so many bytes, which says 410 to every second token, with or without a
    /// further one. What it was asked: limits and places.
    #[derive(Clone)]
    struct Server {
        sizes: Arc<Vec<usize>>,
        expires: bool,
        goes_on: bool,
        asked: Arc<Mutex<Vec<(usize, usize)>>>,
    }

    impl Server {
        fn new(sizes: Vec<usize>, expires: bool, goes_on: bool) -> Self {
            let (sizes, asked) = (Arc::new(sizes), Arc::default());
            Self {
                sizes,
                expires,
                goes_on,
                asked,
            }
        }

        fn answer(&self, query: &BTreeMap<String, String>) -> (u16, Value) {
            let limit: usize = query["limit"].parse().unwrap();
            let token = query.get("continue").cloned().unwrap_or_default();
            let (from, fresh) = token
                .split_once('-')
                .map_or((0, true), |(at, kind)| (at.parse().unwrap(), kind == "fresh"));
            let mut asked = self.asked.lock().unwrap();
            asked.push((limit, from));
            if self.expires && !fresh && asked.len().is_multiple_of(2) {
                let further = if self.goes_on {
                    json!({"continue": format!("{from}-fresh")})
                } else {
                    json!({})
                };
                return (
                    410,
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired",
                    "message": "too old", "code": 410, "metadata": further}),
                );
            }
            let to = (from + limit).min(self.sizes.len());
            let secret = |i: usize| {
                json!({"metadata": {"name": format!("s{i}"), "namespace": "n",
                "annotations": {"text": "x".repeat(self.sizes[i])}}})
            };
            let items: Vec<Value> = (from..to).map(secret).collect();
            let further = if to < self.sizes.len() {
                format!("{to}-used")
            } else {
                String::new()
            };
            (
                200,
                json!({"apiVersion": "v1", "kind": "SecretList", "metadata": {"continue": further}, "items": items}),
            )
        }

        fn client(&self) -> Client {
            let server = self.clone();
            let answer = move |request: Request<Body>| {
                let query = request.uri().query().unwrap_or_default();
                let pairs = url::form_urlencoded::parse(query.as_bytes())
                    .into_owned()
                    .collect();
                let (status, body) = server.answer(&pairs);
                async move {
                    let body = Body::from(body.to_string().into_bytes());
                    Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(body).unwrap())
                }
            };
            Client::new(tower::service_fn(answer), "n")
        }

        /// The names that are shown.
        async fn shown(&self) -> Result<Vec<String>, Unlisted> {
            let mut shown = Vec::new();
            each(&self.client(), None, |secret| {
                shown.push(secret.metadata.name.clone().unwrap())
            })
            .await?;
            Ok(shown)
        }
    }

    #[tokio::test]
    async fn a_list_whose_tokens_expire_all_the_time_comes_to_its_end_and_shows_each_secret_once() {
        let server = Server::new(vec![10; 5_000], true, true);
        let shown = server.shown().await.unwrap();
        let wanted: Vec<String> = (0..5_000).map(|i| format!("s{i}")).collect();
        assert_eq!(shown, wanted);
    }

    #[tokio::test]
    async fn an_api_server_that_never_goes_on_is_told() {
        let server = Server::new(vec![10; 5_000], true, false);
        let error = server.shown().await.unwrap_err().to_string();
        assert!(error.contains("again and again"), "{error}");
        assert!(server.asked.lock().unwrap().len() < 20);
    }

    #[tokio::test]
    async fn pages_are_as_large_as_their_bytes_allow() {
        // Small ones first, so that pages grow, and then as many large ones.
        let sizes: Vec<usize> = [vec![100; 2_000], vec![1_000_000; 40]].concat();
        let server = Server::new(sizes, false, true);
        assert_eq!(server.shown().await.unwrap().len(), 2_040);
        let asked = server.asked.lock().unwrap().clone();
        assert!(
            asked
                .iter()
                .any(|(limit, from)| *limit == LIMIT_MAX as usize && *from < 2_000),
            "{asked:?}"
        );
        let last = asked.last().unwrap().0;
        assert!(last <= 4, "of a megabyte each, {last} in a page");
        assert!(asked.len() < 40, "{} requests", asked.len());
    }

    #[test]
    fn a_page_that_is_slow_or_too_large_is_asked_for_in_smaller_forms_and_not_for_ever() {
        let mut place = Place {
            limit: LIMIT_MAX,
            token: Some("t".into()),
            ..Place::first()
        };
        let mut limits = Vec::new();
        let error = loop {
            match place.clone().again(Fault::Slow) {
                Ok(next) => place = next,
                Err(error) => break error.to_string(),
            }
            assert_eq!(place.token.as_deref(), Some("t"), "progress is kept");
            limits.push(place.limit);
        };
        assert_eq!(limits, [125, 31, 7, 1, 1, 1, 1, 1]);
        assert!(error.contains("took too long"), "{error}");
        let one = Place {
            limit: 1,
            ..Place::first()
        };
        let error = one.again(Fault::TooLarge).unwrap_err().to_string();
        assert!(error.contains("is larger than"), "{error}");
    }
}
