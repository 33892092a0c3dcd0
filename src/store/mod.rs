//! Living stores: what the controller asks, and what it is told.

pub mod allowed_paths;
pub mod auth;
pub mod conditions;
pub mod connection;
pub mod credentials;
pub mod down;
pub mod exposure;
pub mod fake;
pub mod hold;
mod judge;
pub mod login;
pub mod pace;
pub mod place;
pub mod probing;
pub mod retries;
pub mod scope;
pub mod session;
pub mod settings;
pub mod tenants;
pub mod trial;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::mpsc;

use self::allowed_paths::ANNOTATION;
use self::connection::{Connection, Down, Health};
use self::credentials::{Credentials, Identity};
use self::fake::Fake;
use self::login::{Login, LoginChanged};
use self::scope::Reference;
use self::session::{ReadError, Session};
use self::settings::{Served, Settings};
use self::tenants::{Access, Told};
use crate::api::store::{SecretStoreSpec, StoreKey};
use crate::telemetry::metrics::Metrics;
use crate::vault::error::VaultError;
use crate::vault::kv::{Question, SecretPath};
use crate::vault::transport::Server;

/// Identities that one store may have at once: one per namespace with referent authentication.
const SESSIONS_MAX: usize = 10_000;

/// Whether a store can be used, as its condition says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can.
    Ready,
    /// Its server is out of service; nobody needs to change anything in the cluster.
    Outage {
        /// The server.
        url: String,
        /// What is wrong, and since when.
        down: Down,
    },
    /// The API server did not give what the store needs of the cluster; it is asked again soon, and nobody needs to
    /// change anything. The message of the condition.
    Unproven(String),
    /// Something must be changed: the reason and the message of the condition.
    NotReady {
        /// One word.
        reason: &'static str,
        /// What is wrong, where, and what to do.
        message: String,
    },
}

/// What an ExternalSecret finds when it turns to a store.
pub enum Gate {
    /// There is no such store.
    Missing,
    /// Another class of operator looks after it.
    OtherClass,
    /// It may not be used from this namespace.
    Forbidden,
    /// It is known, and its first check is under way.
    Pending,
    /// It cannot be used now.
    Closed(Verdict),
    /// It can be used.
    Open(Arc<Store>),
}

/// Where the secrets of a store are.
pub enum Source {
    /// In a Vault or an OpenBao.
    Vault(Arc<Settings>),
    /// In the store itself.
    Fake(Fake),
}

/// One store.
pub struct Store {
    key: StoreKey,
    source: Source,
    access: Access,
    /// Whether it was told that what is sent to its server can be read on the way.
    exposed: AtomicBool,
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    connection: Option<Arc<Connection>>,
    sessions: HashMap<Identity, Arc<Session>>,
    verdict: Option<Verdict>,
}

/// One form of a store. Annotations do not raise the generation, so the one that counts is part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Its uid.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// Its annotation `keyferry.dev/allowed-paths`.
    pub allowed_paths: Option<String>,
    /// A digest of its spec: after a restore of the API server's store, a generation may come a second time. `None` if
    /// it cannot be read.
    pub digest: Option<u64>,
}

/// What is new about a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// Nothing.
    Same,
    /// All of it.
    New,
    /// It was known in another form: whoever uses it is judged anew.
    Changed,
}

enum Entry {
    OtherClass(Form),
    Invalid { form: Form, message: String },
    Served { form: Form, store: Arc<Store> },
}

impl Entry {
    fn form(&self) -> &Form {
        let (Self::OtherClass(form) | Self::Invalid { form, .. } | Self::Served { form, .. }) = self;
        form
    }
}

/// What an installation decides of its stores.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Class of this operator.
    pub class: String,
    /// Requests under way at once per server.
    pub in_flight: usize,
    /// Whether a ServiceAccount token must name an audience, so that no server can use it for the API server.
    pub require_audience: bool,
}

/// All stores of a cluster.
pub struct Stores {
    rules: Rules,
    credentials: Arc<dyn Credentials>,
    metrics: Arc<Metrics>,
    entries: Mutex<HashMap<StoreKey, Entry>>,
    connections: Mutex<HashMap<Server, Weak<Connection>>>,
    sessions: AtomicU64,
    logins: mpsc::UnboundedSender<LoginChanged>,
    changes: mpsc::UnboundedSender<StoreKey>,
}

impl Stores {
    /// No stores yet. The receiver gets the key of each store whose health or login changed, to be
    /// validated again.
    #[must_use]
    pub fn new(
        rules: Rules,
        credentials: Arc<dyn Credentials>,
        metrics: Arc<Metrics>,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<StoreKey>) {
        let (changes, receiver) = mpsc::unbounded_channel();
        let (logins, mut login_changes) = mpsc::unbounded_channel::<LoginChanged>();
        let stores = Arc::new(Self {
            rules,
            credentials,
            metrics,
            entries: Mutex::default(),
            connections: Mutex::default(),
            sessions: AtomicU64::new(1),
            logins,
            changes,
        });
        let weak = Arc::downgrade(&stores);
        tokio::spawn(async move {
            while let Some(change) = login_changes.recv().await {
                let Some(stores) = weak.upgrade() else { return };
                stores.tell(|store| store.has_session(change.session));
            }
        });
        (stores, receiver)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<StoreKey, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, concerns: impl Fn(&Store) -> bool) {
        for entry in self.entries().values() {
            if let Entry::Served { store, .. } = entry
                && concerns(store)
            {
                let _ = self.changes.send(store.key.clone());
            }
        }
    }

    /// Takes note of a store as the watch shows it. Says whether it has to be validated.
    pub fn observe(&self, key: &StoreKey, form: Form, spec: &SecretStoreSpec) -> Observed {
        let entries = self.entries();
        if entries.get(key).is_some_and(|entry| *entry.form() == form) {
            return Observed::Same;
        }
        let entry = self.resolve(key, form, spec);
        Self::put(entries, key, entry)
    }

    fn put(mut entries: MutexGuard<'_, HashMap<StoreKey, Entry>>, key: &StoreKey, entry: Entry) -> Observed {
        let old = entries.insert(key.clone(), entry);
        drop(entries);
        let observed = if old.is_some() {
            Observed::Changed
        } else {
            Observed::New
        };
        Self::close_store_later(old);
        observed
    }

    fn resolve(&self, key: &StoreKey, form: Form, spec: &SecretStoreSpec) -> Entry {
        let source = match settings::resolve(key, spec, &self.rules.class) {
            Ok(Served::OtherClass) => return Entry::OtherClass(form),
            Ok(Served::Vault(settings)) => match self.refused_exposure(&settings) {
                Some(message) => return Entry::Invalid { form, message },
                None => Source::Vault(Arc::new(*settings)),
            },
            Ok(Served::Fake(_)) if form.allowed_paths.is_some() => {
                let message =
                    format!("{ANNOTATION} is for stores of vault and openBao; remove it from this one");
                return Entry::Invalid { form, message };
            }
            Ok(Served::Fake(fake)) => Source::Fake(fake),
            Err(problem) => {
                let message = problem.to_string();
                return Entry::Invalid { form, message };
            }
        };
        match Access::of(key, spec, form.allowed_paths.as_deref()) {
            Ok(access) => Entry::Served {
                form,
                store: Arc::new(Store {
                    key: key.clone(),
                    source,
                    access,
                    exposed: AtomicBool::new(false),
                    live: Mutex::default(),
                }),
            },
            Err(message) => Entry::Invalid { form, message },
        }
    }

    fn refused_exposure(&self, settings: &Settings) -> Option<String> {
        let required = self.rules.require_audience;
        required
            .then(|| exposure::token_without_audience(settings))
            .flatten()
    }

    /// The server of a store to which everything is sent for all to read: once for each form of the store.
    #[must_use]
    pub fn newly_exposed(&self, key: &StoreKey) -> Option<String> {
        let entries = self.entries();
        let Entry::Served { store, .. } = entries.get(key)? else {
            return None;
        };
        let Source::Vault(settings) = &store.source else {
            return None;
        };
        (exposure::is_plain_and_outside(&settings.url) && !store.exposed.swap(true, Ordering::Relaxed))
            .then(|| settings.url.clone())
    }

    /// Takes note that a store is gone; its tokens are revoked.
    pub fn forget(&self, key: &StoreKey) {
        let old = self.entries().remove(key);
        Self::close_store_later(old);
    }

    /// Takes note that a namespace is gone; the tokens of what logged in for it are revoked.
    pub fn forget_namespace(&self, namespace: &str) {
        let identity = Identity {
            referent: Some(namespace.into()),
        };
        let entries = self.entries();
        let gone: Vec<_> = entries
            .values()
            .filter_map(|entry| match entry {
                Entry::Served { store, .. } => store.live().sessions.remove(&identity),
                _ => None,
            })
            .collect();
        drop(entries);
        if !gone.is_empty() {
            close_later(gone);
        }
    }

    /// How many identities there are, over all stores.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions().len()
    }

    fn close_store_later(entry: Option<Entry>) {
        if let Some(Entry::Served { store, .. }) = entry {
            close_later(store.sessions());
        }
    }

    /// What an ExternalSecret of this namespace finds. `labels` are those of the namespace.
    #[must_use]
    pub fn gate(&self, key: &StoreKey, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> Gate {
        match self.entries().get(key) {
            None => Gate::Missing,
            Some(Entry::OtherClass(_)) => Gate::OtherClass,
            Some(Entry::Invalid { message, .. }) => Gate::Closed(Verdict::NotReady {
                reason: "InvalidProviderConfig",
                message: message.clone(),
            }),
            Some(Entry::Served { store, .. }) if !store.admits(namespace, labels) => Gate::Forbidden,
            Some(Entry::Served { store, .. }) => store.gate(),
        }
    }

    /// How many stores are known.
    #[must_use]
    pub fn entry_count(&self) -> usize {
        self.entries().len()
    }

    /// How many servers are connected to.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections
            .values()
            .filter(|weak| weak.strong_count() > 0)
            .count()
    }

    /// Whether a server is in service at this moment.
    fn one_answers(&self) -> bool {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let mut living = connections.values().filter_map(Weak::upgrade);
        living.any(|connection| connection.health() == Health::Up)
    }

    /// What a store depends on, in the cluster.
    #[must_use]
    pub fn references(&self, key: &StoreKey) -> Vec<Reference> {
        match self.entries().get(key) {
            Some(Entry::Served { store, .. }) => match &store.source {
                Source::Vault(settings) => settings.references(),
                Source::Fake(_) => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    /// Asks a store about a path for an ExternalSecret of a namespace. Every read passes here, and nothing is sent
    /// for a path that the namespace may not read.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn ask(
        &self,
        store: &Arc<Store>,
        namespace: &str,
        path: SecretPath,
        question: Question,
    ) -> Result<Told, ReadError> {
        let Source::Vault(settings) = &store.source else {
            let why = format!("{} has no paths", store.key);
            return Err(ReadError::Vault(VaultError::BadRequest(why)));
        };
        store.permit(&settings.kv, namespace, &path, question)?;
        let referent = settings.referent.then(|| namespace.to_string());
        let session = self
            .session(store, settings, Identity { referent })
            .map_err(|message| ReadError::Vault(VaultError::BadRequest(message)))?;
        let answered = session.ask(&Arc::from(namespace), path.clone(), question).await?;
        Ok(store
            .show(&settings.kv, namespace, &path, question, answered)
            .await)
    }

    fn session(
        &self,
        store: &Store,
        settings: &Arc<Settings>,
        identity: Identity,
    ) -> Result<Arc<Session>, String> {
        let mut live = store.live();
        if let Some(session) = live.sessions.get(&identity) {
            return Ok(session.clone());
        }
        let connection = live
            .connection
            .clone()
            .ok_or("the store has not been checked yet")?;
        if live.sessions.len() >= SESSIONS_MAX {
            return Err(format!(
                "{} serves too many namespaces at once (at most {SESSIONS_MAX})",
                store.key
            ));
        }
        let login = Login::new(
            self.sessions.fetch_add(1, Ordering::Relaxed),
            connection.clone(),
            settings.clone(),
            identity.clone(),
            self.credentials.clone(),
            self.logins.clone(),
        );
        let session = Session::new(connection, login, settings.retries);
        live.sessions.insert(identity, session.clone());
        Ok(session)
    }

    fn sessions(&self) -> Vec<Arc<Session>> {
        let entries = self.entries();
        let served = entries.values().filter_map(|entry| match entry {
            Entry::Served { store, .. } => Some(store.sessions()),
            _ => None,
        });
        served.flatten().collect()
    }

    /// Renews every token that has lived two thirds of its life, and tries refused logins again when
    /// their time has come. Call it about once a second. A server that hangs keeps no other session waiting.
    pub fn keep_sessions(&self) {
        for session in self.sessions() {
            if session.login().is_due() {
                tokio::spawn(async move { session.login().keep().await });
            }
        }
    }

    /// Revokes every token that a login of ours obtained. For shutdown.
    pub async fn close(&self) {
        futures::future::join_all(self.sessions().iter().map(|session| session.login().close())).await;
    }
}

impl Store {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its kind, namespace and name.
    #[must_use]
    pub fn key(&self) -> &StoreKey {
        &self.key
    }

    /// Whether its server is in service at this moment.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.source, Source::Fake(_))
            || self
                .live()
                .connection
                .as_ref()
                .is_some_and(|connection| connection.health() == Health::Up)
    }

    fn was_ready(&self) -> bool {
        self.live().verdict == Some(Verdict::Ready)
    }

    /// Where its secrets are.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    fn gate(self: &Arc<Self>) -> Gate {
        let live = self.live();
        let connection = live.connection.as_ref().map(|connection| {
            connection.is_awaited();
            (connection.url(), connection.health())
        });
        match (connection, &live.verdict) {
            (Some((url, Health::Down(down))), Some(_)) => Gate::Closed(Verdict::Outage {
                url: url.into(),
                down,
            }),
            (_, None | Some(Verdict::Outage { .. })) => Gate::Pending,
            (_, Some(Verdict::Ready)) => Gate::Open(self.clone()),
            (_, Some(closed)) => Gate::Closed(closed.clone()),
        }
    }

    fn uses(&self, connection: &Weak<Connection>) -> bool {
        self.live()
            .connection
            .as_ref()
            .is_some_and(|own| std::ptr::eq(Arc::as_ptr(own), connection.as_ptr()))
    }

    fn has_session(&self, id: u64) -> bool {
        self.live()
            .sessions
            .values()
            .any(|session| session.login().id() == id)
    }

    fn sessions(&self) -> Vec<Arc<Session>> {
        self.live().sessions.values().cloned().collect()
    }
}

/// Tokens that nobody uses any more end at once (promise 4), without making anybody wait.
fn close_later(sessions: Vec<Arc<Session>>) {
    tokio::spawn(async move {
        for session in sessions {
            session.login().close().await;
        }
    });
}
