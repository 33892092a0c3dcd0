//! One connection per server, namespace and TLS identity, and its life: up, suspect, down, up.
//!
//! `Up` ─ a call fails in a way that casts suspicion ─▶ probe at once on fresh connections, three
//! tries, because a plain Service may route one of them to a sealed pod ─▶ good: the call is retried ·
//! bad: `Down`. While `Down` nothing is sent but the probe, which is unauthenticated and unaudited; on
//! the edge to `Up` everybody who subscribed is told (promise 2).

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::retries::Retries;
use crate::telemetry::metrics::Metrics;
use crate::vault::consistency::States;
use crate::vault::error::{Outage, VaultError};
use crate::vault::health;
use crate::vault::transport::{Connections, Server, Transport};

const SUSPECT_TRIES: u32 = 3;
const PROBE_FIRST: Duration = Duration::from_millis(250);
const PROBE_LAST: Duration = Duration::from_secs(1);
const SLOW_DOWN: Duration = Duration::from_millis(500);
const SLOW_DOWN_MAX: Duration = Duration::from_secs(30);

/// Why and since when a server is out of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Down {
    /// What is wrong.
    pub outage: Outage,
    /// When it was first seen.
    pub since: Timestamp,
}

/// Whether a server is in service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing is known to be wrong.
    Up,
    /// Out of service.
    Down(Down),
}

/// Why a call brought no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The server is out of service; wait for it, do not retry.
    Outage(Down),
    /// Vault's answer to this call.
    Vault(VaultError),
}

/// One connection.
pub struct Connection {
    server: Server,
    pooled: RwLock<Arc<Transport>>,
    fresh: Arc<Transport>,
    /// What the answers showed of the cluster's state.
    states: Arc<States>,
    health: watch::Sender<Health>,
    /// Held while probing; the time of the last good probe.
    suspicion: AsyncMutex<Option<Instant>>,
    permits: Arc<Semaphore>,
    slow: Mutex<SlowDown>,
    metrics: Arc<Metrics>,
}

/// A rate limit concerns the connection as a whole, not one object.
#[derive(Default)]
struct SlowDown {
    until: Option<Instant>,
    last: Duration,
}

impl Connection {
    /// Prepares the connection; sends nothing. At most `in_flight` requests are under way at once.
    ///
    /// # Errors
    /// If the server's settings cannot be used.
    pub fn new(server: Server, in_flight: usize, metrics: Arc<Metrics>) -> Result<Arc<Self>, VaultError> {
        let states = Arc::<States>::default();
        Ok(Arc::new(Self {
            pooled: RwLock::new(Arc::new(Transport::new(
                &server,
                Connections::Pooled,
                states.clone(),
            )?)),
            fresh: Arc::new(Transport::new(&server, Connections::Fresh, states.clone())?),
            states,
            health: watch::Sender::new(Health::Up),
            suspicion: AsyncMutex::new(None),
            permits: Arc::new(Semaphore::new(in_flight.max(1))),
            slow: Mutex::default(),
            server,
            metrics,
        }))
    }

    /// The server, for messages.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.server.url
    }

    /// The present state.
    #[must_use]
    pub fn health(&self) -> Health {
        *self.health.borrow()
    }

    /// Every change of state from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// A place among the requests under way; waits for a free one and for the end of a rate limit.
    /// Take it before deciding what to send, so that a shared read can still be joined meanwhile.
    pub async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        let permit = self.permits.clone().acquire_owned().await.ok();
        loop {
            let until = self.slow().until;
            match until {
                Some(until) if until > Instant::now() => sleep_until(until).await,
                _ => return permit,
            }
        }
    }

    /// Does one call, with the suspicion, the retries and the slowing-down that the state asks for.
    ///
    /// # Errors
    /// [`CallError::Outage`] if the server is out of service, else what Vault answered.
    pub async fn call<T, F, S>(&self, operation: &'static str, send: S) -> Result<T, CallError>
    where
        S: Fn(Arc<Transport>) -> F,
        F: Future<Output = Result<T, VaultError>>,
    {
        self.call_with(operation, Retries::default(), send).await
    }

    /// The same, with retries of one's own. An outage is noticed also without any.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_with<T, F, S>(
        &self,
        operation: &'static str,
        retries: Retries,
        send: S,
    ) -> Result<T, CallError>
    where
        S: Fn(Arc<Transport>) -> F,
        F: Future<Output = Result<T, VaultError>>,
    {
        self.check()?;
        let transport = self.pooled.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut result = self.counted(operation, send(transport).await);
        // Also a call without retries must notice an outage.
        for _ in 0..retries.most.max(1) {
            match result {
                Err(ref error) if error.casts_suspicion() => {}
                other => return other.map_err(CallError::Vault),
            }
            self.suspect().await.map_err(CallError::Outage)?;
            if retries.most == 0 {
                break;
            }
            if !retries.pause.is_zero() {
                sleep(retries.pause).await;
            }
            result = self.counted(operation, send(self.fresh.clone()).await);
        }
        result.map_err(CallError::Vault)
    }

    fn check(&self) -> Result<(), CallError> {
        match self.health() {
            Health::Up => Ok(()),
            Health::Down(down) => Err(CallError::Outage(down)),
        }
    }

    fn counted<T>(&self, operation: &'static str, result: Result<T, VaultError>) -> Result<T, VaultError> {
        let outcome = result.as_ref().map_or_else(VaultError::label, |_| "success");
        self.metrics.vault_request(operation, outcome);
        match &result {
            Err(VaultError::RateLimited { retry_after, .. }) => self.slow_down(*retry_after),
            Ok(_) => *self.slow() = SlowDown::default(),
            Err(_) => {}
        }
        result
    }

    fn slow(&self) -> std::sync::MutexGuard<'_, SlowDown> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slow_down(&self, retry_after: Option<Duration>) {
        let mut slow = self.slow();
        if slow.until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        tracing::debug!(server = self.server.url, ?retry_after, last = ?slow.last, "Vault limits the rate of requests");
        // Vault says 0 when less than a second is left: that is no reason to ask again at once.
        let asked = retry_after.filter(|wait| !wait.is_zero());
        let wait = asked.unwrap_or((slow.last * 2).max(SLOW_DOWN)).min(SLOW_DOWN_MAX);
        *slow = SlowDown {
            until: Some(Instant::now() + wait),
            last: wait,
        };
    }

    /// Asks for the server's health, once for all who suspect it at the same time.
    ///
    /// # Errors
    /// The outage, if it is one.
    async fn suspect(&self) -> Result<(), Down> {
        let asked = Instant::now();
        let mut last_good = self.suspicion.lock().await;
        if let Health::Down(down) = self.health() {
            return Err(down);
        }
        // Whoever waited for another's probe need not send one of their own.
        if last_good.is_some_and(|at| at >= asked) {
            return Ok(());
        }
        let begun = Instant::now();
        match self.probe_thrice().await {
            Ok(()) => {
                *last_good = Some(begun);
                // A kept connection may lead to the one pod that is sealed: begin anew with all of them.
                if let Ok(transport) = Transport::new(&self.server, Connections::Pooled, self.states.clone())
                {
                    *self.pooled.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(transport);
                }
                Ok(())
            }
            Err(outage) => {
                let down = Down {
                    outage,
                    since: Timestamp::now(),
                };
                self.health.send_replace(Health::Down(down));
                Err(down)
            }
        }
    }

    async fn probe_thrice(&self) -> Result<(), Outage> {
        let mut last = Ok(());
        for _ in 0..SUSPECT_TRIES {
            last = self.probe().await;
            if last.is_ok() {
                break;
            }
        }
        last
    }

    async fn probe(&self) -> Result<(), Outage> {
        let result = health::probe(&self.fresh).await;
        self.metrics.vault_probe(result.is_ok());
        result
    }

    /// Watches over the server for as long as somebody holds it: while it is down, asks for its health
    /// every 0.25 s rising to 1 s, and tells the subscribers when that changes.
    pub async fn watch_over(connection: std::sync::Weak<Self>) {
        let Some(mut changes) = connection.upgrade().map(|strong| strong.subscribe()) else {
            return;
        };
        let mut pause = PROBE_FIRST;
        loop {
            let Some(strong) = connection.upgrade() else {
                return;
            };
            match strong.health() {
                Health::Up => {
                    pause = PROBE_FIRST;
                    drop(strong);
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
                Health::Down(down) => {
                    match strong.probe().await {
                        Ok(()) => {
                            strong.health.send_replace(Health::Up);
                            continue;
                        }
                        Err(outage) if outage != down.outage => {
                            strong.health.send_replace(Health::Down(Down {
                                outage,
                                since: down.since,
                            }));
                        }
                        Err(_) => {}
                    }
                    drop(strong);
                    sleep(pause.mul_f64(rand::random_range(0.8..1.0))).await;
                    pause = (pause * 2).min(PROBE_LAST);
                }
            }
        }
    }

    /// Checks the server now, for a store that is validated.
    ///
    /// # Errors
    /// The outage, if it is one.
    pub async fn validate(&self) -> Result<(), Down> {
        match self.health() {
            Health::Down(down) => Err(down),
            Health::Up => self.suspect().await,
        }
    }
}
