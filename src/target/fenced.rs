//! A client for the API server whose writes end with the lease.
//!
//! Between the moment when somebody asks the [`Fence`] and the moment when the request leaves, time may pass: a
//! connection is made, a request is tried again, the whole process stands still. So writes have connections of
//! their own, and these ask the fence whenever bytes are about to leave. What has left already is the kernel's,
//! which goes on while a process stands still: it gets no longer to deliver them than a lease has left when its
//! holder stops writing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ConfigExt as _};
use kube::{Client, Config};
use tower::retry::RetryLayer;
use tower::timeout::Timeout;
use tower::util::MapFuture;
use tower::{BoxError, Service, ServiceBuilder};

use super::fence::Fence;

/// A client whose writes go through the fence. The kernel may try to deliver what was sent for so long; `None` if
/// no other replica waits for the end of a lease.
///
/// # Errors
/// If the configuration cannot be used.
pub fn client(config: Config, fence: Arc<Fence>, delivery: Option<Duration>) -> Result<Client, kube::Error> {
    let namespace = config.default_namespace.clone();
    let reading = Client::try_from(config.clone())?;
    let writing = writing(&config, fence.clone(), delivery)?;
    let route = tower::service_fn(move |request: Request<Body>| {
        let write = is_fenced(request.method(), request.uri().path());
        let chosen = if write { writing.clone() } else { reading.clone() };
        let fence = fence.clone();
        async move {
            if !write {
                return chosen.send(request).await;
            }
            let write = fence.writes().begin();
            let answer = chosen.send(request).await;
            if answer.as_ref().err().is_none_or(|error| never_left(error)) {
                write.answered();
            }
            answer
        }
    });
    Ok(Client::new(route, namespace))
}

/// Whether only the replica that leads may ask for this: for all that changes something. By the Lease it becomes
/// known who leads, and a token for a ServiceAccount changes nothing.
fn is_fenced(method: &Method, path: &str) -> bool {
    let lease = path.starts_with("/apis/coordination.k8s.io/");
    let token = method == Method::POST && path.contains("/serviceaccounts/") && path.ends_with("/token");
    !method.is_safe() && !lease && !token
}

/// Whether the API server cannot have seen the whole request: nothing is connected, or the fence kept it.
fn never_left(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        let kept = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        error.downcast_ref::<io::Error>().is_some_and(kept)
            || error
                .downcast_ref::<legacy::Error>()
                .is_some_and(legacy::Error::is_connect)
    })
}

/// As the client library builds its own, on connections of ours.
fn writing(config: &Config, fence: Arc<Fence>, delivery: Option<Duration>) -> Result<Client, kube::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(delivery);
    let connector = config.rustls_https_connector_with_connector(Connector { tcp, fence })?;
    let patience = config.connect_timeout.unwrap_or(Duration::MAX);
    let connector = MapFuture::new(Timeout::new(connector, patience), Box::pin);
    let http: legacy::Client<_, Body> = legacy::Client::builder(TokioExecutor::new()).build(connector);
    let retry = config
        .default_retry
        .then(|| RetryLayer::new(RetryPolicy::server_retry()));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(retry)
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}

#[derive(Clone)]
struct Connector {
    tcp: HttpConnector,
    fence: Arc<Fence>,
}

impl Service<Uri> for Connector {
    type Response = Fenced<<HttpConnector as Service<Uri>>::Response>;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context)
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let (connecting, fence) = (self.tcp.call(address), self.fence.clone());
        Box::pin(async move {
            Ok(Fenced {
                stream: connecting.await?,
                fence,
            })
        })
    }
}

/// A stream over which nothing leaves while the fence is closed.
struct Fenced<T> {
    stream: T,
    fence: Arc<Fence>,
}

impl<T> Fenced<T> {
    fn check(&self) -> io::Result<()> {
        if self.fence.is_open() {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "this replica does not lead",
        ))
    }
}

impl<T: Read + Unpin> Read for Fenced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<T: Write + Unpin> Write for Fenced<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }
}

impl<T: Connection> Connection for Fenced<T> {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;

    use k8s_openapi::api::coordination::v1::Lease;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use kube::api::PostParams;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    type Heard = Arc<Mutex<Vec<String>>>;

    /// A server that notes the first line of each request, and answers an object without a name.
    async fn server(heard: Heard) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let heard = heard.clone();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 16 * 1024];
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                        let line = text.lines().next().unwrap_or_default();
                        heard.lock().unwrap().push(line.into());
                        let body = r#"{"metadata":{}}"#;
                        let answer =
                            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        address
    }

    async fn fenced_client(fence: &Arc<Fence>, heard: &Heard) -> Client {
        let address = server(heard.clone()).await;
        let mut config = Config::new(format!("http://{address}").parse().unwrap());
        config.default_retry = false;
        client(config, fence.clone(), Some(Duration::from_secs(1))).unwrap()
    }

    #[tokio::test]
    async fn over_a_closed_fence_only_reads_and_the_lease_pass_also_on_connections_that_are_open() {
        let (fence, heard) = (Fence::new(), Heard::default());
        let client = fenced_client(&fence, &heard).await;
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "n");
        let leases: Api<Lease> = Api::namespaced(client, "n");
        let params = PostParams::default();
        for open in [false, true, false] {
            if open {
                fence.open(fence.now(), Duration::from_secs(60));
            } else {
                fence.close();
            }
            assert!(maps.get("m").await.is_ok());
            assert!(leases.replace("l", &params, &Lease::default()).await.is_ok());
            assert_eq!(
                maps.replace("m", &params, &ConfigMap::default()).await.is_ok(),
                open
            );
            let lines = std::mem::take(&mut *heard.lock().unwrap());
            assert_eq!(lines.len(), if open { 3 } else { 2 }, "{lines:?}");
        }
    }

    #[tokio::test]
    async fn bytes_that_come_late_do_not_leave() {
        let fence = Fence::new();
        fence.open(fence.now(), Duration::from_millis(50));
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let mut stream = Fenced {
            stream: hyper_util::rt::TokioIo::new(ours),
            fence,
        };
        let mut write = async |bytes: &[u8]| {
            std::future::poll_fn(|context| Pin::new(&mut stream).poll_write(context, bytes)).await
        };
        assert!(write(b"early").await.is_ok());
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(write(b"late").await.is_err());
        let mut seen = [0; 64];
        let read = theirs.read(&mut seen).await.unwrap();
        assert_eq!(&seen[..read], b"early");
    }

    #[tokio::test]
    async fn what_was_sent_is_unsettled_until_it_is_answered_and_what_never_left_is_not() {
        let (fence, heard) = (Fence::new(), Heard::default());
        let soon = Duration::from_millis(100);
        let params = PostParams::default();
        let write = async |client: Client| {
            let maps: Api<ConfigMap> = Api::namespaced(client, "n");
            maps.replace("m", &params, &ConfigMap::default()).await.is_ok()
        };
        // The fence keeps it.
        let client = fenced_client(&fence, &heard).await;
        assert!(!write(client.clone()).await && fence.writes().settle(soon).await);
        fence.open(fence.now(), Duration::from_secs(60));
        assert!(write(client).await && fence.writes().settle(soon).await);
        // Nobody listens.
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = |listener: &TcpListener| {
            let url = format!("http://{}", listener.local_addr().unwrap());
            let mut config = Config::new(url.parse().unwrap());
            config.default_retry = false;
            super::client(config, fence.clone(), None).unwrap()
        };
        let client = at(&gone);
        drop(gone);
        assert!(!write(client).await && fence.writes().settle(soon).await);
        // Somebody takes it and does not answer; then the caller gives up.
        let mut asked = std::pin::pin!(write(at(&silent)));
        assert!(tokio::time::timeout(soon, &mut asked).await.is_err());
        assert!(!fence.writes().settle(soon).await);
        let again = tokio::time::timeout(soon, write(at(&silent))).await;
        assert!(again.is_err() && !fence.writes().settle(Duration::ZERO).await);
    }

    #[test]
    fn all_that_changes_something_is_fenced() {
        let namespaced = "/api/v1/namespaces/n";
        for (method, path, fenced) in [
            (Method::GET, format!("{namespaced}/secrets/s"), false),
            (Method::POST, format!("{namespaced}/secrets"), true),
            (Method::PUT, format!("{namespaced}/secrets/token"), true),
            (
                Method::POST,
                format!("{namespaced}/serviceaccounts/a/token"),
                false,
            ),
            (Method::PUT, format!("{namespaced}/serviceaccounts/token"), true),
            (
                Method::PATCH,
                "/apis/external-secrets.io/v1/namespaces/n/externalsecrets/e/status".into(),
                true,
            ),
            (Method::DELETE, format!("{namespaced}/secrets/s"), true),
            (
                Method::PUT,
                "/apis/coordination.k8s.io/v1/namespaces/n/leases/l".into(),
                false,
            ),
        ] {
            assert_eq!(is_fenced(&method, &path), fenced, "{method} {path}");
        }
    }
}
