//! What the loops share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::{Client, Resource};
use tokio::time::Instant;

use super::brake::{self, Brake};
use super::budget::Budget;
use super::computing::Computing;
use super::contest::Contest;
use super::events::Recorder;
use super::index::{Index, ObjectKey};
use super::leases::Leases;
use super::outcome::{self, Failure};
use super::queue::{Priority, Queue};
use super::references::References;
use super::scopes::Unserved;
use super::stores::KnownStore;
use super::targets::Targets;
use super::templates::TemplateSources;
use super::travels::Travels;
use super::turns::Turns;
use crate::api::store::StoreKey;
use crate::permits::Permits;
use crate::store::Stores;
use crate::store::place::Place;
use crate::target::fence::Fence;
use crate::target::hash::{DataHasher, Fingerprint, InstallationKey};
use crate::target::manifest_apply::Kinds;
use crate::telemetry::metrics::Metrics;
use crate::template::Delims;

/// What this process remembers of an ExternalSecret beyond its status. Losing it costs at most a sync.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Last success, which the status may not show yet.
    pub last_success: Option<Timestamp>,
    /// Failures in a row that are the object's own.
    pub failures: u32,
    /// The `syncedResourceVersion` that was last tried for in vain, and until when that is not tried again.
    pub retry: Option<(Box<str>, Instant)>,
    /// What the last try cost, about, in milliseconds of a processor.
    pub cost: u32,
    /// Bytes of memory that it needed, if they were many.
    pub room: usize,
    /// Since when a sync is due that has not succeeded.
    pub overdue_since: Option<Timestamp>,
    /// A store that it reads from changed since it last read.
    pub store_changed: bool,
    /// What the target was made of at the last sync.
    pub made_of: Option<Fingerprint>,
    /// Repairs of the target, if there were any.
    pub contest: Option<Box<Contest>>,
    /// Keys that it wrote last, if others write its target too.
    pub keys: Option<Arc<BTreeSet<String>>>,
    /// Others that write the same keys of its target, and which.
    pub shared: Option<BTreeMap<Arc<str>, Arc<str>>>,
    /// What the condition said beside, last.
    pub aside: Option<Box<str>>,
    /// Generation of a form of the object that cannot be read, and that was told already.
    pub malformed: Option<i64>,
}

impl Memory {
    /// What began then has succeeded.
    pub fn succeeded(&mut self, asked: Timestamp) {
        self.last_success = Some(asked);
        self.failures = 0;
        self.retry = None;
        self.overdue_since = None;
    }

    /// How long what has failed is not tried again, whoever calls for it without asking for something else.
    #[must_use]
    pub fn retry(&self, version: &str) -> Option<Duration> {
        let (of, at) = self.retry.as_ref()?;
        let left = at.saturating_duration_since(Instant::now());
        (&**of == version && !left.is_zero()).then_some(left)
    }

    /// How long a target that somebody changes all the time is not repaired yet.
    #[must_use]
    pub fn pause(&self) -> Option<Duration> {
        self.contest.as_ref()?.pause(Instant::now())
    }
}

/// What the loops share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Living stores.
    pub stores: Arc<Stores>,
    /// ExternalSecrets to work on.
    pub queue: Queue<ObjectKey, StoreKey>,
    /// Stores to check.
    pub store_queue: Queue<StoreKey, ()>,
    /// Whether this process may write.
    pub fence: Arc<Fence>,
    /// Events for people.
    pub recorder: Recorder,
    /// Secrets before statuses.
    pub turns: Turns,
    /// Statuses that say only that a value could not be confirmed.
    pub unconfirmed: Budget,
    /// Namespaces that are not served.
    pub unserved: Unserved,
    /// When the API server went back in time.
    pub travels: Travels,
    /// Watches of what stores depend on.
    pub references: References,
    /// Watches of objects that hold templates.
    pub template_sources: TemplateSources,
    /// Delimiters of templates.
    pub delims: Delims,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// What keeps too many targets from being deleted.
    pub brake: Brake,
    /// How long Ready stays True when a due sync is kept back by an outage.
    pub outage_grace: Duration,
    /// Whether `target.manifest` is served.
    pub generic_targets: bool,
    /// Where the API server serves the kinds of generic targets.
    pub kinds: Kinds,
    /// Between checks of a store that does not say otherwise.
    pub store_requeue: Duration,
    /// Whether all namespaces are looked after, and so known.
    pub whole_cluster: bool,
    /// The operator's own namespace.
    pub operator_namespace: String,
    index: Mutex<Index>,
    targets: Mutex<Targets>,
    leases: Mutex<Leases>,
    memory: Mutex<HashMap<ObjectKey, Memory>>,
    known_stores: Mutex<HashMap<StoreKey, KnownStore>>,
    namespaces: Mutex<HashMap<String, BTreeMap<String, String>>>,
    hasher: Mutex<Option<Arc<DataHasher>>>,
    places: Arc<Permits>,
    computing: Computing,
}

/// The parts of a [`Context`] that differ between installations.
pub struct Parts {
    /// The API server.
    pub client: Client,
    /// Living stores.
    pub stores: Arc<Stores>,
    /// Whether this process may write.
    pub fence: Arc<Fence>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// ExternalSecrets in work at once, those that wait for Vault not counted.
    pub places: usize,
    /// Delimiters of templates.
    pub delims: Delims,
    /// See [`Context::outage_grace`].
    pub outage_grace: Duration,
    /// When deletions are held.
    pub deletion_brake: brake::Setting,
    /// See [`Context::generic_targets`].
    pub generic_targets: bool,
    /// See [`Context::store_requeue`].
    pub store_requeue: Duration,
    /// See [`Context::whole_cluster`].
    pub whole_cluster: bool,
    /// See [`Context::operator_namespace`].
    pub operator_namespace: String,
}

/// So many ExternalSecrets per place may be under way, most of them waiting for Vault.
const WAITING_PER_PLACE: usize = 4;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            recorder: Recorder::new(parts.client.clone()),
            turns: Turns::default(),
            unconfirmed: Budget::new(outcome::UNCONFIRMED, outcome::UNCONFIRMED_PER_SECOND),
            client: parts.client,
            stores: parts.stores,
            queue: Queue::new(parts.places.saturating_mul(WAITING_PER_PLACE)),
            places: Permits::new(parts.places),
            store_queue: Queue::new(16),
            fence: parts.fence,
            unserved: Unserved::default(),
            travels: Travels::default(),
            references: References::default(),
            template_sources: TemplateSources::default(),
            delims: parts.delims,
            computing: Computing::default(),
            metrics: parts.metrics,
            outage_grace: parts.outage_grace,
            brake: Brake::new(parts.deletion_brake),
            generic_targets: parts.generic_targets,
            kinds: Kinds::default(),
            store_requeue: parts.store_requeue,
            whole_cluster: parts.whole_cluster,
            operator_namespace: parts.operator_namespace,
            index: Mutex::default(),
            targets: Mutex::default(),
            leases: Mutex::default(),
            memory: Mutex::default(),
            known_stores: Mutex::default(),
            namespaces: Mutex::default(),
            hasher: Mutex::default(),
        }
    }

    /// A place among those that ask the API server, as soon as it is the turn of this namespace.
    pub async fn place(&self, namespace: &Arc<str>) -> Place {
        Place::take(&self.places, namespace).await
    }

    /// Does what a tenant's template or rewrite asks for, beside the loops, with so many bytes in memory. A panic in it
    /// is a failure of this object alone. How long it took is remembered: an object that costs much is not tried again
    /// soon. The object gives its place in the queue to others meanwhile: hundreds may wait here for each other.
    ///
    /// # Errors
    /// If it broke down.
    pub async fn beside<T: Send + 'static>(
        &self,
        key: &ObjectKey,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let _waiting = self.computing.may_wait(bytes).inspect(|_| {
            self.queue.step_aside(key);
        });
        let _place = self.computing.place(&key.namespace).await;
        let since = Instant::now();
        let done = tokio::task::spawn_blocking(work).await;
        self.charge(key, since.elapsed());
        done.map_err(|_| {
            self.metrics.panicked();
            Failure::Own(
                "could not update secret: the template or rewrite broke down; please report it with the template"
                    .into(),
            )
        })
    }

    /// Who uses what.
    pub fn index(&self) -> MutexGuard<'_, Index> {
        locked(&self.index)
    }

    /// The managed Secrets.
    pub fn targets(&self) -> MutexGuard<'_, Targets> {
        locked(&self.targets)
    }

    /// The targets with leased values.
    pub fn leases(&self) -> MutexGuard<'_, Leases> {
        locked(&self.leases)
    }

    /// The stores as the API server shows them.
    pub fn known_stores(&self) -> MutexGuard<'_, HashMap<StoreKey, KnownStore>> {
        locked(&self.known_stores)
    }

    /// Labels of the namespaces.
    pub fn namespaces(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<String, String>>> {
        locked(&self.namespaces)
    }

    /// What is remembered of an ExternalSecret.
    #[must_use]
    pub fn memory(&self, key: &ObjectKey) -> Memory {
        locked(&self.memory).get(key).cloned().unwrap_or_default()
    }

    /// Changes what is remembered of an ExternalSecret.
    pub fn remember<T>(&self, key: &ObjectKey, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(locked(&self.memory).entry(key.clone()).or_default())
    }

    /// A try begins: it has cost nothing yet.
    pub fn begin(&self, key: &ObjectKey) {
        if let Some(memory) = locked(&self.memory).get_mut(key) {
            memory.cost = 0;
        }
    }

    /// A try costs this much more. One that is gone meanwhile is not remembered again.
    pub fn charge(&self, key: &ObjectKey, cost: Duration) {
        let cost = u32::try_from(cost.as_millis()).unwrap_or(u32::MAX);
        if let Some(memory) = locked(&self.memory).get_mut(key) {
            memory.cost = memory.cost.saturating_add(cost);
        }
    }

    /// Forgets what is of another past than that of the API server.
    pub fn doubt(&self) {
        for memory in locked(&self.memory).values_mut() {
            (memory.last_success, memory.malformed) = (None, None);
        }
    }

    /// Forgets an ExternalSecret that is gone.
    pub fn forget(&self, key: &ObjectKey) {
        locked(&self.memory).remove(key);
        self.leases().forget(key);
        self.template_sources.forget(key);
        brake::forget(self, key);
        self.queue.forget(key);
        self.metrics.objects().forget(&key.namespace, &key.name);
    }

    /// Shows how much is kept in memory.
    pub fn count_entries(&self) {
        let counts = [
            ("index", self.index().entries()),
            ("targets", self.targets().entries()),
            ("leases", self.leases().entries()),
            ("memory", locked(&self.memory).len()),
            ("namespaces", self.namespaces().len()),
            ("known_stores", self.known_stores().len()),
            ("stores", self.stores.entry_count()),
            ("connections", self.stores.connection_count()),
            ("sessions", self.stores.session_count()),
            ("references", self.references.entries()),
            ("template_sources", self.template_sources.entries()),
            ("computing", self.computing.entries()),
            ("brake", self.brake.entries()),
            ("queue", self.queue.entries()),
            ("store_queue", self.store_queue.entries()),
        ];
        for (of, count) in counts {
            self.metrics.entries(of, count);
        }
    }

    /// The hasher under the installation's key as it was seen last. Who leads has one.
    #[must_use]
    pub fn hasher(&self) -> Option<Arc<DataHasher>> {
        locked(&self.hasher).clone()
    }

    /// Hashes under this key from now on; what was signed under those before is known still. Says whether it is
    /// another one than before.
    pub fn set_key(&self, key: InstallationKey) -> bool {
        let mut hasher = locked(&self.hasher);
        let next = match hasher.as_deref() {
            Some(present) if *present.key() == key => return false,
            Some(present) => present.succeeded_by(key),
            None => DataHasher::new(key),
        };
        *hasher = Some(Arc::new(next));
        true
    }

    /// Takes note of a managed Secret that was looked at or written, by a request that began then.
    pub fn verified(&self, secret: &Secret, intact: bool, since: Instant) {
        let metadata = &secret.metadata;
        if let (Some(namespace), Some(name)) = (&metadata.namespace, &metadata.name) {
            self.targets()
                .verify(&ObjectKey::new(namespace, name), metadata, intact, since);
        }
    }

    /// Works on everybody who writes this Secret.
    pub fn wake_writers(&self, secret: &ObjectKey) {
        for key in self.index().writers_of(secret) {
            self.queue.push(&key, Priority::Urgent);
        }
    }
}

/// The instant of a time of the API.
#[must_use]
pub fn instant_of(time: Timestamp) -> Instant {
    let wait = time.duration_since(Timestamp::now());
    let now = Instant::now();
    if wait.is_negative() {
        now
    } else {
        now.checked_add(wait.unsigned_abs()).unwrap_or(now)
    }
}

/// A reference to an object, for its events.
#[must_use]
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    object.object_ref(&())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;

    use super::*;
    use crate::store::Rules;
    use crate::store::credentials::ClusterCredentials;

    /// A context whose API server answers everything with this status.
    pub fn context(status: u16) -> Arc<Context> {
        let answer = move |_: Request<Body>| async move {
            let response = Response::builder().status(status);
            let body = format!("{{\"code\": {status}}}");
            Ok::<_, Infallible>(response.body(Body::from(body.into_bytes())).unwrap())
        };
        context_of(Client::new(tower::service_fn(answer), "n"))
    }

    /// A context of this API server.
    pub fn context_of(client: Client) -> Arc<Context> {
        let metrics = Arc::new(Metrics::default());
        let credentials = Arc::new(ClusterCredentials::new(client.clone(), "token".into()));
        let (stores, _) = Stores::new(Rules::default(), credentials, metrics.clone());
        Arc::new(Context::new(Parts {
            client,
            stores,
            fence: Fence::new(),
            metrics,
            places: 1,
            delims: Delims {
                left: String::new(),
                right: String::new(),
            },
            outage_grace: Duration::from_secs(600),
            deletion_brake: brake::Setting::Off,
            generic_targets: false,
            store_requeue: Duration::from_secs(300),
            whole_cluster: true,
            operator_namespace: "security".into(),
        }))
    }
}
