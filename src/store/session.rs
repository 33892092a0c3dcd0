//! One identity at one server: its login, and the reads it shares.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::time::{Instant, sleep_until};

use super::connection::{CallError, Connection, Down};
use super::login::{Login, LoginError, Refusal};
use super::retries::Retries;
use crate::vault::error::VaultError;
use crate::vault::kv::{KvAnswer, Question, SecretPath, Told};
use crate::vault::transport::{Token, Transport};

/// Between two requests for one path: what refreshes many ExternalSecrets of one path triggers them one
/// after the other, and they shall share a request. Nobody waits for it who is alone.
const SPACING: Duration = Duration::from_millis(500);
/// How long it is believed that a mount is as the store says. Only what is not found asks for it.
const MOUNT_KNOWN: Duration = Duration::from_secs(60);

/// Why a read brought no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The server is out of service: wait for it.
    Outage(Down),
    /// The identity cannot log in: wait for the store.
    Login(Refusal),
    /// Vault does not let this identity read this path.
    Denied(String),
    /// Anything else that Vault said to this read.
    Vault(VaultError),
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

/// One identity at one server.
pub struct Session {
    connection: Arc<Connection>,
    login: Login,
    retries: Retries,
    reads: Mutex<HashMap<ReadKey, Slot>>,
    /// The mounts that are as the store says, and when Vault said so.
    mounts: AsyncMutex<HashMap<String, Instant>>,
}

impl Session {
    /// A session over a connection.
    #[must_use]
    pub fn new(connection: Arc<Connection>, login: Login, retries: Retries) -> Arc<Self> {
        Arc::new(Self {
            connection,
            login,
            retries,
            reads: Mutex::default(),
            mounts: AsyncMutex::default(),
        })
    }

    /// Its token.
    #[must_use]
    pub fn login(&self) -> &Login {
        &self.login
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
        match self.told(key).await? {
            Told::Found(json) => Ok(KvAnswer::Found(json)),
            Told::NotFound => self.confirm_missing(&key.path).await,
        }
    }

    /// A 404 may delete a Secret: it is believed only of the mount and the kind of engine that the store names
    /// (promise 1).
    async fn confirm_missing(&self, path: &SecretPath) -> Result<KvAnswer, ReadError> {
        // Held meanwhile, so that many who find nothing in one mount ask once.
        let mut mounts = self.mounts.lock().await;
        mounts.retain(|_, told| told.elapsed() < MOUNT_KNOWN);
        if !mounts.contains_key(path.mount()) {
            let (token, _) = self.login.token().await?;
            let ask = |transport: Arc<Transport>| {
                let (path, token) = (path.clone(), token.clone());
                async move {
                    let reply = transport.send(path.mount_call()?.token(&token)).await?;
                    path.confirm_missing(reply, transport.namespace())
                }
            };
            self.connection.call("mount", ask).await?;
            mounts.insert(path.mount().into(), Instant::now());
        }
        Ok(KvAnswer::Missing)
    }

    async fn told(&self, key: &ReadKey) -> Result<Told, ReadError> {
        let (token, serial) = self.login.token().await?;
        let refused = match self.send(key, &token).await {
            Err(CallError::Vault(refused @ VaultError::Denied { .. })) => refused,
            other => return other.map_err(ReadError::from),
        };
        // 403: a dead token, or no policy for the path. One new login tells (promise 4).
        let Some(token) = self.login.after_403(serial, &refused).await? else {
            return Err(self.denied(key).await);
        };
        match self.send(key, &token).await {
            Err(CallError::Vault(VaultError::Denied { .. })) => Err(self.denied(key).await),
            Ok(answer) => {
                self.login.helped().await;
                Ok(answer)
            }
            Err(other) => Err(other.into()),
        }
    }

    async fn denied(&self, key: &ReadKey) -> ReadError {
        let (path, operation) = (key.path.policy_path(key.question), key.question.operation());
        ReadError::Denied(format!(
            "Vault {} answered 403 to the {operation} of '{path}': no policy of {} allows it; add 'path \"{path}\" {{ \
             capabilities = [\"{operation}\"] }}' to one of its policies{}",
            self.connection.url(),
            self.login.whom(),
            self.login.doubt().await,
        ))
    }

    async fn send(&self, key: &ReadKey, token: &Token) -> Result<Told, CallError> {
        let read_with = |transport: Arc<Transport>| {
            let (key, token) = (key.clone(), token.clone());
            async move {
                let call = key.path.call(key.question)?.token(&token);
                key.path.answer(key.question, transport.send(call).await?)
            }
        };
        let operation = key.question.operation();
        self.connection
            .call_with(operation, self.retries, read_with)
            .await
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

impl From<LoginError> for ReadError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Outage(down) => Self::Outage(down),
            LoginError::Refused(refusal) => Self::Login(refusal),
            LoginError::RateLimited => Self::Vault(VaultError::RateLimited {
                retry_after: None,
                phrase: None,
            }),
        }
    }
}
