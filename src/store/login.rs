//! The token of one identity: obtained once, renewed, replaced when it dies, revoked at the end.

mod retired;
mod state;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio::time::Instant;

pub use self::state::Pass;
use self::state::{Held, State, spend};
use super::auth::Proof;
use super::connection::{CallError, Connection, Down};
use super::credentials::{CredentialError, Credentials, Identity};
use super::pace::Lane;
use super::settings::Settings;
use crate::vault::auth::{self, Lease};
use crate::vault::error::VaultError;
use crate::vault::transport::{Call, Token, Transport};

/// Between logins that a 403 asked for: one path without a policy must not become a stream of logins.
const RELOGIN_FIRST: Duration = Duration::from_secs(2);
const RELOGIN_MAX: Duration = Duration::from_secs(60);
/// A renewal that an outage or a rate limit prevented is tried again after this long.
const RENEW_AGAIN: Duration = Duration::from_secs(5);

/// Who renews tokens, among the namespaces that read.
const KEEPER: &str = "";

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The server is out of service: wait for it.
    #[error("Vault {}", .0.outage)]
    Outage(Down),
    /// The identity cannot log in.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The server limits the rate of requests.
    #[error("Vault limits the rate of requests")]
    RateLimited,
}

/// What sessions tell those who look after stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginChanged {
    /// Which session.
    pub session: u64,
}

/// A login that brought no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What Vault answered to which role, or what is missing in the cluster.
    pub message: String,
    /// Whose fault it is.
    pub fault: Fault,
}

/// Whose fault it is that a login brought no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// That of the role, or of a proof that Vault does not take.
    Identity,
    /// That of a proof that is missing or unfit, or may not be had: Vault was not asked.
    Proof,
    /// The same as of the identity, and Vault counts it: a few more, and it locks the account out.
    Counted,
    /// That of the server, though its health is good, or of what stands in front of it.
    Server,
    /// That of the API server, which did not give the proof.
    Cluster,
}

impl Fault {
    /// One word for a condition's reason.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Identity | Self::Proof | Self::Counted => "VaultDenied",
            Self::Server => "VaultFailing",
            Self::Cluster => "APIServerFailing",
        }
    }
}

fn unproven(error: CredentialError) -> LoginError {
    let (message, fault) = match error {
        CredentialError::Unfit(message) => (message, Fault::Proof),
        CredentialError::Unreachable(message) => (message, Fault::Cluster),
    };
    LoginError::Refused(Refusal { message, fault })
}

fn refused(message: String) -> LoginError {
    let fault = Fault::Identity;
    LoginError::Refused(Refusal { message, fault })
}

/// Outages and rate limits are no answer to a login; anything else that Vault says is.
fn answered<T>(result: Result<T, CallError>) -> Result<Result<T, VaultError>, LoginError> {
    match result {
        Ok(answer) => Ok(Ok(answer)),
        Err(CallError::Outage(down)) => Err(LoginError::Outage(down)),
        Err(CallError::Vault(VaultError::RateLimited { .. })) => Err(LoginError::RateLimited),
        Err(CallError::Vault(error)) => Ok(Err(error)),
    }
}

/// The token of one identity at one server.
pub struct Login {
    id: u64,
    connection: Arc<Connection>,
    settings: Arc<Settings>,
    identity: Identity,
    credentials: Arc<dyn Credentials>,
    state: AsyncMutex<State>,
    changes: mpsc::UnboundedSender<LoginChanged>,
}

impl Login {
    /// An identity that has not logged in yet; `id` names it to those who listen for changes.
    #[must_use]
    pub fn new(
        id: u64,
        connection: Arc<Connection>,
        settings: Arc<Settings>,
        identity: Identity,
        credentials: Arc<dyn Credentials>,
        changes: mpsc::UnboundedSender<LoginChanged>,
    ) -> Self {
        Self {
            id,
            connection,
            settings,
            identity,
            credentials,
            state: AsyncMutex::default(),
            changes,
        }
    }

    /// Number of this session.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whom Vault takes it for, for messages.
    #[must_use]
    pub fn whom(&self) -> String {
        self.settings.auth.method().whom()
    }

    /// A quota of logins is about the mount, and may be about the role.
    fn lane(&self) -> Lane {
        let method = self.settings.auth.method();
        let mount = method.mount().map_or("", |(mount, _)| mount);
        format!("auth/{mount} {}", method.whom()).into()
    }

    /// Logs in if there is no living token; all who ask meanwhile share one login.
    ///
    /// # Errors
    /// See [`LoginError`]. A refusal is remembered and answered from memory until it is time to try again.
    pub async fn ensure(&self) -> Result<(), LoginError> {
        let mut state = self.state.lock().await;
        self.ensured(&mut state).await.map(|_| ())
    }

    /// The token for one request.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub async fn token(&self) -> Result<Pass, LoginError> {
        let mut state = self.state.lock().await;
        self.ensured(&mut state)
            .await
            .map(|(held, serial)| spend(held, serial))
    }

    /// The token, and the number of its login.
    async fn ensured<'a>(&self, state: &'a mut State) -> Result<(&'a mut Held, u64), LoginError> {
        let held = match state.held.take().filter(Held::is_alive) {
            Some(living) => living,
            None => self.taken(state).await?,
        };
        let serial = state.serial;
        Ok((state.held.insert(held), serial))
    }

    /// A new token to hold; without one there is none.
    async fn taken(&self, state: &mut State) -> Result<Held, LoginError> {
        match self.obtain(state).await {
            Ok(lease) => Ok(self.note(state, lease)),
            Err(error) => {
                if matches!(error, LoginError::Refused(_)) {
                    self.deny(state);
                }
                Err(error)
            }
        }
    }

    /// A new token, unless a refusal is still remembered.
    async fn obtain(&self, state: &mut State) -> Result<Lease, LoginError> {
        if let Some(refused) = &state.refused
            && refused.retry > Instant::now()
        {
            return Err(LoginError::Refused(refused.refusal.clone()));
        }
        self.attempt().await.inspect_err(|error| {
            if let LoginError::Refused(refusal) = error {
                state.refuse(refusal);
            }
        })
    }

    /// Forgets a refused login, because something it depends on changed.
    pub async fn forget_refusal(&self) {
        let mut state = self.state.lock().await;
        state.refused = None;
        state.relogin_pause = Duration::ZERO;
    }

    /// Takes note of a new token.
    fn note(&self, state: &mut State, lease: Lease) -> Held {
        state.serial += 1;
        state.refused = None;
        if std::mem::take(&mut state.denied) {
            self.tell();
        }
        Held::new(lease)
    }

    /// Takes a new token; the old one comes back.
    fn replace(&self, state: &mut State, lease: Lease) -> Option<Held> {
        let held = self.note(state, lease);
        state.held.replace(held)
    }

    /// Takes note that there is no token, and none to be had.
    fn deny(&self, state: &mut State) {
        state.held = None;
        if !std::mem::replace(&mut state.denied, true) {
            self.tell();
        }
    }

    fn tell(&self) {
        // Nobody listens during shutdown; then nobody needs to know.
        let _ = self.changes.send(LoginChanged { session: self.id });
    }

    async fn attempt(&self) -> Result<Lease, LoginError> {
        let method = self.settings.auth.method();
        let proof = method
            .proof(self.credentials.as_ref(), &self.identity)
            .await
            .map_err(unproven)?;
        match proof {
            Proof::Token(secret) => {
                let token = Token::new(&secret)
                    .map_err(|error| refused(format!("{error}; see {}", method.whom())))?;
                self.look_up(token).await
            }
            Proof::Login { call, whose } => self.log_in(call, &whose).await,
        }
    }

    async fn log_in(&self, call: Call, whose: &str) -> Result<Lease, LoginError> {
        let log_in = |transport| auth::log_in(transport, self.settings.auth_namespace.clone(), call.clone());
        let answer = answered(self.connection.call("login", &self.lane(), log_in).await)?;
        answer.map_err(|error| {
            let auth = &self.settings.auth;
            let message = auth.refusal(self.connection.url(), &error, whose);
            let fault = match error {
                _ if auth.method().locks_out(&error) => Fault::Counted,
                VaultError::Status { status: 500.., .. }
                | VaultError::Unreachable(_)
                | VaultError::Outage(_)
                | VaultError::Redirected
                | VaultError::NotVault
                | VaultError::InFront { .. } => Fault::Server,
                _ => Fault::Identity,
            };
            LoginError::Refused(Refusal { message, fault })
        })
    }

    /// A given token costs one look at it where another costs a login: it tells a dead token from one
    /// without a policy, and when it must be renewed. A token that may not look at itself is taken as it is.
    async fn look_up(&self, token: Token) -> Result<Lease, LoginError> {
        match answered(self.about("lookup", &token, auth::look_up).await)? {
            Ok(lease) => Ok(lease),
            Err(error) if error.is_dead_token() => Err(refused(format!(
                "Vault {} does not know {}: it has expired, was revoked, or is of another Vault or namespace; {}",
                self.connection.url(),
                self.whom(),
                self.settings.auth.method().advice(),
            ))),
            Err(_) => Ok(Lease::given(token)),
        }
    }

    /// What a token asks about itself, in the namespace that it was obtained in.
    async fn about<T, F: Future<Output = Result<T, VaultError>>>(
        &self,
        operation: &'static str,
        token: &Token,
        ask: impl Fn(Arc<Transport>, Option<String>, Token) -> F,
    ) -> Result<T, CallError> {
        let ask = |transport| ask(transport, self.settings.auth_namespace.clone(), token.clone());
        self.connection
            .call(operation, &Lane::from("auth/token"), ask)
            .await
    }

    /// The token to retry with after a 403: a newer one that somebody else obtained meanwhile, or one of a new
    /// login; `None` if the last such login is too recent, or there is no better token to be had.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub async fn after_403(&self, seen: u64, answer: &VaultError) -> Result<Option<Pass>, LoginError> {
        let mut state = self.state.lock().await;
        let mut needless = None;
        if state.serial == seen {
            let pause = state.relogin_pause;
            if state.relogin_at.is_some_and(|at| at.elapsed() < pause) {
                return Ok(None);
            }
            state.relogin_at = Some(Instant::now());
            state.relogin_pause = (pause * 2).clamp(RELOGIN_FIRST, RELOGIN_MAX);
            match self.obtain(&mut state).await {
                Ok(lease) if self.settings.auth.is_given() && state.holds(&lease.token) => return Ok(None),
                Ok(lease) => {
                    let old = self.replace(&mut state, lease);
                    match old {
                        Some(dead) if answer.is_dead_token() => dead.tenure.end(),
                        // It may live, without the policies that the new one has.
                        old => needless = state.retire(old),
                    }
                }
                Err(LoginError::Refused(refusal)) => {
                    // A secret ID may be used up while the token that it gave lives: that is kept.
                    if !answer.is_dead_token() && self.is_living(&state).await {
                        tracing::warn!(refusal.message, "no new login after a 403; the token is kept");
                        return Ok(None);
                    }
                    self.deny(&mut state);
                    return Err(LoginError::Refused(refusal));
                }
                Err(other) => return Err(other),
            }
        }
        let pass = self
            .ensured(&mut state)
            .await
            .map(|(held, serial)| spend(held, serial))?;
        drop(state);
        self.revoke(needless).await;
        Ok(Some(pass))
    }

    /// Whether the held token lives, as Vault says.
    async fn is_living(&self, state: &State) -> bool {
        match &state.held {
            Some(held) => self
                .about("lookup", &held.lease.token, auth::look_up)
                .await
                .is_ok(),
            None => false,
        }
    }

    /// What else than its policies may be wrong with the token, to follow the advice for a 403.
    pub async fn doubt(&self) -> &'static str {
        let mut state = self.state.lock().await;
        let Some(held) = &mut state.held else { return "" };
        // Every token may look at itself, by Vault's default policy: asked once, and not of one with few uses.
        if held.blind.is_none() && held.lease.uses.is_none() {
            let looked = self.about("lookup", &held.lease.token, auth::look_up).await;
            held.blind = Some(matches!(looked, Err(CallError::Vault(VaultError::Denied { .. }))));
        }
        match held.blind {
            Some(true) => {
                "; or its token is bound to other addresses (token_bound_cidrs), for it may not even look at itself"
            }
            _ => "",
        }
    }

    /// Takes note that a new login helped: the next dead token deserves one at once.
    pub async fn helped(&self) {
        self.state.lock().await.relogin_pause = Duration::ZERO;
    }

    /// Looks whether the Secret of a given token holds another one now.
    pub async fn refresh_given(&self) {
        if !self.settings.auth.is_given() {
            return;
        }
        let mut state = self.state.lock().await;
        let method = self.settings.auth.method();
        let proof = method.proof(self.credentials.as_ref(), &self.identity).await;
        let same = match proof {
            Ok(Proof::Token(secret)) => Token::new(&secret).is_ok_and(|token| state.holds(&token)),
            _ => false,
        };
        if !same && let Some(old) = state.held.take() {
            // Whoever gave another one ends the old one, and with it its leases.
            old.tenure.end();
        }
    }

    /// Whether the token must be renewed, at two thirds of its life, or a refused login may be tried again. Not while
    /// something is done about either.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let Ok(state) = self.state.try_lock() else {
            return false;
        };
        state.renewal_due() || state.refusal_over() || state.retired_due()
    }

    /// Does what [is due](Self::is_due), as one of the requests that the server is given at once.
    pub async fn keep(&self) {
        let _place = self
            .connection
            .place(&Arc::from(KEEPER), &Lane::from("auth/token"))
            .await;
        let due = self.state.lock().await.renewal_due();
        if due && let Err(error) = self.renew().await {
            let error = error.to_string();
            tracing::debug!(error, "token not renewed; it is tried again");
        }
        self.keep_retired().await;
        if self.state.lock().await.refusal_over() {
            // Success is told through the same channel as any change of a login.
            let _ = self.ensure().await;
        }
    }

    /// Renews the token, or replaces it when renewal is refused or brings less than half of its life. A token
    /// that can be neither renewed nor replaced is used to its end.
    ///
    /// # Errors
    /// As [`Self::ensure`].
    pub async fn renew(&self) -> Result<(), LoginError> {
        let mut state = self.state.lock().await;
        let Some(held) = &mut state.held else {
            return Ok(());
        };
        held.renew_at = Some(Instant::now() + RENEW_AGAIN);
        if held.lease.renewable && self.renewed(held).await? {
            return Ok(());
        }
        if self.settings.auth.is_given() {
            held.renew_at = None;
            return Ok(());
        }
        match self.obtain(&mut state).await {
            Ok(lease) => {
                let old = self.replace(&mut state, lease);
                let needless = state.retire(old);
                drop(state);
                self.revoke(needless).await;
                Ok(())
            }
            Err(LoginError::Refused(refusal)) => {
                let State { held, refused, .. } = &mut *state;
                if let (Some(held), Some(refused)) = (held, refused) {
                    held.renew_at = Some(refused.retry);
                }
                tracing::warn!(
                    refusal.message,
                    "no new login while the token still lives; it is used to its end"
                );
                Ok(())
            }
            Err(other) => Err(other),
        }
    }
}

#[cfg(test)]
mod retired_tests;
#[cfg(test)]
pub(in crate::store) mod tests;
