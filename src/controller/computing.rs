//! Places for what a tenant's template, rewrite or expression asks for: it may take seconds and megabytes, and is done
//! beside the loops. A namespace gets half of them at most and waits for its own work only, so that a thousand slow
//! templates of one tenant delay another's by one at most.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use super::context::Context;
use super::index::ObjectKey;
use super::outcome::Failure;
use crate::api::external_secret::ExternalSecret;
use crate::sync::plan::{Plan, is_costly, plan};
use crate::sync::shape;

/// Values that may wait in memory for their computation, in KiB, beside those of objects that hold a place in the queue.
const WAITING_KIB: usize = 32 << 10;
/// Bytes of templates that are parsed on the threads of the loops.
const QUICK_TEMPLATES: usize = 16 << 10;

/// The places.
pub struct Computing {
    all: Semaphore,
    per_namespace: usize,
    namespaces: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
    waiting: Semaphore,
}

/// A place, until it is dropped.
pub struct ComputingPlace<'a> {
    computing: &'a Computing,
    namespace: Arc<str>,
    all: Option<SemaphorePermit<'a>>,
    own: Option<OwnedSemaphorePermit>,
}

impl Default for Computing {
    /// As many places as there are processors.
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, NonZero::get))
    }
}

impl Computing {
    fn new(places: usize) -> Self {
        Self {
            all: Semaphore::new(places),
            per_namespace: (places / 2).max(1),
            namespaces: Mutex::default(),
            waiting: Semaphore::new(WAITING_KIB),
        }
    }

    fn namespaces(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Semaphore>>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leave to wait with so many bytes in memory; `None` if too much waits already.
    pub fn may_wait(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).saturating_add(1);
        self.waiting.try_acquire_many(kib).ok()
    }

    /// A place, as soon as one is free.
    pub async fn place(&self, namespace: &Arc<str>) -> ComputingPlace<'_> {
        let own = {
            let mut namespaces = self.namespaces();
            let own = namespaces.entry(namespace.clone());
            own.or_insert_with(|| Arc::new(Semaphore::new(self.per_namespace)))
                .clone()
        };
        // The semaphores are never closed.
        let own = own.acquire_owned().await.ok();
        ComputingPlace {
            computing: self,
            namespace: namespace.clone(),
            all: self.all.acquire().await.ok(),
            own,
        }
    }

    /// Namespaces that compute or wait for it.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.namespaces().len()
    }
}

impl Drop for ComputingPlace<'_> {
    fn drop(&mut self) {
        drop((self.all.take(), self.own.take()));
        let mut namespaces = self.computing.namespaces();
        // Those that wait hold it too.
        if namespaces
            .get(&self.namespace)
            .is_some_and(|own| Arc::strong_count(own) == 1)
        {
            namespaces.remove(&self.namespace);
        }
    }
}

/// What has to be read. Compiling expressions may take seconds, and is done beside the loops.
///
/// # Errors
/// If the object asks for what cannot be read.
pub async fn planned(
    ctx: &Arc<Context>,
    key: &ObjectKey,
    object: &Arc<ExternalSecret>,
) -> Result<Plan, Failure> {
    let planned = if !is_costly(&object.spec) {
        plan(&object.spec, &key.namespace)
    } else {
        let (object, namespace) = (object.clone(), key.namespace.clone());
        ctx.beside(key, 0, move || plan(&object.spec, &namespace)).await?
    };
    planned.map_err(|refusal| Failure::refused(refusal.to_string()))
}

/// Whether what the template asks for can be rendered at all, before anything is read for it.
///
/// # Errors
/// If it cannot.
pub async fn check_template(
    ctx: &Arc<Context>,
    key: &ObjectKey,
    object: &Arc<ExternalSecret>,
) -> Result<(), Failure> {
    let Some(template) = object.spec.template() else {
        return Ok(());
    };
    let checked = if template.size() <= QUICK_TEMPLATES {
        shape::check(template, &ctx.delims)
    } else {
        let (object, delims) = (object.clone(), ctx.delims.clone());
        let check = move || {
            object
                .spec
                .template()
                .map_or(Ok(()), |template| shape::check(template, &delims))
        };
        ctx.beside(key, 0, check).await?
    };
    checked.map_err(|error| Failure::refused(format!("could not update secret: {error}")))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_namespace_waits_for_its_own_work_only_and_is_forgotten_when_it_is_done() {
        let computing = Computing::new(2);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let first = computing.place(&a).await;
        assert!(
            computing.place(&a).now_or_never().is_none(),
            "all places were a's"
        );
        let other = computing.place(&b).now_or_never();
        assert!(other.is_some(), "b waited for a");
        assert_eq!(computing.entries(), 2);
        drop((first, other));
        assert_eq!(computing.entries(), 0);
    }

    #[tokio::test]
    async fn what_waits_with_much_in_memory_is_limited() {
        let computing = Computing::new(2);
        let first = computing.may_wait(20 << 20);
        assert!(first.is_some() && computing.may_wait(20 << 20).is_none());
        assert!(computing.may_wait(usize::MAX).is_none() && computing.may_wait(0).is_some());
        drop(first);
        assert!(computing.may_wait(20 << 20).is_some());
    }
}
