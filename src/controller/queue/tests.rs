#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::time::timeout;

use super::*;

type Q = Queue<u32, &'static str>;

impl Owned for u32 {
    type Owner = u32;

    /// A namespace for each.
    fn owner(&self) -> u32 {
        *self
    }
}

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
async fn raising_and_forgetting_cost_no_more_with_many_that_wait() {
    let cost = |keys: u32| {
        let queue = Q::new(4);
        (0..keys).for_each(|key| queue.push(&key, Priority::Routine));
        let since = std::time::Instant::now();
        for key in 0..2_000 {
            queue.push(&(keys - 1 - key), Priority::Urgent);
            queue.forget(&(keys - 1 - key));
        }
        since.elapsed()
    };
    cost(4_000);
    // Sixty-four times as many; a look at each that waits would take about as many times longer.
    let (few, many) = (cost(4_000), cost(256_000));
    assert!(many < 16 * few, "{many:?} with many, {few:?} with few");
}

#[tokio::test(start_paused = true)]
async fn a_key_is_in_work_once_at_a_time_and_a_trigger_meanwhile_is_not_lost() {
    let queue = Q::new(4);
    queue.push(&1, Priority::Urgent);
    let work = queue.next().await;
    queue.push(&1, Priority::Urgent);
    assert!(timeout(Duration::from_secs(1), queue.next()).await.is_err());
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
    let heard = timeout(Duration::from_secs(1), called.notified()).await;
    assert!(heard.is_err(), "routine work calls nobody");
    queue.push(&first.key, Priority::Urgent);
    called.notified().await;
    let waiting = timeout(Duration::from_secs(1), queue.next()).await;
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
    assert!(timeout(Duration::from_secs(3600), queue.next()).await.is_err());
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
    assert!(timeout(Duration::from_secs(3600), queue.next()).await.is_err());
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
    assert!(timeout(Duration::from_secs(10), queue.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_namespace_with_thousands_due_delays_another_by_one_key() {
    let queue: Queue<(char, u32), ()> = Queue::new(128);
    for priority in [Priority::Routine, Priority::Urgent] {
        (0..5_000).for_each(|number| queue.push(&('a', number), priority));
        queue.push(&('b', 0), priority);
        let first = [queue.next().await, queue.next().await];
        assert!(first.iter().any(|work| work.key.0 == 'b'), "{first:?}");
        first.iter().for_each(|work| queue.done(&work.key));
    }
}

#[tokio::test(start_paused = true)]
async fn a_namespace_whose_work_never_ends_leaves_places_to_others() {
    let queue: Queue<(char, u32), ()> = Queue::new(128);
    let mut running = 0;
    for priority in [Priority::Routine, Priority::Urgent] {
        (0..500).for_each(|number| queue.push(&('a', number), priority));
        while timeout(Duration::from_secs(1), queue.next()).await.is_ok() {
            running += 1;
        }
    }
    assert_eq!(running, 128 - 128 / 8);
    for (number, priority) in [(1, Priority::Urgent), (2, Priority::Routine)] {
        queue.push(&('b', number), priority);
        let next = timeout(Duration::from_secs(1), queue.next()).await;
        assert_eq!(next.map(|work| work.key), Ok(('b', number)));
    }
}

#[tokio::test(start_paused = true)]
async fn urgent_work_without_end_does_not_stop_the_refreshes_of_others() {
    let queue: Queue<(char, u32), ()> = Queue::new(4);
    queue.push(&('b', 0), Priority::Routine);
    let mut before = 0;
    loop {
        (0..8).for_each(|more| queue.push(&('a', before * 8 + more), Priority::Urgent));
        let work = queue.next().await;
        queue.done(&work.key);
        if work.key.0 == 'b' {
            return;
        }
        before += 1;
        assert!(before <= 20, "still waits");
    }
}
