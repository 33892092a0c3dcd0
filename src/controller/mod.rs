//! The loops: watches in, work out. No rule of the other rooms is made here.

pub mod aside;
pub mod brake;
pub mod budget;
pub mod computing;
pub mod contest;
pub mod context;
pub mod due;
pub mod events;
pub mod exported;
pub mod fetch;
pub mod gates;
pub mod guarded;
pub mod index;
pub mod key;
pub mod leader;
pub mod leases;
pub mod manifests;
pub mod outcome;
pub mod pages;
pub mod queue;
pub mod reconcile;
pub mod references;
pub mod room;
mod scopes;
pub mod seals;
pub mod sharing;
pub mod standby;
pub mod startup;
pub mod status;
pub mod stores;
pub mod sync;
pub mod targets;
pub mod templates;
pub mod travels;
pub mod turns;
pub mod unreadable;
pub mod watch;
pub mod watches;

use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use kube::Client;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch as tokio_watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::context::{Context, Parts};
use self::events::Recorder;
use self::leader::{Candidate, Times};
use self::queue::{Priority, Queue, Work};
use self::standby::{Serves, Standby};
use crate::store::credentials::ClusterCredentials;
use crate::store::{Rules, Stores};
use crate::target::fence::Fence;
use crate::telemetry::metrics::Metrics;
use crate::template::Delims;

/// Work that is under way gets this long to end at shutdown.
const DRAIN: Duration = Duration::from_secs(10);
/// Revoking tokens and releasing the lease gets this long.
const FAREWELL: Duration = Duration::from_secs(5);

/// What an installation decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespaces to look after; empty means all.
    pub namespaces: Vec<String>,
    /// What holds for all stores.
    pub stores: Rules,
    /// ExternalSecrets in work at once.
    pub concurrent: usize,
    /// Whether ClusterSecretStores are served.
    pub cluster_stores: bool,
    /// Whether SecretStores are served.
    pub secret_stores: bool,
    /// Between checks of a store.
    pub store_requeue: Duration,
    /// How long Ready stays True when a due sync is kept back by an outage.
    pub outage_grace: Duration,
    /// When deletions are held.
    pub deletion_brake: brake::Setting,
    /// Delimiters of templates.
    pub delims: Delims,
    /// Whether `target.manifest` is served.
    pub generic_targets: bool,
    /// File with the operator's own token, for stores that name no other.
    pub own_token: std::path::PathBuf,
    /// Namespace of the operator: home of its Lease and of its installation key.
    pub operator_namespace: String,
    /// Name of this replica.
    pub identity: String,
    /// Name of the Lease; `None` means no election.
    pub election: Option<(String, Times)>,
}

/// Where the leader election runs: apart from the loops, which may compute for long.
pub struct Vital {
    /// Its runtime.
    pub runtime: Handle,
    /// A client that was made there.
    pub client: Client,
}

/// Runs until `stop` becomes true. `ready` becomes true when the watches are in sync. The client's writes go through
/// the fence, which is opened and closed here.
///
/// # Errors
/// If a loop ended that must not end; the process then has to be started anew.
pub async fn run(
    client: Client,
    vital: Vital,
    fence: Arc<Fence>,
    settings: Settings,
    metrics: Arc<Metrics>,
    ready: tokio_watch::Sender<bool>,
    mut stop: tokio_watch::Receiver<bool>,
) -> Result<(), String> {
    let credentials = Arc::new(ClusterCredentials::new(
        client.clone(),
        settings.own_token.clone(),
    ));
    let (stores, mut store_changes) = Stores::new(settings.stores.clone(), credentials, metrics.clone());
    let ctx = Arc::new(Context::new(Parts {
        client: client.clone(),
        stores: stores.clone(),
        fence: fence.clone(),
        metrics: metrics.clone(),
        places: settings.concurrent,
        delims: settings.delims.clone(),
        outage_grace: settings.outage_grace,
        deletion_brake: settings.deletion_brake,
        generic_targets: settings.generic_targets,
        store_requeue: settings.store_requeue,
        whole_cluster: settings.namespaces.is_empty(),
        operator_namespace: settings.operator_namespace.clone(),
    }));
    // Every loop runs for ever: the first that ends, whatever the reason, ends the process, because a
    // pod that looks healthy and does nothing is the worst outcome.
    let mut loops: JoinSet<&'static str> = JoinSet::new();
    let synced = watches::start(&ctx, &settings, &mut loops);
    let told = ctx.clone();
    loops.spawn(async move {
        while let Some(key) = store_changes.recv().await {
            told.store_queue.push(&key, Priority::Routine);
        }
        "changes of stores"
    });
    loops.spawn(count_entries(ctx.clone()));
    loops.spawn(key::follow(ctx.clone(), settings.operator_namespace.clone()));
    match &settings.election {
        Some((name, times)) => {
            let namespace = &settings.operator_namespace;
            let standby = Standby::new(
                Serves::new(&settings.stores.class, &settings.namespaces),
                scopes::pod(&settings),
                Recorder::new(vital.client.clone()),
                metrics.clone(),
            );
            let candidate = Candidate::new(
                vital.client.clone(),
                namespace,
                name,
                &settings.identity,
                *times,
                fence.clone(),
                standby,
            );
            let election = async move {
                candidate.run().await;
                "leader election"
            };
            loops.spawn_on(election, &vital.runtime);
        }
        None => fence.open_for_ever(),
    }
    let lead = lead(ctx.clone(), settings.clone(), synced, ready, stop.clone());
    let mut lead = tokio::spawn(lead);
    let ended = end(&mut stop, loops.join_next(), &mut lead).await;
    if ended.is_ok() && !lead.is_finished() {
        let _ = timeout(DRAIN + Duration::from_secs(1), lead).await;
    }
    // The election has ended before the fence is closed, and the fence is closed before the lease is released:
    // whatever still hangs about writes nothing any more when another replica begins.
    let _ = timeout(FAREWELL, loops.shutdown()).await;
    fence.close();
    let election = settings.election.filter(|_| ended.is_ok());
    // Nor is it released while a write is unanswered: then it runs out by itself, and another waits as long.
    if let Some((name, _)) = election
        && may_release(&fence).await
    {
        let (namespace, identity) = (settings.operator_namespace.clone(), settings.identity.clone());
        let farewell = async move { Candidate::release(vital.client, &namespace, &name, &identity).await };
        let _ = timeout(FAREWELL, vital.runtime.spawn(farewell)).await;
    }
    // Last: another replica need not wait until ours has revoked its tokens.
    if ended.is_ok() {
        let _ = timeout(FAREWELL, stores.close()).await;
    }
    ended
}

/// Whether the API server has answered every write.
async fn may_release(fence: &Fence) -> bool {
    let settled = fence.writes().settle(FAREWELL).await;
    if !settled {
        tracing::warn!("a write is not answered yet: the lease is not released, and runs out by itself");
    }
    settled
}

/// Waits for the end: because it was asked for, or by a fault.
async fn end(
    stop: &mut tokio_watch::Receiver<bool>,
    loops: impl Future<Output: std::fmt::Debug>,
    lead: impl Future<Output: std::fmt::Debug>,
) -> Result<(), String> {
    let ended = tokio::select! {
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
        ended = loops => format!("a loop ended: {ended:?}"),
        ended = lead => format!("the work loop ended: {ended:?}"),
    };
    // The work loop ends too when asked to stop, and may have heard of it first: that is no fault.
    if *stop.borrow() { Ok(()) } else { Err(ended) }
}

/// Works while this replica leads; a standby keeps its watches warm and does nothing else.
async fn lead(
    ctx: Arc<Context>,
    settings: Settings,
    mut synced: Vec<tokio_watch::Receiver<bool>>,
    ready: tokio_watch::Sender<bool>,
    mut stop: tokio_watch::Receiver<bool>,
) {
    for watch in &mut synced {
        let _ = watch.wait_for(|synced| *synced).await;
    }
    ready.send_replace(true);
    let mut leading = ctx.fence.subscribe();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            changed = leading.wait_for(|leading| *leading) => if changed.is_err() { return },
        }
        ctx.metrics.leader(true);
        if let Err(error) = startup::take_over(&ctx, &settings).await {
            tracing::error!(error, "cannot begin; tried again in 2 s");
            sleep(Duration::from_secs(2)).await;
            continue;
        }
        exported::begin(&ctx);
        let mut term = JoinSet::new();
        let (externals, stores) = (ctx.clone(), ctx.clone());
        let (over, ended) = tokio_watch::channel(false);
        let (end_externals, end_stores) = (ended.clone(), ended.clone());
        term.spawn(async move {
            let handle = |work| externals_work(externals.clone(), work);
            dispatch(&externals.queue, &externals.metrics, end_externals, handle).await;
        });
        term.spawn(async move {
            let handle = |work| stores_work(stores.clone(), work);
            dispatch(&stores.store_queue, &stores.metrics, end_stores, handle).await;
        });
        term.spawn(keep_sessions(ctx.clone(), ended));
        let stopping = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => true,
            _ = leading.wait_for(|leading| !*leading) => false,
        };
        over.send_replace(true);
        while term.join_next().await.is_some() {}
        exported::end(&ctx);
        ctx.metrics.leader(false);
        if stopping {
            return;
        }
    }
}

async fn count_entries(ctx: Arc<Context>) -> &'static str {
    loop {
        ctx.count_entries();
        sleep(Duration::from_secs(1)).await;
    }
}

async fn keep_sessions(ctx: Arc<Context>, mut over: tokio_watch::Receiver<bool>) {
    loop {
        let is_over = async { over.wait_for(|over| *over).await.is_ok() };
        tokio::select! {
            _ = is_over => return,
            () = sleep(Duration::from_secs(1)) => {}
        }
        ctx.stores.keep_sessions();
        ctx.mind_leases();
    }
}

async fn externals_work(ctx: Arc<Context>, work: Work<index::ObjectKey>) {
    reconcile::work(&ctx, &work).await;
}

async fn stores_work(ctx: Arc<Context>, work: Work<crate::api::store::StoreKey>) {
    stores::work(&ctx, &work).await;
}

/// Hands work out until the term is over, then lets what is under way end.
async fn dispatch<K, W, F>(
    queue: &Queue<K, W>,
    metrics: &Metrics,
    mut over: tokio_watch::Receiver<bool>,
    handle: impl Fn(Work<K>) -> F,
) where
    K: queue::Owned + Clone + Eq + Hash + Ord + std::fmt::Debug + Send + 'static,
    W: Clone + Eq + Hash,
    F: Future<Output = ()> + Send + 'static,
{
    let mut running: JoinSet<()> = JoinSet::new();
    // Keys come back over a channel, so that also the key of work that panicked or was given up comes back.
    let (done, mut finished) = tokio::sync::mpsc::unbounded_channel::<(K, bool)>();
    loop {
        tokio::select! {
            _ = over.wait_for(|over| *over) => break,
            Some((key, panicked)) = finished.recv() => {
                if panicked {
                    metrics.panicked();
                    tracing::error!(?key, "a panic was caught while handling this object; others are not affected");
                    queue.push_at(&key, Instant::now() + Duration::from_secs(60));
                }
                queue.done(&key);
                while running.try_join_next().is_some() {}
            }
            work = queue.next() => {
                let back = Back {
                    key: work.key.clone(),
                    panicked: false,
                    done: done.clone(),
                };
                let handled = AssertUnwindSafe(handle(work)).catch_unwind();
                running.spawn(async move {
                    // As a whole: of a field alone, only a copy would be captured.
                    let mut back = back;
                    back.panicked = handled.await.is_err();
                });
            }
        }
    }
    let _ = timeout(DRAIN, async { while running.join_next().await.is_some() {} }).await;
    running.shutdown().await;
    while let Ok((key, _)) = finished.try_recv() {
        queue.done(&key);
    }
}

/// Gives the key of a piece of work back when it ends, in whatever way. A key that never came back would never be worked
/// on again when this replica leads again.
struct Back<K: Clone> {
    key: K,
    panicked: bool,
    done: UnboundedSender<(K, bool)>,
}

impl<K: Clone> Drop for Back<K> {
    fn drop(&mut self) {
        let _ = self.done.send((self.key.clone(), self.panicked));
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_while_handling_one_object_harms_no_other_and_the_object_is_tried_again() {
        let queue: Arc<Queue<u32, ()>> = Arc::new(Queue::new(4));
        let metrics = Arc::new(Metrics::default());
        let done: Arc<Mutex<Vec<u32>>> = Arc::default();
        let (over, ended) = tokio_watch::channel(false);
        for key in 0..20 {
            queue.push(&key, Priority::Urgent);
        }
        let (of_loop, seen, counted) = (queue.clone(), done.clone(), metrics.clone());
        let running = tokio::spawn(async move {
            let handle = |work: Work<u32>| {
                let seen = seen.clone();
                async move {
                    let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    seen.push(work.key);
                    // The first time only: what panicked must come back.
                    if work.key == 7 && seen.iter().filter(|key| **key == 7).count() == 1 {
                        drop(seen);
                        panic!("planted");
                    }
                }
            };
            dispatch(&of_loop, &counted, ended, handle).await;
        });
        sleep(Duration::from_secs(120)).await;
        over.send_replace(true);
        assert!(running.await.is_ok());
        let mut seen = done.lock().map(|seen| seen.clone()).unwrap_or_default();
        seen.sort_unstable();
        let mut wanted: Vec<u32> = (0..20).chain([7]).collect();
        wanted.sort_unstable();
        assert_eq!(seen, wanted);
        assert!(metrics.text().contains("keyferry_panics_total 1"));
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_is_given_up_at_the_end_of_a_term_is_done_in_the_next() {
        let queue: Queue<u32, ()> = Queue::new(4);
        for key in 1..=2 {
            queue.push(&key, Priority::Urgent);
        }
        let (over, ended) = tokio_watch::channel(false);
        let metrics = Metrics::default();
        let handle = |work: Work<u32>| {
            if work.key == 2 {
                queue.step_aside(&work.key);
            }
            std::future::pending()
        };
        let (term, ()) = tokio::join!(
            timeout(2 * DRAIN, dispatch(&queue, &metrics, ended, handle)),
            async {
                sleep(Duration::from_secs(1)).await;
                over.send_replace(true);
            }
        );
        assert!(term.is_ok());
        for key in 1..=2 {
            queue.push(&key, Priority::Routine);
            let again = timeout(Duration::from_secs(1), queue.next()).await;
            assert_eq!(again.map(|work| work.key), Ok(key));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_lease_is_not_released_while_a_write_is_unanswered() {
        let fence = Fence::new();
        let write = fence.writes().begin();
        assert!(!may_release(&fence).await);
        write.answered();
        assert!(may_release(&fence).await);
    }

    #[tokio::test]
    async fn a_work_loop_that_hears_of_the_stop_first_is_no_fault() {
        let (stop, mut heard) = tokio_watch::channel(false);
        let lead = std::future::poll_fn(|_| {
            stop.send_replace(true);
            std::task::Poll::Ready(())
        });
        assert_eq!(end(&mut heard, std::future::pending::<()>(), lead).await, Ok(()));
    }

    #[tokio::test]
    async fn a_loop_that_ends_by_itself_is_a_fault() {
        let (_stop, mut heard) = tokio_watch::channel(false);
        let ended = end(&mut heard, async { "watch" }, std::future::pending::<()>()).await;
        assert_eq!(ended, Err("a loop ended: \"watch\"".into()));
    }
}
