//! How often, and how soon, a read is repeated: a store's `retrySettings`.

use std::time::Duration;

use crate::api::duration::GoDuration;
use crate::api::store::SecretStoreSpec;

/// How to repeat a read that failed by the server's fault while the server is in service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Retries {
    /// How often at most.
    pub most: u32,
    /// The least pause before each.
    pub pause: Duration,
}

impl Default for Retries {
    /// On fresh connections after a good probe: with one sealed pod of three behind a Service, three tries in a row
    /// rarely meet it each time.
    fn default() -> Self {
        Self {
            most: 3,
            pause: Duration::ZERO,
        }
    }
}

/// More would keep others from the few requests that a server gets at once: greater values count as these.
const MOST: u32 = 10;
const PAUSE_MAX: Duration = Duration::from_secs(10);

impl Retries {
    /// Those of a store's `retrySettings`. Unlike in ESO, one without `maxRetries` does not mean none.
    ///
    /// # Errors
    /// The field that is not valid, and why.
    pub fn of(spec: &SecretStoreSpec) -> Result<Self, String> {
        let (default, settings) = (Self::default(), spec.retry_settings.clone().unwrap_or_default());
        let most = settings
            .max_retries
            .map_or(Ok(default.most), u32::try_from)
            .map_err(|_| "invalid retrySettings.maxRetries: must not be negative; 0 means no retry")?;
        let invalid = |why: &str| format!("invalid retrySettings.retryInterval: {why}");
        let pause = match settings.retry_interval.as_deref() {
            None | Some("") => default.pause,
            Some(text) => {
                let parsed = GoDuration::parse(text).map_err(|error| invalid(&error.to_string()))?;
                if parsed.is_negative() {
                    return Err(invalid(&format!("'{text}' must not be negative")));
                }
                parsed.as_std().unwrap_or_default()
            }
        };
        Ok(Self {
            most: most.min(MOST),
            pause: pause.min(PAUSE_MAX),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::store::connection::{CallError, Connection};
    use crate::store::place::Asking;
    use crate::telemetry::metrics::Metrics;
    use crate::vault::error::VaultError;
    use crate::vault::transport::Server;
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    fn of(settings: Value) -> Result<(u32, u128), String> {
        let spec = json!({"provider": {"vault": {"server": "http://v"}}, "retrySettings": settings});
        let retries = Retries::of(&serde_json::from_value(spec).unwrap())?;
        Ok((retries.most, retries.pause.as_millis()))
    }

    #[test]
    fn retry_settings_bound_the_retries_and_set_the_pause() {
        for (settings, wanted) in [
            (json!(null), (3, 0)),
            (json!({}), (3, 0)),
            (json!({"maxRetries": 0}), (0, 0)),
            (json!({"maxRetries": 5, "retryInterval": "250ms"}), (5, 250)),
            (json!({"retryInterval": "1.5s"}), (3, 1_500)),
            (json!({"retryInterval": ""}), (3, 0)),
            (json!({"maxRetries": 100, "retryInterval": "1h"}), (10, 10_000)),
        ] {
            assert_eq!(of(settings.clone()), Ok(wanted), "{settings}");
        }
    }

    #[test]
    fn retry_settings_that_are_none_are_named() {
        for (settings, why) in [
            (
                json!({"maxRetries": -1}),
                "invalid retrySettings.maxRetries: must not be negative",
            ),
            (
                json!({"retryInterval": "soon"}),
                "invalid retrySettings.retryInterval: 'soon' is not a duration",
            ),
            (
                json!({"retryInterval": "10"}),
                "invalid retrySettings.retryInterval: '10' is not a duration",
            ),
            (
                json!({"retryInterval": "-1s"}),
                "invalid retrySettings.retryInterval: '-1s' must not be negative",
            ),
        ] {
            let error = of(settings).unwrap_err();
            assert!(error.starts_with(why), "{error}");
        }
    }

    /// A server that answers every request with this status.
    async fn server(status: u16) -> Arc<Connection> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server {
            url: format!("http://{}", listener.local_addr().unwrap()),
            ..Server::default()
        };
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let answer =
                    format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Connection::new(server, 1, Arc::new(Metrics::default())).unwrap()
    }

    /// A call that always meets a fault of the server: what comes of it, after how many tries, and after how long.
    async fn call(health: u16, retries: Retries) -> (CallError, u32, Duration) {
        let (begun, tries) = (Instant::now(), AtomicU32::new(0));
        let send = |_| {
            tries.fetch_add(1, Ordering::Relaxed);
            async {
                Err::<(), _>(VaultError::Status {
                    status: 500,
                    phrase: None,
                })
            }
        };
        let error = server(health)
            .await
            .call_with("read", Asking::about(&"mount".into()), retries, send)
            .await
            .unwrap_err();
        (error, tries.load(Ordering::Relaxed), begun.elapsed())
    }

    #[tokio::test]
    async fn a_read_is_repeated_as_often_as_the_store_says_and_not_sooner() {
        let pause = Duration::from_millis(40);
        for most in [0, 1, 4] {
            let (error, tries, took) = call(200, Retries { most, pause }).await;
            assert!(matches!(error, CallError::Vault(_)), "{error:?}");
            assert_eq!(tries, most + 1);
            assert!(took >= pause * most, "{took:?}");
        }
    }

    #[tokio::test]
    async fn an_outage_is_noticed_also_by_a_store_that_wants_no_retries() {
        let none = Retries {
            most: 0,
            pause: Duration::ZERO,
        };
        let (error, tries, _) = call(503, none).await;
        assert!(matches!(error, CallError::Outage(_)) && tries == 1, "{error:?}");
    }
}
