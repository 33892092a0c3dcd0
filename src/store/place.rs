//! A place among the requests that are under way at a server, or among those who work.

use std::sync::{Arc, Mutex, PoisonError};

use super::pace::Lane;
use crate::permits::{Permit, Permits};

/// Held by a request, and left while it waits for its turn under a rate limit: those who are limited must not keep the
/// others from Vault.
pub struct Place {
    permits: Arc<Permits>,
    who: Arc<str>,
    held: Mutex<Option<Permit>>,
}

impl Place {
    /// Takes one for this namespace, as soon as it is its turn.
    pub async fn take(permits: &Arc<Permits>, who: &Arc<str>) -> Self {
        let place = Self {
            permits: permits.clone(),
            who: who.clone(),
            held: Mutex::default(),
        };
        place.retake().await;
        place
    }

    /// Its namespace.
    #[must_use]
    pub fn who(&self) -> &Arc<str> {
        &self.who
    }

    async fn retake(&self) {
        let permit = self.permits.acquire(&self.who).await;
        self.set(permit);
    }

    /// Leaves it while this goes on, and takes one again. Many that share one slow read must not keep others from work.
    pub async fn left_for<T>(&self, work: impl Future<Output = T>) -> T {
        self.set(None);
        let result = work.await;
        self.retake().await;
        result
    }

    fn set(&self, permit: Option<Permit>) {
        let before = std::mem::replace(
            &mut *self.held.lock().unwrap_or_else(PoisonError::into_inner),
            permit,
        );
        // Not under the lock: what is given back is handed on.
        drop(before);
    }
}

/// What a request is about, as far as rate limits are concerned, and the place that it holds, if any.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// The mount, or the role of a login.
    pub lane: &'a Lane,
    /// Left while a limit has to be waited for.
    pub place: Option<&'a Place>,
}

impl<'a> Asking<'a> {
    /// Without a place of its own.
    #[must_use]
    pub fn about(lane: &'a Lane) -> Self {
        Self { lane, place: None }
    }
}
