//! Requests under way at one server, or bytes of memory. Who asks takes turns by namespace: one that has thousands due
//! keeps another's first request waiting for a few of its own, not for all of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Someone who waits for so many.
struct Waiting {
    count: usize,
    sender: oneshot::Sender<Permit>,
}

/// Those of one namespace that wait, in their order.
struct Line {
    who: Arc<str>,
    waiting: VecDeque<Waiting>,
}

struct Inner {
    free: usize,
    /// Nobody is in a line that is empty. The first line is served next, and is the last then.
    lines: VecDeque<Line>,
}

/// A number of permits.
pub struct Permits(Mutex<Inner>);

/// Some of them; given back when it is dropped.
pub struct Permit {
    of: Arc<Permits>,
    count: usize,
}

impl Permits {
    /// So many, and at least one.
    #[must_use]
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            free: count.max(1),
            lines: VecDeque::new(),
        })))
    }

    /// One, as soon as it is the turn of this namespace. `None` only while the process ends.
    pub async fn acquire(self: &Arc<Self>, who: &Arc<str>) -> Option<Permit> {
        self.acquire_many(who, 1).await
    }

    /// So many, as soon as it is the turn of this namespace and they are free. Nobody who wants fewer overtakes. More
    /// than there are never come.
    pub async fn acquire_many(self: &Arc<Self>, who: &Arc<str>, count: usize) -> Option<Permit> {
        let receiver = {
            let mut inner = self.inner();
            if inner.lines.is_empty() && inner.free >= count {
                inner.free -= count;
                return Some(self.permit(count));
            }
            let (sender, receiver) = oneshot::channel();
            inner.join(who, Waiting { count, sender });
            receiver
        };
        // Those in front may have given up.
        self.hand_on(0);
        receiver.await.ok()
    }

    fn permit(self: &Arc<Self>, count: usize) -> Permit {
        Permit {
            of: self.clone(),
            count,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands what came back to the next who still wait.
    fn hand_on(self: &Arc<Self>, mut back: usize) {
        loop {
            let next = {
                let mut inner = self.inner();
                inner.free += std::mem::take(&mut back);
                inner.next()
            };
            let Some(Waiting { count, sender }) = next else {
                return;
            };
            // The lock is not held here. Who has given up just now gives it back below, not by a call in this one.
            if let Err(mut permit) = sender.send(self.permit(count)) {
                back = std::mem::take(&mut permit.count);
            }
        }
    }
}

impl Inner {
    /// Few namespaces wait at a time: each that does has its line.
    fn join(&mut self, who: &Arc<str>, waiting: Waiting) {
        if let Some(line) = self.lines.iter_mut().find(|line| line.who == *who) {
            line.waiting.push_back(waiting);
            return;
        }
        self.lines.push_back(Line {
            who: who.clone(),
            waiting: [waiting].into(),
        });
    }

    /// Takes what the next one waits for, if so many are free.
    fn next(&mut self) -> Option<Waiting> {
        loop {
            let mut line = self.lines.pop_front()?;
            while line.waiting.front().is_some_and(|first| first.sender.is_closed()) {
                line.waiting.pop_front();
            }
            let Some(first) = line.waiting.front() else {
                continue;
            };
            if first.count > self.free {
                self.lines.push_front(line);
                return None;
            }
            self.free -= first.count;
            let next = line.waiting.pop_front();
            if !line.waiting.is_empty() {
                self.lines.push_back(line);
            }
            return next;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.count > 0 {
            self.of.hand_on(self.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::time::sleep;

    use super::*;

    /// Who was served, in this order, when so many of each namespace ask one after the other for one permit.
    async fn served(asking: &[(&str, usize)]) -> Vec<String> {
        let permits = Permits::new(1);
        let first = permits.acquire(&"first".into()).await;
        let order = Arc::<Mutex<Vec<String>>>::default();
        let mut tasks = Vec::new();
        for (who, count) in asking {
            for _ in 0..*count {
                let (permits, order, who) = (permits.clone(), order.clone(), Arc::<str>::from(*who));
                tasks.push(tokio::spawn(async move {
                    let _permit = permits.acquire(&who).await;
                    order
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(who.to_string());
                }));
                tokio::task::yield_now().await;
            }
        }
        drop(first);
        for task in tasks {
            let _ = task.await;
        }
        let order = order.lock().unwrap_or_else(PoisonError::into_inner);
        order.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_with_thousands_of_requests_delays_another_by_one() {
        let order = served(&[("crowd", 5_000), ("neighbour", 2)]).await;
        assert_eq!(order.len(), 5_002);
        let places: Vec<_> = (0..order.len()).filter(|i| order[*i] == "neighbour").collect();
        assert_eq!(places, [1, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_takes_no_permit_along() {
        let permits = Permits::new(2);
        let who: Arc<str> = "n".into();
        let held = [permits.acquire(&who).await, permits.acquire(&who).await];
        for _ in 0..10 {
            let waiting = permits.acquire(&who);
            assert!(
                tokio::time::timeout(Duration::from_millis(1), waiting)
                    .await
                    .is_err()
            );
        }
        drop(held);
        assert_eq!(permits.inner().free, 2);
        assert!(permits.inner().lines.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_many_is_overtaken_by_nobody_and_who_gives_up_stands_in_no_ones_way() {
        let permits = Permits::new(10);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let held = permits.acquire_many(&a, 6).await;
        let mut many = Box::pin(permits.acquire_many(&b, 8));
        let moment = Duration::from_millis(1);
        assert!(tokio::time::timeout(moment, &mut many).await.is_err());
        let mut few = Box::pin(permits.acquire_many(&a, 2));
        assert!(tokio::time::timeout(moment, &mut few).await.is_err(), "overtook");
        drop(held);
        let many = many.await;
        assert!(many.is_some() && few.await.is_some());
        let mut all = Box::pin(permits.acquire_many(&b, 10));
        assert!(tokio::time::timeout(moment, &mut all).await.is_err());
        drop(all);
        assert!(permits.acquire_many(&a, 2).await.is_some());
    }

    proptest! {
        #[test]
        fn never_more_than_there_are_and_all_come_back(
            count in 1_usize..5,
            asking in proptest::collection::vec((0_u8..4, 0_u64..4, proptest::bool::ANY, 1_usize..5), 0..60),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            let runtime = runtime.map_err(|e| TestCaseError::fail(e.to_string()))?;
            runtime.block_on(async {
                let permits = Permits::new(count);
                let under_way = Arc::new(AtomicUsize::new(0));
                let mut tasks = Vec::new();
                for (who, millis, gives_up, many) in asking {
                    let many = many.min(count);
                    let (permits, under_way, who) = (permits.clone(), under_way.clone(), Arc::<str>::from(who.to_string()));
                    tasks.push(tokio::spawn(async move {
                        let ask = async {
                            let permit = permits.acquire_many(&who, many).await;
                            assert!(permit.is_some());
                            assert!(under_way.fetch_add(many, Ordering::SeqCst) + many <= count);
                            sleep(Duration::from_millis(millis)).await;
                            under_way.fetch_sub(many, Ordering::SeqCst);
                        };
                        if gives_up {
                            // While it waits only: what is under way ends.
                            let _ = tokio::time::timeout(Duration::ZERO, permits.acquire_many(&who, many)).await;
                        } else {
                            ask.await;
                        }
                    }));
                }
                for task in tasks {
                    prop_assert!(task.await.is_ok());
                }
                prop_assert_eq!(permits.inner().free, count);
                prop_assert!(permits.inner().lines.is_empty());
                Ok(())
            })?;
        }
    }
}
