//! One identity at one server: its login, and the reads it shares.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::time::{Instant, sleep_until};

use super::connection::{CallError, Connection, Down};
use super::hold::Hold;
use super::login::{Login, LoginError, Pass, Refusal};
use super::pace::Lane;
use super::place::{Asking, Place};
use super::retries::Retries;
use crate::memory;
use crate::vault::body::{LARGEST, SMALL};
use crate::vault::error::VaultError;
use crate::vault::kv::{KvAnswer, Question, SecretPath, Told};
use crate::vault::leased::{self, Terms};
use crate::vault::transport::Transport;

/// Between two requests for one path: what refreshes many ExternalSecrets of one path triggers them one
/// after the other, and they shall share a request. Nobody waits for it who is alone.
const SPACING: Duration = Duration::from_millis(500);
/// How long it is believed that a mount is as the store says. Only what is not found asks for it.
const MOUNT_KNOWN: Duration = Duration::from_secs(60);

/// Paths of which it is remembered that their values are leased, or that they are large. Of others the first answer tells
/// it each time.
const PATHS_MAX: usize = 10_000;
/// Room for answers that are not small. 1 MiB is the most that Vault stores by default.
const ROOMS: [usize; 2] = [2 << 20, LARGEST];
const NO_ROOM: VaultError = VaultError::BadAnswer(
    "Vault's answer needs more memory than the operator has; raise the memory limit of its pod (resources.limits.memory)",
);

/// An answer, and the lease of its values, if they are leased.
#[derive(Clone)]
pub struct Answered {
    /// The answer.
    pub answer: KvAnswer,
    /// The lease, which is the asker's own.
    pub hold: Option<Hold>,
}

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

type Sender = oneshot::Sender<Result<Answered, ReadError>>;
type Waiting = Vec<Sender>;

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
    /// What is leased: each reader gets a lease of its own.
    leasing: Mutex<HashSet<ReadKey>>,
    /// The answers that are not small, and the room that they need.
    large: Mutex<HashMap<ReadKey, usize>>,
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
            leasing: Mutex::default(),
            large: Mutex::default(),
            mounts: AsyncMutex::default(),
        })
    }

    /// Its token.
    #[must_use]
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Asks about a path. Whoever asks before the request is sent shares it; whoever asks later gets the
    /// next one, so that no answer is older than the question (promise 3). There is no cache. What is leased is not
    /// shared at all.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn ask(
        self: &Arc<Self>,
        who: &Arc<str>,
        path: SecretPath,
        question: Question,
    ) -> Result<Answered, ReadError> {
        let (sender, receiver) = oneshot::channel();
        let key = ReadKey { path, question };
        if self.leasing().contains(&key) {
            return self.alone(who, &key).await;
        }
        let first = {
            let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
            let first = !reads.contains_key(&key);
            reads.entry(key.clone()).or_default().waiting.push(sender);
            first
        };
        if first {
            tokio::spawn(self.clone().serve(who.clone(), key));
        }
        // The sender is only dropped unused if serving panicked.
        receiver
            .await
            .unwrap_or(Err(ReadError::Vault(VaultError::BadAnswer(
                "the read was abandoned; it will be repeated",
            ))))
    }

    /// Sends requests for one path until nobody waits for another one.
    async fn serve(self: Arc<Self>, who: Arc<str>, key: ReadKey) {
        let guard = SlotGuard {
            session: &self,
            key: &key,
        };
        loop {
            // The place comes first: while it is awaited, more readers may join.
            let place = self.connection.place(&who, &lane_of(&key)).await;
            let Some(waiting) = guard.take() else {
                return;
            };
            let sent = Instant::now();
            let answer = self.request(&key, &place).await;
            drop(place);
            self.hand_out(&who, &key, waiting, answer);
            // Whoever asks for the same within this time shares the next request.
            sleep_until(sent + SPACING).await;
        }
    }

    fn leasing(&self) -> MutexGuard<'_, HashSet<ReadKey>> {
        self.leasing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn large(&self) -> MutexGuard<'_, HashMap<ReadKey, usize>> {
        self.large.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A leased answer goes to one reader. The others, who could not know it, ask again, each for itself.
    fn hand_out(
        self: &Arc<Self>,
        who: &Arc<str>,
        key: &ReadKey,
        waiting: Waiting,
        answer: Result<Answered, ReadError>,
    ) {
        if !matches!(&answer, Ok(answered) if answered.hold.is_some()) {
            for sender in waiting {
                let _ = sender.send(answer.clone());
            }
            return;
        }
        let mut lease = Some(answer);
        for sender in waiting {
            match lease.take() {
                // Who waits no more leaves it to the next.
                Some(answer) => lease = sender.send(answer).err(),
                None => drop(tokio::spawn(self.clone().ask_for(
                    who.clone(),
                    key.clone(),
                    sender,
                ))),
            }
        }
    }

    async fn ask_for(self: Arc<Self>, who: Arc<str>, key: ReadKey, sender: Sender) {
        let _ = sender.send(self.alone(&who, &key).await);
    }

    /// A request that nobody shares.
    async fn alone(&self, who: &Arc<str>, key: &ReadKey) -> Result<Answered, ReadError> {
        let place = self.connection.place(who, &lane_of(key)).await;
        self.request(key, &place).await
    }

    async fn request(&self, key: &ReadKey, place: &Place) -> Result<Answered, ReadError> {
        let (told, hold) = self.told(key, place).await?;
        let answer = match told {
            Told::Found(json) => KvAnswer::Found(json),
            Told::NotFound => self.confirm_missing(&key.path).await?,
        };
        let mut leasing = self.leasing();
        if hold.is_none() {
            leasing.remove(key);
        } else if leasing.len() < PATHS_MAX {
            leasing.insert(key.clone());
        }
        drop(leasing);
        Ok(Answered { answer, hold })
    }

    /// A 404 may delete a Secret: it is believed only of the mount and the kind of engine that the store names
    /// (promise 1).
    async fn confirm_missing(&self, path: &SecretPath) -> Result<KvAnswer, ReadError> {
        // Held meanwhile, so that many who find nothing in one mount ask once.
        let mut mounts = self.mounts.lock().await;
        mounts.retain(|_, told| told.elapsed() < MOUNT_KNOWN);
        if !mounts.contains_key(path.mount()) {
            let token = self.login.token().await?.token;
            let ask = |transport: Arc<Transport>| {
                let (path, token) = (path.clone(), token.clone());
                async move {
                    let reply = transport.send(path.mount_call()?.token(&token)).await?;
                    path.confirm_missing(reply, transport.namespace())
                }
            };
            self.connection.call("mount", &Lane::from("sys"), ask).await?;
            mounts.insert(path.mount().into(), Instant::now());
        }
        Ok(KvAnswer::Missing)
    }

    async fn told(&self, key: &ReadKey, place: &Place) -> Result<(Told, Option<Hold>), ReadError> {
        let pass = self.login.token().await?;
        let serial = pass.serial;
        let refused = match self.send(key, place, pass).await {
            Err(CallError::Vault(refused @ VaultError::Denied { .. })) => refused,
            other => return other.map_err(ReadError::from),
        };
        // 403: a dead token, or no policy for the path. One new login tells (promise 4).
        let Some(pass) = self.login.after_403(serial, &refused).await? else {
            return Err(self.denied(key).await);
        };
        let serial = pass.serial;
        match self.send(key, place, pass).await {
            Err(CallError::Vault(VaultError::Denied { .. })) => {
                self.login.not_helped(serial).await;
                Err(self.denied(key).await)
            }
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

    /// Asks with as much room as the answer needed before; of an answer that needs more the rest is not read, and it is
    /// asked for again.
    async fn send(
        &self,
        key: &ReadKey,
        place: &Place,
        pass: Pass,
    ) -> Result<(Told, Option<Hold>), CallError> {
        let mut room = self.large().get(key).copied().unwrap_or(SMALL);
        let (told, terms, sent) = loop {
            let sent = self.send_for(key, place, &pass, room).await;
            let larger = ROOMS.into_iter().find(|larger| *larger > room);
            match (sent, larger) {
                (Err(CallError::Vault(VaultError::Larger(_))), Some(larger)) => room = larger,
                (answer, _) => break answer?,
            }
            let mut large = self.large();
            if large.len() < PATHS_MAX {
                large.insert(key.clone(), room);
            }
        };
        Ok((told, terms.map(|terms| pass.lease(terms, sent))))
    }

    async fn send_for(
        &self,
        key: &ReadKey,
        place: &Place,
        pass: &Pass,
        room: usize,
    ) -> Result<(Told, Option<Terms>, Timestamp), CallError> {
        let read_with = |transport: Arc<Transport>| {
            let (key, token) = (key.clone(), pass.token.clone());
            async move {
                // Before the request, whose time is short; others may ask this server meanwhile.
                let _room = match room > SMALL {
                    true => {
                        let text = memory::budget().text(place.who(), room);
                        Some(place.left_for(text).await.ok_or(NO_ROOM)?)
                    }
                    false => None,
                };
                let sent = Timestamp::now();
                let call = key.path.call(key.question)?.token(&token);
                let reply = transport.send_for(call, room).await?;
                let terms = leased::terms(&key.path, key.question, &reply.body);
                Ok((key.path.answer(key.question, reply)?, terms, sent))
            }
        };
        let (operation, lane) = (key.question.operation(), lane_of(key));
        let asking = Asking {
            lane: &lane,
            place: Some(place),
        };
        self.connection
            .call_with(operation, asking, self.retries, read_with)
            .await
    }
}

/// A quota is about a mount.
fn lane_of(key: &ReadKey) -> Lane {
    key.path.mount().into()
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

#[cfg(test)]
mod tests;
