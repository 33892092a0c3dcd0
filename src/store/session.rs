//! One identity at one server: its token, its logins, and the reads it shares.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::connection::{CallError, Connection, Down};
use super::credentials::{Credentials, Identity};
use super::settings::{Auth, Settings};
use crate::vault::auth::{self, Lease};
use crate::vault::error::VaultError;
use crate::vault::kv::{KvAnswer, Question, SecretPath};
use crate::vault::transport::{Token, Transport};

/// A refused login is tried again after this long, doubling up to [`DENIED_MAX`].
const DENIED_FIRST: Duration = Duration::from_secs(30);
const DENIED_MAX: Duration = Duration::from_secs(300);
/// Between two requests for one path: what refreshes many ExternalSecrets of one path triggers them one
/// after the other, and they shall share a request. Nobody waits for it who is alone.
const SPACING: Duration = Duration::from_millis(500);
/// Between logins that a 403 asked for: one path without a policy must not become a stream of logins.
const RELOGIN_FIRST: Duration = Duration::from_secs(2);
const RELOGIN_MAX: Duration = Duration::from_secs(60);

/// Why a read brought no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The server is out of service: wait for it.
    Outage(Down),
    /// The identity cannot log in: wait for the store. The text says what Vault answered to which role.
    Login(String),
    /// Vault does not let this identity read this path.
    Denied(String),
    /// Anything else that Vault said to this read.
    Vault(VaultError),
}

/// What sessions tell those who look after stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginChanged {
    /// Which session.
    pub session: u64,
}

type Waiting = Vec<oneshot::Sender<Result<KvAnswer, ReadError>>>;

/// A read of one path: those who wait for the next request for it.
#[derive(Default)]
struct Slot {
    waiting: Waiting,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct ReadKey {
    path: SecretPath,
    question: Question,
}

/// The token's state.
#[derive(Default)]
struct State {
    held: Option<Held>,
    /// Counts logins, so that one dead token is replaced once however many readers saw it die.
    serial: u64,
    denied: Option<Denied>,
    relogin_at: Option<Instant>,
    relogin_pause: Duration,
}

#[derive(Clone)]
struct Held {
    lease: Lease,
    taken: Instant,
}

#[derive(Clone)]
struct Denied {
    message: String,
    retry: Instant,
    pause: Duration,
}

/// One identity at one server.
pub struct Session {
    id: u64,
    connection: Arc<Connection>,
    settings: Arc<Settings>,
    identity: Identity,
    credentials: Arc<dyn Credentials>,
    state: AsyncMutex<State>,
    reads: Mutex<HashMap<ReadKey, Slot>>,
    changes: mpsc::UnboundedSender<LoginChanged>,
}

impl Session {
    /// A session that has not logged in yet.
    #[must_use]
    pub fn new(
        id: u64,
        connection: Arc<Connection>,
        settings: Arc<Settings>,
        identity: Identity,
        credentials: Arc<dyn Credentials>,
        changes: mpsc::UnboundedSender<LoginChanged>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            connection,
            settings,
            identity,
            credentials,
            state: AsyncMutex::default(),
            reads: Mutex::default(),
            changes,
        })
    }

    /// Number of this session.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Logs in if there is no living token; all who ask meanwhile share one login.
    ///
    /// # Errors
    /// An outage, or why the login is refused. A refusal is remembered and answered from memory until
    /// it is time to try again.
    pub async fn log_in(&self) -> Result<(), ReadError> {
        let mut state = self.state.lock().await;
        self.token(&mut state).await.map(|_| ())
    }

    /// Forgets a refused login, because something it depends on changed.
    pub async fn forget_refusal(&self) {
        self.state.lock().await.denied = None;
    }

    /// Whether a refused login may be tried again now.
    pub async fn refusal_over(&self) -> bool {
        self.state
            .lock()
            .await
            .denied
            .as_ref()
            .is_some_and(|denied| denied.retry <= Instant::now())
    }

    async fn token(&self, state: &mut State) -> Result<(Token, u64), ReadError> {
        if let Some(held) = &state.held
            && held.lease.ttl.is_none_or(|ttl| held.taken.elapsed() < ttl)
        {
            return Ok((held.lease.token.clone(), state.serial));
        }
        if let Some(denied) = state
            .denied
            .as_ref()
            .filter(|denied| denied.retry > Instant::now())
        {
            return Err(ReadError::Login(denied.message.clone()));
        }
        match self.obtain().await {
            Ok(lease) => {
                state.serial += 1;
                let token = lease.token.clone();
                state.held = Some(Held {
                    lease,
                    taken: Instant::now(),
                });
                if state.denied.take().is_some() {
                    self.tell();
                }
                Ok((token, state.serial))
            }
            Err(ReadError::Login(message)) => {
                let pause = state
                    .denied
                    .as_ref()
                    .map_or(DENIED_FIRST, |denied| (denied.pause * 2).min(DENIED_MAX));
                let first = state.denied.is_none();
                let retry = Instant::now() + pause.mul_f64(rand::random_range(0.9..1.0));
                state.denied = Some(Denied {
                    message: message.clone(),
                    retry,
                    pause,
                });
                state.held = None;
                if first {
                    self.tell();
                }
                Err(ReadError::Login(message))
            }
            Err(other) => Err(other),
        }
    }

    fn tell(&self) {
        // Nobody listens during shutdown; then nobody needs to know.
        let _ = self.changes.send(LoginChanged { session: self.id });
    }

    async fn obtain(&self) -> Result<Lease, ReadError> {
        let login = |message: String| ReadError::Login(message);
        match &self.settings.auth {
            Auth::Token(key) => {
                let token = self
                    .credentials
                    .secret(key, &self.identity)
                    .await
                    .map_err(login)?;
                Lease::given(&token)
                    .map_err(|e| login(format!("{e}; see key '{}' of Secret {}", key.key, key.name)))
            }
            Auth::Kubernetes { mount, role, jwt } => {
                let token = self.credentials.jwt(jwt, &self.identity).await.map_err(login)?;
                let login_with = |transport: Arc<Transport>| {
                    let (namespace, mount) = (self.settings.auth_namespace.clone(), mount.clone());
                    let (role, jwt) = (role.clone(), token.jwt.clone());
                    async move { auth::login_kubernetes(&transport, namespace, &mount, &role, &jwt).await }
                };
                self.connection
                    .call("login", login_with)
                    .await
                    .map_err(|error| match error {
                        CallError::Outage(down) => ReadError::Outage(down),
                        CallError::Vault(VaultError::RateLimited { .. }) => {
                            ReadError::Vault(VaultError::RateLimited {
                                retry_after: None,
                                phrase: None,
                            })
                        }
                        CallError::Vault(error) => login(login_message(
                            self.connection.url(),
                            &error,
                            mount,
                            role,
                            &token.whose,
                        )),
                    })
            }
        }
    }

    /// When the token must be renewed: at two thirds of its life.
    pub async fn renewal_due(&self) -> Option<Instant> {
        let state = self.state.lock().await;
        let held = state.held.as_ref()?;
        Some(held.taken + held.lease.ttl?.mul_f64(2.0 / 3.0))
    }

    /// Renews the token, or replaces it when renewal is refused or brings less than half of its life.
    ///
    /// # Errors
    /// As [`Self::log_in`].
    pub async fn renew(&self) -> Result<(), ReadError> {
        let mut state = self.state.lock().await;
        let Some(held) = state.held.clone() else {
            return Ok(());
        };
        if held.lease.renewable {
            let renew_with = |transport: Arc<Transport>| {
                let (namespace, token) = (self.settings.auth_namespace.clone(), held.lease.token.clone());
                async move { auth::renew(&transport, namespace, &token).await }
            };
            let renewed = self.connection.call("renew", renew_with).await;
            match renewed {
                Ok(lease) if lease.ttl >= held.lease.ttl.map(|ttl| ttl / 2) => {
                    state.held = Some(Held {
                        lease,
                        taken: Instant::now(),
                    });
                    return Ok(());
                }
                // The token still lives; the next try comes soon.
                Err(error @ (CallError::Outage(_) | CallError::Vault(VaultError::RateLimited { .. }))) => {
                    return Err(error.into());
                }
                // Capped by its maximum, or refused: log in anew while the old one still lives.
                _ => {}
            }
        }
        state.held = None;
        self.token(&mut state).await?;
        drop(state);
        self.revoke_lease(&held.lease).await;
        Ok(())
    }

    /// Revokes the token, if a login of ours obtained it. For shutdown, and for stores that are gone.
    pub async fn close(&self) {
        let held = self.state.lock().await.held.take();
        if let Some(held) = held {
            self.revoke_lease(&held.lease).await;
        }
    }

    async fn revoke_lease(&self, lease: &Lease) {
        if lease.revocable {
            let revoke_with = |transport: Arc<Transport>| {
                let (namespace, token) = (self.settings.auth_namespace.clone(), lease.token.clone());
                async move { auth::revoke(&transport, namespace, &token).await }
            };
            let revoked = self.connection.call("revoke", revoke_with).await;
            if let Err(error) = revoked {
                tracing::debug!(
                    server = self.connection.url(),
                    ?error,
                    "token not revoked; it ends with its life"
                );
            }
        }
    }

    /// Asks about a path. Whoever asks before the request is sent shares it; whoever asks later gets the
    /// next one, so that no answer is older than the question (promise 3). There is no cache.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn ask(self: &Arc<Self>, path: SecretPath, question: Question) -> Result<KvAnswer, ReadError> {
        let (sender, receiver) = oneshot::channel();
        let key = ReadKey { path, question };
        let first = {
            let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
            let first = !reads.contains_key(&key);
            reads.entry(key.clone()).or_default().waiting.push(sender);
            first
        };
        if first {
            tokio::spawn(self.clone().serve(key));
        }
        // The sender is only dropped unused if serving panicked.
        receiver
            .await
            .unwrap_or(Err(ReadError::Vault(VaultError::BadAnswer(
                "the read was abandoned; it will be repeated",
            ))))
    }

    /// Sends requests for one path until nobody waits for another one.
    async fn serve(self: Arc<Self>, key: ReadKey) {
        let guard = SlotGuard {
            session: &self,
            key: &key,
        };
        loop {
            // The permit comes first: while it is awaited, more readers may join.
            let permit = self.connection.permit().await;
            let Some(waiting) = guard.take() else {
                return;
            };
            let sent = Instant::now();
            let answer = self.request(&key).await;
            drop(permit);
            for sender in waiting {
                let _ = sender.send(answer.clone());
            }
            // Whoever asks for the same within this time shares the next request.
            sleep_until(sent + SPACING).await;
        }
    }

    async fn request(&self, key: &ReadKey) -> Result<KvAnswer, ReadError> {
        let (token, serial) = {
            let mut state = self.state.lock().await;
            self.token(&mut state).await?
        };
        match self.send(key, &token).await {
            Err(CallError::Vault(VaultError::Denied { .. })) => {}
            other => return other.map_err(ReadError::from),
        }
        // 403: a dead token, or no policy for the path. One new login tells (promise 4).
        let denied = || {
            let (path, operation) = (key.path.policy_path(key.question), key.question.operation());
            ReadError::Denied(format!(
                "Vault {} answered 403 to the {operation} of '{path}': no policy of {} allows it; add 'path \"{path}\" \
                 {{ capabilities = [\"{operation}\"] }}' to one of its policies",
                self.connection.url(),
                self.settings.auth.whose(),
            ))
        };
        let Some(token) = self.log_in_after_403(serial).await? else {
            return Err(denied());
        };
        match self.send(key, &token).await {
            Err(CallError::Vault(VaultError::Denied { .. })) => Err(denied()),
            Ok(answer) => {
                // The new login helped: the next dead token deserves one at once.
                self.state.lock().await.relogin_pause = Duration::ZERO;
                Ok(answer)
            }
            Err(other) => Err(other.into()),
        }
    }

    /// The token to retry with: a newer one that somebody else obtained meanwhile, or one of a new
    /// login; `None` if the last such login is too recent, or the token was given to us.
    async fn log_in_after_403(&self, seen: u64) -> Result<Option<Token>, ReadError> {
        let mut state = self.state.lock().await;
        if state.serial == seen {
            if matches!(self.settings.auth, Auth::Token(_)) && !self.given_token_changed(&state).await? {
                return Ok(None);
            }
            if state
                .relogin_at
                .is_some_and(|at| at.elapsed() < state.relogin_pause)
            {
                return Ok(None);
            }
            state.relogin_at = Some(Instant::now());
            state.relogin_pause = (state.relogin_pause * 2).clamp(RELOGIN_FIRST, RELOGIN_MAX);
            state.held = None;
        }
        self.token(&mut state).await.map(|(token, _)| Some(token))
    }

    /// A token that was given to us is worth a retry only if the Secret holds another one now.
    async fn given_token_changed(&self, state: &State) -> Result<bool, ReadError> {
        let lease = self.obtain().await?;
        Ok(state
            .held
            .as_ref()
            .is_none_or(|held| held.lease.token != lease.token))
    }

    async fn send(&self, key: &ReadKey, token: &Token) -> Result<KvAnswer, CallError> {
        let read_with = |transport: Arc<Transport>| {
            let (key, token) = (key.clone(), token.clone());
            async move {
                let call = key.path.call(key.question)?.token(&token);
                key.path.answer(key.question, transport.send(call).await?)
            }
        };
        self.connection.call(key.question.operation(), read_with).await
    }
}

/// Takes the readers of a slot, and removes the slot when serving ends, also by a panic.
struct SlotGuard<'a> {
    session: &'a Session,
    key: &'a ReadKey,
}

impl SlotGuard<'_> {
    /// The readers to serve next; `None`, and the slot is gone, if nobody waits.
    fn take(&self) -> Option<Waiting> {
        let mut reads = self.session.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = reads.get_mut(self.key)?;
        if slot.waiting.is_empty() {
            reads.remove(self.key);
            return None;
        }
        Some(std::mem::take(&mut slot.waiting))
    }
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.session
                .reads
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(self.key);
        }
    }
}

impl From<CallError> for ReadError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Outage(down) => Self::Outage(down),
            CallError::Vault(error) => Self::Vault(error),
        }
    }
}

fn login_message(url: &str, error: &VaultError, mount: &str, role: &str, whose: &str) -> String {
    match error {
        VaultError::Denied {
            phrase: Some("permission denied") | None,
        } => format!(
            "Vault {url} answered 403 to the login: role '{role}' (mount '{mount}') does not allow {whose}; check the \
             role's bound_service_account_names and bound_service_account_namespaces, and that Vault may review tokens"
        ),
        VaultError::Denied { phrase: Some(phrase) } => format!(
            "Vault {url} answered 403 to the login: role '{role}' (mount '{mount}') does not allow {whose} ({phrase})"
        ),
        VaultError::Status {
            status: 400,
            phrase: Some("invalid role name"),
        } => {
            format!(
                "Vault {url} has no role '{role}' at auth mount '{mount}'; create it, or correct auth.kubernetes.role"
            )
        }
        VaultError::Status { status: 404, .. } => {
            format!(
                "Vault {url} has no auth method at mount '{mount}'; enable it, or correct auth.kubernetes.mountPath"
            )
        }
        error => {
            format!("login to Vault {url} with role '{role}' (mount '{mount}') as {whose} failed: {error}")
        }
    }
}
