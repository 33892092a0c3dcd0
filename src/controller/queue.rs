//! The work queue.
//!
//! kube-runtime's `Controller` has one queue without order (a `HashSet`), so that under load new work
//! may wait behind routine work for ever, and one backoff for all of its triggers. Promises 2 and 6
//! need more: two priorities, places reserved for urgent work, objects that wait for a store without
//! holding a timer or a place, and the age of what waits. So this is our own, on top of kube-runtime's
//! watchers. Each key is in work at most once at a time.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

pub use lane::Owned;
use lane::{Lane, Ticket};

mod lane;

/// Keys in work at once that gave their place to others.
const ASIDE_MAX: usize = 16_384;

/// After so much urgent work in a row comes routine work that waits: who forces objects without end delays the refreshes
/// of others, and does not stop them.
const ROUTINE_AFTER: usize = 15;

/// How many keys may be in work.
#[derive(Clone, Copy)]
struct Quotas {
    all: usize,
    routine: usize,
    /// Of one namespace: whatever its objects wait for, others have a place.
    own: usize,
    own_routine: usize,
}

impl Quotas {
    /// A quarter is reserved for urgent work, and an eighth for other namespaces.
    fn new(all: usize) -> Self {
        let all = all.max(2);
        let (routine, others) = (all - (all / 4).max(1), (all / 8).max(1));
        Self {
            all,
            routine,
            own: all - others,
            own_routine: routine.saturating_sub(others).max(1),
        }
    }

    fn may(self, priority: Priority, running: Running) -> bool {
        running.all < self.all && (priority == Priority::Urgent || running.routine < self.routine)
    }

    fn may_own(self, priority: Priority, own: Running) -> bool {
        own.all < self.own && (priority == Priority::Urgent || own.routine < self.own_routine)
    }
}

/// Keys in work.
#[derive(Clone, Copy, Default)]
struct Running {
    all: usize,
    routine: usize,
}

impl Running {
    fn add(&mut self, priority: Priority) {
        self.all += 1;
        self.routine += usize::from(priority == Priority::Routine);
    }

    fn remove(&mut self, priority: Priority) {
        self.all = self.all.saturating_sub(1);
        self.routine = self
            .routine
            .saturating_sub(usize::from(priority == Priority::Routine));
    }
}

/// How soon work must begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A refresh that is due, a retry, a dependent of a store that came back.
    Routine,
    /// New or changed objects, forced refreshes, targets that were harmed.
    Urgent,
}

/// One piece of work.
#[derive(Clone, Debug)]
pub struct Work<K> {
    /// What to work on.
    pub key: K,
    /// How soon it had to begin.
    pub priority: Priority,
    /// Since when it was waiting.
    pub queued: Instant,
}

/// What the queue holds at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Keys that wait for a place.
    pub waiting: usize,
    /// Keys that wait for somebody else.
    pub parked: usize,
    /// Keys in work.
    pub running: usize,
}

/// The queue; `W` is what a key can be parked on.
pub struct Queue<K: Owned, W> {
    inner: Mutex<Inner<K, W>>,
    changed: Notify,
    places: Quotas,
}

/// A key that waits for a place.
struct Waiting {
    priority: Priority,
    since: Instant,
    ticket: Ticket,
}

struct Inner<K: Owned, W> {
    urgent: Lane<K>,
    routine: Lane<K>,
    waiting: HashMap<K, Waiting>,
    running: HashMap<K, Priority>,
    /// How many those are, and how many of each namespace.
    count: Running,
    count_of: HashMap<K::Owner, Running>,
    /// Urgent work that was handed out in a row.
    in_a_row: usize,
    aside: HashMap<K, Arc<Notify>>,
    again: HashMap<K, Priority>,
    timers: BTreeSet<(Instant, K)>,
    timer_of: HashMap<K, Instant>,
    parked: HashMap<W, HashSet<K>>,
    parked_on: HashMap<K, W>,
}

impl<K: Owned, W> Default for Inner<K, W> {
    fn default() -> Self {
        Self {
            urgent: Lane::default(),
            routine: Lane::default(),
            waiting: HashMap::new(),
            running: HashMap::new(),
            count: Running::default(),
            count_of: HashMap::new(),
            in_a_row: 0,
            aside: HashMap::new(),
            again: HashMap::new(),
            timers: BTreeSet::new(),
            timer_of: HashMap::new(),
            parked: HashMap::new(),
            parked_on: HashMap::new(),
        }
    }
}

impl<K: Owned + Clone + Eq + Hash + Ord, W: Clone + Eq + Hash> Queue<K, W> {
    /// A queue for at most `places` keys in work at once, a quarter of them reserved for urgent work, an eighth for
    /// other namespaces than the one that holds most.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self {
            inner: Mutex::default(),
            changed: Notify::new(),
            places: Quotas::new(places),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner<K, W>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Work on a key now. A key that waits already is only raised; one in work is worked on again.
    pub fn push(&self, key: &K, priority: Priority) {
        self.inner().push(key, priority);
        self.changed.notify_one();
    }

    /// Work on a key at a time, unless something comes before; replaces its earlier timer.
    pub fn push_at(&self, key: &K, at: Instant) {
        self.inner().set_timer(key, at);
        self.changed.notify_one();
    }

    /// Lets a key wait for somebody else, without a place. A timer of the key stays.
    pub fn park(&self, key: &K, on: &W) {
        self.inner().park(key, on);
    }

    /// Works on all keys that wait for this one; says how many there were.
    pub fn wake(&self, on: &W) -> usize {
        let mut inner = self.inner();
        let keys = inner.parked.remove(on).unwrap_or_default();
        for key in &keys {
            inner.parked_on.remove(key);
            inner.push(key, Priority::Routine);
        }
        drop(inner);
        self.changed.notify_one();
        keys.len()
    }

    /// Forgets a key that is gone.
    pub fn forget(&self, key: &K) {
        let mut inner = self.inner();
        inner.unpark(key);
        inner.clear_timer(key);
        inner.again.remove(key);
        if let Some(waiting) = inner.waiting.remove(key) {
            inner.lane(waiting.priority).remove(&key.owner(), waiting.ticket);
        }
    }

    /// The next work, as soon as there is some and a place for it. Call [`Self::done`] afterwards.
    pub async fn next(&self) -> Work<K> {
        loop {
            let changed = self.changed.notified();
            let timer = {
                let mut inner = self.inner();
                inner.fire_timers(Instant::now());
                if let Some(work) = inner.take(self.places) {
                    return work;
                }
                inner.timers.first().map(|(at, _)| *at)
            };
            match timer {
                Some(at) => tokio::select! { () = changed => {}, () = sleep_until(at) => {} },
                None => changed.await,
            }
        }
    }

    /// Gives the place of a key back before its work is done: what remains is small, or waits for something else than
    /// others do. Gives what is notified when urgent work comes for the key meanwhile. With very many such keys it keeps
    /// its place (`None`), and must not be long.
    pub fn step_aside(&self, key: &K) -> Option<Arc<Notify>> {
        let mut inner = self.inner();
        if inner.aside.len() < ASIDE_MAX && inner.stop_running(key) {
            let called = Arc::new(Notify::new());
            if inner.again.get(key) == Some(&Priority::Urgent) {
                called.notify_one();
            }
            inner.aside.insert(key.clone(), called);
        }
        let aside = inner.aside.get(key).cloned();
        drop(inner);
        self.changed.notify_one();
        aside
    }

    /// The work on a key is done.
    pub fn done(&self, key: &K) {
        let mut inner = self.inner();
        inner.stop_running(key);
        inner.aside.remove(key);
        if let Some(priority) = inner.again.remove(key) {
            inner.push(key, priority);
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// How many entries there are, wherever they are.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.inner().entries()
    }

    /// What the queue holds.
    #[must_use]
    pub fn depth(&self) -> Depth {
        let inner = self.inner();
        Depth {
            waiting: inner.waiting.len(),
            parked: inner.parked_on.len(),
            running: inner.running.len() + inner.aside.len(),
        }
    }
}

impl<K: Owned + Clone + Eq + Hash + Ord, W: Clone + Eq + Hash> Inner<K, W> {
    fn entries(&self) -> usize {
        self.urgent.len()
            + self.routine.len()
            + self.waiting.len()
            + self.running.len()
            + self.count_of.len()
            + self.aside.len()
            + self.again.len()
            + self.timers.len()
            + self.timer_of.len()
            + self.parked.len()
            + self.parked_on.len()
    }

    fn push(&mut self, key: &K, priority: Priority) {
        let called = self.aside.get(key);
        if self.running.contains_key(key) || called.is_some() {
            if let Some(called) = called.filter(|_| priority == Priority::Urgent) {
                called.notify_one();
            }
            let again = self.again.entry(key.clone()).or_insert(priority);
            *again = priority.max(*again);
            return;
        }
        let known = self.waiting.get(key);
        if known.is_some_and(|known| known.priority >= priority) {
            return;
        }
        let since = known.map_or_else(Instant::now, |known| known.since);
        if let Some((lane, ticket)) = known.map(|known| (known.priority, known.ticket)) {
            self.lane(lane).remove(&key.owner(), ticket);
        }
        let ticket = self.lane(priority).push(key.clone());
        let waiting = Waiting {
            priority,
            since,
            ticket,
        };
        self.waiting.insert(key.clone(), waiting);
    }

    fn lane(&mut self, priority: Priority) -> &mut Lane<K> {
        match priority {
            Priority::Urgent => &mut self.urgent,
            Priority::Routine => &mut self.routine,
        }
    }

    fn take(&mut self, places: Quotas) -> Option<Work<K>> {
        let order = match self.in_a_row < ROUTINE_AFTER {
            true => [Priority::Urgent, Priority::Routine],
            false => [Priority::Routine, Priority::Urgent],
        };
        let key = order.into_iter().find_map(|priority| {
            if !places.may(priority, self.count) {
                return None;
            }
            let (lane, count_of) = match priority {
                Priority::Urgent => (&mut self.urgent, &self.count_of),
                Priority::Routine => (&mut self.routine, &self.count_of),
            };
            // Two namespaces cannot both hold all that one may: at most one is passed over.
            lane.pop(|owner| places.may_own(priority, count_of.get(owner).copied().unwrap_or_default()))
        })?;
        let Waiting {
            priority,
            since: queued,
            ..
        } = self.waiting.remove(&key)?;
        self.clear_timer(&key);
        self.unpark(&key);
        self.in_a_row = match priority {
            Priority::Urgent => self.in_a_row.saturating_add(1),
            Priority::Routine => 0,
        };
        self.running.insert(key.clone(), priority);
        self.count.add(priority);
        self.count_of.entry(key.owner()).or_default().add(priority);
        Some(Work {
            key,
            priority,
            queued,
        })
    }

    /// Takes a key from those in work; says whether it was there.
    fn stop_running(&mut self, key: &K) -> bool {
        let Some(priority) = self.running.remove(key) else {
            return false;
        };
        self.count.remove(priority);
        if let Entry::Occupied(mut own) = self.count_of.entry(key.owner()) {
            own.get_mut().remove(priority);
            if own.get().all == 0 {
                own.remove();
            }
        }
        true
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some((at, _)) = self.timers.first() {
            if *at > now {
                return;
            }
            if let Some((_, key)) = self.timers.pop_first() {
                self.timer_of.remove(&key);
                self.push(&key, Priority::Routine);
            }
        }
    }

    fn set_timer(&mut self, key: &K, at: Instant) {
        self.clear_timer(key);
        self.timers.insert((at, key.clone()));
        self.timer_of.insert(key.clone(), at);
    }

    fn clear_timer(&mut self, key: &K) {
        if let Some(at) = self.timer_of.remove(key) {
            self.timers.remove(&(at, key.clone()));
        }
    }

    fn park(&mut self, key: &K, on: &W) {
        self.unpark(key);
        self.parked.entry(on.clone()).or_default().insert(key.clone());
        self.parked_on.insert(key.clone(), on.clone());
    }

    fn unpark(&mut self, key: &K) {
        if let Some(on) = self.parked_on.remove(key)
            && let Some(keys) = self.parked.get_mut(&on)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.parked.remove(&on);
            }
        }
    }
}

#[cfg(test)]
mod tests;
