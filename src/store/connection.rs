//! One connection per server, namespace and TLS identity, and its life: up, suspect, down, up.
//!
//! `Up` ─ a call fails in a way that casts suspicion ─▶ probe at once on fresh connections, several
//! tries, because a plain Service may route some of them to a sealed pod ─▶ good: the call is retried,
//! for up to two seconds, which outlasts a short election of the cluster · bad: `Down`. While `Down`
//! nothing is sent but the probe, which is unauthenticated and unaudited; on the edge to `Up` everybody
//! who subscribed is told (promise 2).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub use super::down::Down;
use super::down::down_since;
use super::pace::{Lane, Paces};
use super::place::{Asking, Place};
use super::probing::{Pauses, Situation};
use super::retries::Retries;
use super::trial::{Seen, Trial};
use crate::permits::Permits;
use crate::telemetry::metrics::Metrics;
use crate::vault::consistency::States;
use crate::vault::error::{Outage, VaultError};
use crate::vault::health::{self, ActiveNode, Serving};
use crate::vault::transport::{Connections, Server, Transport};

/// Tries of a suspicion: with one sealed pod of three behind a Service, ten in a row never meet it each time.
const PROBES: u32 = 10;
/// This many slow ones end a suspicion as well: a node that becomes the leader is silent for a moment.
const SLOW_PROBES: u32 = 3;
const SLOW: Duration = Duration::from_secs(1);
/// No answer at all so soon after nodes that know of no active one is taken for a part of their election.
const UNSTEADY: Duration = Duration::from_secs(1);
/// Standbys that named an active node which did not answer are believed again after this long: by then Vault
/// itself notices that they have lost it (two heartbeats of 5 s). Doubled with each disappointment.
const DOUBT_FIRST: Duration = Duration::from_secs(10);
const DOUBT_MAX: Duration = Duration::from_secs(300);
/// A call waits this long at most for its turn under a rate limit.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a server is in service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing is known to be wrong.
    Up,
    /// Out of service.
    Down(Down),
}

/// Why a call brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The server is out of service; wait for it, do not retry.
    #[error("Vault {}", .0.outage)]
    Outage(Down),
    /// Vault's answer to this call.
    #[error("{0}")]
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
    /// Held while probing; what the last one found.
    suspicion: AsyncMutex<Option<(Instant, Seen)>>,
    permits: Arc<Permits>,
    paces: Mutex<Paces>,
    doubt: Mutex<Option<Doubt>>,
    metrics: Arc<Metrics>,
    /// Whether somebody ever came to read here.
    awaited: AtomicBool,
    came: Arc<Notify>,
}

/// Standbys named an active node, and calls failed all the same.
struct Doubt {
    leader: ActiveNode,
    until: Instant,
    wait: Duration,
}

impl Connection {
    /// Prepares the connection; sends nothing. At most `in_flight` requests are under way at once.
    ///
    /// # Errors
    /// If the server's settings cannot be used.
    pub fn new(server: Server, in_flight: usize, metrics: Arc<Metrics>) -> Result<Arc<Self>, VaultError> {
        let states = Arc::<States>::default();
        let transport = |connections| Transport::new(&server, connections, states.clone()).map(Arc::new);
        Ok(Arc::new(Self {
            pooled: RwLock::new(transport(Connections::Pooled)?),
            fresh: transport(Connections::Fresh)?,
            states,
            health: watch::Sender::new(Health::Up),
            suspicion: AsyncMutex::new(None),
            permits: Permits::new(in_flight),
            paces: Mutex::default(),
            doubt: Mutex::default(),
            awaited: AtomicBool::new(false),
            came: Arc::default(),
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

    /// Takes note that somebody reads here, or would.
    pub fn is_awaited(&self) {
        if !self.awaited.swap(true, Ordering::Relaxed) {
            self.came.notify_one();
        }
    }

    /// A place among the requests under way, for this namespace; waits for a free one and for the end of a rate limit.
    /// Take it before deciding what to send, so that a shared read can still be joined meanwhile.
    pub async fn place(&self, who: &Arc<str>, lane: &Lane) -> Place {
        let place = Place::take(&self.permits, who).await;
        while let Some(end) = self.pause_after(lane) {
            place.left_for(sleep_until(end)).await;
        }
        place
    }

    fn pause_after(&self, lane: &Lane) -> Option<Instant> {
        self.paces().pause_after(lane, Instant::now())
    }

    /// Does one call, with the suspicion, the retries and the slowing-down that the state asks for.
    ///
    /// # Errors
    /// [`CallError::Outage`] if the server is out of service, else what Vault answered.
    pub async fn call<T, F, S>(&self, operation: &'static str, lane: &Lane, send: S) -> Result<T, CallError>
    where
        S: Fn(Arc<Transport>) -> F,
        F: Future<Output = Result<T, VaultError>>,
    {
        self.call_with(operation, Asking::about(lane), Retries::default(), send)
            .await
    }

    /// The same, with retries of one's own. An outage is noticed also without any.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub async fn call_with<T, F, S>(
        &self,
        operation: &'static str,
        asking: Asking<'_>,
        retries: Retries,
        send: S,
    ) -> Result<T, CallError>
    where
        S: Fn(Arc<Transport>) -> F,
        F: Future<Output = Result<T, VaultError>>,
    {
        let mut trial = Trial::new(retries);
        let mut transport = self.pooled.read().unwrap_or_else(PoisonError::into_inner).clone();
        loop {
            self.turn(asking, trial.begun).await?;
            let error = match self.counted(operation, asking.lane, send(transport.clone()).await) {
                Ok(answer) => return Ok(answer),
                // The lane slows down; then the next turn comes.
                Err(VaultError::RateLimited { .. }) => continue,
                Err(error) => error,
            };
            self.retry(error, &mut trial).await?;
            transport = self.fresh.clone();
        }
    }

    /// Waits until the pace lets this call through.
    async fn turn(&self, asking: Asking<'_>, begun: Instant) -> Result<(), CallError> {
        loop {
            if let Health::Down(down) = self.health() {
                return Err(CallError::Outage(down));
            }
            let now = Instant::now();
            let turn = self.paces().turn(asking.lane, now);
            if turn.at > begun + PATIENCE {
                return Err(CallError::Vault(VaultError::RateLimited {
                    retry_after: Some(turn.at - now),
                    phrase: None,
                }));
            }
            if turn.at > now {
                match asking.place {
                    Some(place) => place.left_for(sleep_until(turn.at)).await,
                    None => sleep_until(turn.at).await,
                }
            }
            if self.paces().holds(asking.lane, &turn) {
                return Ok(());
            }
        }
    }

    fn counted<T>(
        &self,
        operation: &'static str,
        lane: &Lane,
        result: Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        let outcome = result.as_ref().map_or_else(VaultError::label, |_| "success");
        self.metrics.vault_request(operation, outcome);
        match &result {
            Err(VaultError::RateLimited { retry_after, .. }) => {
                if let Some(pause) = self.paces().limited(lane, Instant::now(), *retry_after) {
                    tracing::debug!(
                        server = self.server.url,
                        %lane,
                        ?pause,
                        "Vault limits the rate of requests"
                    );
                }
            }
            Ok(_) => {
                self.paces().succeeded(lane, Instant::now());
                *self.doubt() = None;
            }
            Err(_) => {}
        }
        result
    }

    fn paces(&self) -> MutexGuard<'_, Paces> {
        self.paces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn doubt(&self) -> MutexGuard<'_, Option<Doubt>> {
        self.doubt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a failed call may be tried again.
    ///
    /// # Errors
    /// What the call brought, if it is not worth another try.
    async fn retry(&self, error: VaultError, trial: &mut Trial) -> Result<(), CallError> {
        // A standby that does not reach the active node redirects to it.
        let redirected = error == VaultError::Redirected;
        if !error.casts_suspicion() && !redirected {
            return Err(CallError::Vault(error));
        }
        // Time that ends while the nodes are looked at leaves one more try, which then meets the same judgement.
        let over = trial.over();
        let seen = self.suspect(redirected, over, trial.begun).await?;
        trial.note(&error, &seen);
        if trial.is_early() && seen != Seen::Election {
            if !trial.least_pause().is_zero() {
                sleep(trial.least_pause()).await;
            }
            return Ok(());
        }
        if (trial.one_node || seen == Seen::Election) && !(over && trial.over()) {
            sleep(trial.pause()).await;
            return Ok(());
        }
        Err(match (error, seen) {
            (_, Seen::Standby(leader)) if trial.electing => {
                self.doubt_standbys(leader);
                CallError::Outage(self.go_down(Outage::NoActiveNode, trial.begun))
            }
            // The next try meets the node that serves.
            _ if trial.electing => CallError::Outage(down_since(Outage::NoActiveNode, trial.begun)),
            (VaultError::Outage(outage), _) => CallError::Outage(down_since(outage, trial.begun)),
            (error, _) => CallError::Vault(error),
        })
    }

    /// Asks for the server's health, once for all who suspect it at the same time; `redirected` says that a call was.
    ///
    /// # Errors
    /// The outage, if it is one. An election is one only if the time of the call is `over`.
    async fn suspect(&self, redirected: bool, over: bool, begun: Instant) -> Result<Seen, CallError> {
        let asked = Instant::now();
        let mut last = self.suspicion.lock().await;
        if let Health::Down(down) = self.health() {
            return Err(CallError::Outage(down));
        }
        // Whoever waited for another's probe need not send one of their own.
        let known = last.as_ref().filter(|(at, _)| *at >= asked);
        let seen = match known {
            Some((_, seen)) => seen.clone(),
            None => {
                let probed = Instant::now();
                let election = last
                    .as_ref()
                    .is_some_and(|(at, seen)| *seen == Seen::Election && at.elapsed() < UNSTEADY);
                let seen = self.look_afresh(redirected, election, begun).await?;
                *last = Some((probed, seen.clone()));
                seen
            }
        };
        if over && seen == Seen::Election {
            return Err(CallError::Outage(self.go_down(Outage::NoActiveNode, begun)));
        }
        Ok(seen)
    }

    async fn look_afresh(&self, redirected: bool, election: bool, begun: Instant) -> Result<Seen, CallError> {
        let seen = match self.look(None).await {
            Ok(Serving::Itself) => Seen::Active,
            Ok(Serving::Through(leader)) => Seen::Standby(leader),
            Err(Outage::NoActiveNode) => return Ok(Seen::Election),
            // Nodes that change places break connections for a moment.
            Err(Outage::Unreachable(_)) if election => return Ok(Seen::Election),
            // What redirects its health check as well is no standby: the call's error says what to do.
            Err(Outage::Failing(300..400)) if redirected => {
                return Err(CallError::Vault(VaultError::Redirected));
            }
            Err(outage) => return Err(CallError::Outage(self.go_down(outage, begun))),
        };
        // A kept connection may lead to the one pod that is sealed: begin anew with all of them.
        if let Ok(transport) = Transport::new(&self.server, Connections::Pooled, self.states.clone()) {
            *self.pooled.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(transport);
        }
        Ok(seen)
    }

    /// Who comes later to the same conclusion learns since when it holds.
    fn go_down(&self, outage: Outage, begun: Instant) -> Down {
        let mut down = down_since(outage, begun);
        self.health.send_if_modified(|health| match health {
            Health::Down(known) => {
                down = *known;
                false
            }
            Health::Up => {
                *health = Health::Down(down);
                true
            }
        });
        down
    }

    /// Several probes, until one is good; else the outage that explains most. `known` is one that needs no
    /// confirmation.
    async fn look(&self, known: Option<Outage>) -> Result<Serving, Outage> {
        let (mut worst, mut slow) = (None, 0);
        for _ in 0..PROBES {
            let asked = Instant::now();
            let outage = match self.probe().await {
                Ok(serving) => return Ok(serving),
                Err(outage) => outage,
            };
            worst = worst.filter(|worst| says_more(*worst, outage)).or(Some(outage));
            slow += u32::from(asked.elapsed() > SLOW);
            if slow >= SLOW_PROBES || (known == Some(outage) && outage != Outage::NoActiveNode) {
                break;
            }
        }
        Err(worst.unwrap_or(Outage::Failing(0)))
    }

    async fn probe(&self) -> Result<Serving, Outage> {
        let result = health::probe(&self.fresh).await;
        let result = match result {
            Ok(Serving::Through(leader)) if self.doubts(&leader) => Err(Outage::NoActiveNode),
            other => other,
        };
        self.metrics.vault_probe(result.is_ok());
        result
    }

    fn doubts(&self, leader: &ActiveNode) -> bool {
        self.doubt()
            .as_ref()
            .is_some_and(|doubt| doubt.leader == *leader && Instant::now() < doubt.until)
    }

    fn doubt_standbys(&self, leader: ActiveNode) {
        let mut doubt = self.doubt();
        let wait = doubt
            .as_ref()
            .map_or(DOUBT_FIRST, |before| (before.wait * 2).min(DOUBT_MAX));
        let until = Instant::now() + wait;
        *doubt = Some(Doubt { leader, until, wait });
    }

    /// Watches over the server for as long as somebody holds it: while it is down, asks for its health again and
    /// again, and tells the subscribers when that changes. `another` says whether another server answers.
    pub async fn watch_over(connection: std::sync::Weak<Self>, another: impl Fn() -> bool) {
        let Some(mut changes) = connection.upgrade().map(|strong| strong.subscribe()) else {
            return;
        };
        let mut pauses = Pauses::default();
        loop {
            let Some(strong) = connection.upgrade() else {
                return;
            };
            match strong.health() {
                Health::Up => {
                    pauses = Pauses::default();
                    drop(strong);
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
                Health::Down(down) => {
                    let mut outage = down.outage;
                    match strong.look(Some(outage)).await {
                        Ok(_) => {
                            strong.health.send_replace(Health::Up);
                            continue;
                        }
                        Err(new) if new != outage => {
                            outage = new;
                            strong.health.send_replace(Health::Down(Down { outage, ..down }));
                            // Something happens there: an unsealed node is about to lead, for example.
                            pauses = Pauses::default();
                        }
                        Err(_) => {}
                    }
                    let pause = pauses.next(Situation {
                        outage,
                        awaited: strong.awaited.load(Ordering::Relaxed),
                        another_answers: another(),
                    });
                    let came = strong.came.clone();
                    drop(strong);
                    // The first who comes is looked for at once.
                    let _ = timeout(pause.mul_f64(rand::random_range(0.8..1.0)), came.notified()).await;
                }
            }
        }
    }

    /// Checks the server now, for a store that is validated.
    ///
    /// # Errors
    /// The outage, if it is one.
    pub async fn validate(&self) -> Result<(), Down> {
        match self.suspect(false, true, Instant::now()).await {
            Err(CallError::Outage(down)) => Err(down),
            _ => Ok(()),
        }
    }
}

/// Whether the first of two outages says more of the server: one node without a leader more than another that is
/// sealed, and whatever answered more than a node that did not, or was too slow for once.
fn says_more(one: Outage, other: Outage) -> bool {
    let rank = |outage| match outage {
        Outage::NoActiveNode => 2,
        Outage::Unreachable(_) => 0,
        _ => 1,
    };
    rank(one) > rank(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::error::Unreachable;

    #[test]
    fn what_answers_says_more_than_what_does_not_and_an_election_the_most() {
        let slow = Outage::Unreachable(Unreachable::Timeout);
        let redirects = Outage::Failing(301);
        for (one, other, wanted) in [
            (redirects, slow, true),
            (slow, redirects, false),
            (Outage::Sealed, slow, true),
            (Outage::NoActiveNode, Outage::Sealed, true),
            (Outage::Sealed, Outage::NoActiveNode, false),
            // Of equals the last is told.
            (Outage::Sealed, redirects, false),
        ] {
            assert_eq!(says_more(one, other), wanted, "{one:?} {other:?}");
        }
    }
}
