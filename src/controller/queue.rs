//! The work queue.
//!
//! kube-runtime's `Controller` has one queue without order (a `HashSet`), so that under load new work
//! may wait behind routine work for ever, and one backoff for all of its triggers. Promises 2 and 6
//! need more: two priorities, places reserved for urgent work, objects that wait for a store without
//! holding a timer or a place, and the age of what waits. So this is our own, on top of kube-runtime's
//! watchers. Each key is in work at most once at a time.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Keys in work at once that gave their place to others.
const ASIDE_MAX: usize = 16_384;

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
pub struct Queue<K, W> {
    inner: Mutex<Inner<K, W>>,
    changed: Notify,
    places: usize,
    routine_places: usize,
}

struct Inner<K, W> {
    urgent: VecDeque<K>,
    routine: VecDeque<K>,
    waiting: HashMap<K, (Priority, Instant)>,
    running: HashMap<K, Priority>,
    aside: HashMap<K, Arc<Notify>>,
    again: HashMap<K, Priority>,
    timers: BTreeSet<(Instant, K)>,
    timer_of: HashMap<K, Instant>,
    parked: HashMap<W, HashSet<K>>,
    parked_on: HashMap<K, W>,
}

impl<K, W> Default for Inner<K, W> {
    fn default() -> Self {
        Self {
            urgent: VecDeque::new(),
            routine: VecDeque::new(),
            waiting: HashMap::new(),
            running: HashMap::new(),
            aside: HashMap::new(),
            again: HashMap::new(),
            timers: BTreeSet::new(),
            timer_of: HashMap::new(),
            parked: HashMap::new(),
            parked_on: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord, W: Clone + Eq + Hash> Queue<K, W> {
    /// A queue for at most `places` keys in work at once, a quarter of them reserved for urgent work.
    #[must_use]
    pub fn new(places: usize) -> Self {
        let places = places.max(2);
        Self {
            inner: Mutex::default(),
            changed: Notify::new(),
            places,
            routine_places: (places - places / 4).min(places - 1).max(1),
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
        if inner.waiting.remove(key).is_some() {
            inner.urgent.retain(|other| other != key);
            inner.routine.retain(|other| other != key);
        }
    }

    /// The next work, as soon as there is some and a place for it. Call [`Self::done`] afterwards.
    pub async fn next(&self) -> Work<K> {
        loop {
            let changed = self.changed.notified();
            let timer = {
                let mut inner = self.inner();
                inner.fire_timers(Instant::now());
                if let Some(work) = inner.take(self.places, self.routine_places) {
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
        if inner.aside.len() < ASIDE_MAX && inner.running.remove(key).is_some() {
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
        inner.running.remove(key);
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

impl<K: Clone + Eq + Hash + Ord, W: Clone + Eq + Hash> Inner<K, W> {
    fn entries(&self) -> usize {
        self.urgent.len()
            + self.routine.len()
            + self.waiting.len()
            + self.running.len()
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
        match self.waiting.get_mut(key) {
            Some((known, _)) if *known >= priority => {}
            Some((known, _)) => {
                *known = priority;
                self.routine.retain(|other| other != key);
                self.urgent.push_back(key.clone());
            }
            None => {
                self.waiting.insert(key.clone(), (priority, Instant::now()));
                match priority {
                    Priority::Urgent => self.urgent.push_back(key.clone()),
                    Priority::Routine => self.routine.push_back(key.clone()),
                }
            }
        }
    }

    fn take(&mut self, places: usize, routine_places: usize) -> Option<Work<K>> {
        if self.running.len() >= places {
            return None;
        }
        let key = match self.urgent.pop_front() {
            Some(key) => key,
            None => {
                let routine = self.running.values().filter(|p| **p == Priority::Routine).count();
                if routine >= routine_places {
                    return None;
                }
                self.routine.pop_front()?
            }
        };
        let (priority, queued) = self.waiting.remove(&key)?;
        self.clear_timer(&key);
        self.unpark(&key);
        self.running.insert(key.clone(), priority);
        Some(Work {
            key,
            priority,
            queued,
        })
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
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    type Q = Queue<u32, &'static str>;

    async fn next(queue: &Q) -> u32 {
        let work = queue.next().await;
        queue.done(&work.key);
        work.key
    }

    fn empty(queue: &Q) -> bool {
        let depth = queue.depth();
        depth.waiting + depth.running == 0
    }

    #[tokio::test(start_paused = true)]
    async fn new_work_never_waits_behind_routine_work() {
        let queue = Q::new(4);
        for key in 0..100 {
            queue.push(&key, Priority::Routine);
        }
        queue.push(&1000, Priority::Urgent);
        assert_eq!(next(&queue).await, 1000);
        // Also when routine work holds all the places that it may hold.
        for _ in 0..3 {
            queue.next().await;
        }
        queue.push(&1001, Priority::Urgent);
        assert_eq!(queue.next().await.key, 1001);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_waits_is_raised_and_not_doubled() {
        let queue = Q::new(4);
        queue.push(&1, Priority::Routine);
        queue.push(&2, Priority::Routine);
        queue.push(&2, Priority::Urgent);
        assert_eq!(next(&queue).await, 2);
        assert_eq!(next(&queue).await, 1);
        assert!(empty(&queue));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_in_work_once_at_a_time_and_a_trigger_meanwhile_is_not_lost() {
        let queue = Q::new(4);
        queue.push(&1, Priority::Urgent);
        let work = queue.next().await;
        queue.push(&1, Priority::Urgent);
        assert!(
            tokio::time::timeout(Duration::from_secs(1), queue.next())
                .await
                .is_err()
        );
        queue.done(&work.key);
        assert_eq!(next(&queue).await, 1);
        assert!(empty(&queue));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_nearly_done_leaves_its_place_to_others_and_is_still_in_work_once() {
        let queue = Q::new(2);
        (1..=3).for_each(|key| queue.push(&key, Priority::Urgent));
        let (first, _second) = (queue.next().await, queue.next().await);
        let called = queue.step_aside(&first.key).unwrap();
        assert_eq!(queue.next().await.key, 3);
        queue.push(&first.key, Priority::Routine);
        let heard = tokio::time::timeout(Duration::from_secs(1), called.notified()).await;
        assert!(heard.is_err(), "routine work calls nobody");
        queue.push(&first.key, Priority::Urgent);
        called.notified().await;
        let waiting = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert!(waiting.is_err());
        queue.done(&3);
        queue.done(&first.key);
        let again = queue.next().await;
        assert_eq!(again.key, first.key);
        queue.push(&again.key, Priority::Urgent);
        queue.step_aside(&again.key).unwrap().notified().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_parked_key_holds_no_place_and_is_woken_with_all_others() {
        let queue = Q::new(4);
        queue.park(&1, &"vault");
        queue.park(&2, &"vault");
        queue.park(&3, &"other");
        assert!(
            tokio::time::timeout(Duration::from_secs(3600), queue.next())
                .await
                .is_err()
        );
        assert_eq!(queue.wake(&"vault"), 2);
        let mut woken = [next(&queue).await, next(&queue).await];
        woken.sort_unstable();
        assert_eq!(woken, [1, 2]);
        assert_eq!(queue.depth().parked, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_fires_once_and_a_later_one_replaces_it() {
        let queue = Q::new(4);
        let start = Instant::now();
        queue.push_at(&1, start + Duration::from_secs(5));
        queue.push_at(&1, start + Duration::from_secs(60));
        assert_eq!(next(&queue).await, 1);
        assert!(start.elapsed() >= Duration::from_secs(60));
        assert!(
            tokio::time::timeout(Duration::from_secs(3600), queue.next())
                .await
                .is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_gone_is_forgotten_wherever_it_was() {
        let queue = Q::new(4);
        queue.push(&1, Priority::Routine);
        queue.push_at(&2, Instant::now());
        queue.park(&3, &"vault");
        for key in 1..=3 {
            queue.forget(&key);
        }
        assert_eq!(queue.entries(), 0);
        assert_eq!(queue.wake(&"vault"), 0);
        assert!(
            tokio::time::timeout(Duration::from_secs(10), queue.next())
                .await
                .is_err()
        );
    }
}
