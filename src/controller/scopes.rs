//! Which namespaces are served. Each of an installation for some namespaces stands for itself: one that may not be listed,
//! because it is gone or a right on it is missing, keeps no other from being served.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Settings;
use super::context::Context;
use super::queue::Priority;
use super::startup;

/// How far a watch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is known yet.
    #[default]
    Waiting,
    /// The API server refuses the first list; it is tried again.
    Refused,
    /// The first list is complete.
    Listed,
}

/// Whether a namespace is served, as far as it is decided.
fn served(watches: &[Progress]) -> Option<bool> {
    if watches.contains(&Progress::Refused) {
        return Some(false);
    }
    watches
        .iter()
        .all(|watch| *watch == Progress::Listed)
        .then_some(true)
}

/// Namespaces that are not served.
#[derive(Default)]
pub struct Unserved(Mutex<BTreeSet<String>>);

impl Unserved {
    /// Whether it is one of them.
    #[must_use]
    pub fn contains(&self, namespace: &str) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(namespace)
    }

    /// Says whether that is news.
    fn set(&self, namespace: &str, unserved: bool) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if unserved {
            all.insert(namespace.into())
        } else {
            all.remove(namespace)
        }
    }
}

/// Follows the watches of one namespace, or of all. The receiver becomes true when it is decided whether it is served:
/// without a namespace, when it is.
pub fn follow(
    ctx: &Arc<Context>,
    settings: &Settings,
    namespace: Option<String>,
    watches: Vec<watch::Receiver<Progress>>,
    loops: &mut JoinSet<&'static str>,
) -> watch::Receiver<bool> {
    let (decided, receiver) = watch::channel(false);
    let pod = pod(settings);
    let ctx = ctx.clone();
    loops.spawn(async move {
        keep(&ctx, namespace.as_deref(), watches, &decided, pod).await;
        // All is listed, and stays so.
        std::future::pending().await
    });
    receiver
}

/// Our own pod, for events about it.
#[must_use]
pub fn pod(settings: &Settings) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(settings.operator_namespace.clone()),
        name: Some(settings.identity.clone()),
        ..ObjectReference::default()
    }
}

async fn keep(
    ctx: &Context,
    namespace: Option<&str>,
    mut watches: Vec<watch::Receiver<Progress>>,
    decided: &watch::Sender<bool>,
    pod: ObjectReference,
) {
    loop {
        let progress: Vec<_> = watches
            .iter_mut()
            .map(|watch| *watch.borrow_and_update())
            .collect();
        match (served(&progress), namespace) {
            (Some(true), _) => {
                if let Some(namespace) = namespace.filter(|namespace| ctx.unserved.set(namespace, false)) {
                    begin(ctx, namespace).await;
                }
                decided.send_replace(true);
                return;
            }
            (Some(false), Some(namespace)) => {
                if ctx.unserved.set(namespace, true) {
                    refuse(ctx, namespace, pod.clone());
                }
                decided.send_replace(true);
            }
            (Some(false), None) | (None, _) => {}
        }
        let changes = watches.iter_mut().map(|watch| Box::pin(watch.changed()));
        // A watch whose sender is gone has ended, and with it the process.
        let _ = futures::future::select_all(changes).await;
    }
}

fn refuse(ctx: &Context, namespace: &str, pod: ObjectReference) {
    let message = format!(
        "namespace {namespace} is not served: the API server does not let the operator list what it looks after there; \
         give the operator its rights on the namespace, or take it out of --namespace; it is tried again all the time"
    );
    tracing::warn!(namespace, message, "namespace is not served");
    ctx.metrics.unserved(namespace, Some(message.clone()));
    ctx.recorder.send(pod, true, "NamespaceNotServed", &message);
}

/// A namespace that was not served is now. Whoever leads takes it over as it does all at the begin of its term.
async fn begin(ctx: &Context, namespace: &str) {
    tracing::info!(namespace, "namespace is served now");
    ctx.metrics.unserved(namespace, None);
    if ctx.fence.is_open()
        && let Err(error) = startup::scan(ctx, Some(namespace)).await
    {
        tracing::debug!(namespace, error, "each target is looked at by itself");
    }
    for key in ctx.index().keys(Some(namespace)) {
        ctx.queue.push(&key, Priority::Routine);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::Progress::{Listed, Refused, Waiting};
    use super::*;
    use crate::controller::context::tests::context;

    #[test]
    fn a_namespace_is_served_when_all_of_it_is_listed_and_not_if_any_of_it_is_refused() {
        for (watches, wanted) in [
            (&[Listed, Listed] as &[_], Some(true)),
            (&[], Some(true)),
            (&[Listed, Waiting], None),
            (&[Waiting, Refused], Some(false)),
            (&[Listed, Refused], Some(false)),
        ] {
            assert_eq!(served(watches), wanted, "{watches:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_that_is_refused_keeps_nobody_waiting_and_is_served_as_soon_as_it_may_be() {
        let ctx = context(200);
        let (decided, mut decision) = watch::channel(false);
        let (one, two) = (watch::channel(Waiting), watch::channel(Waiting));
        let watches = vec![one.1, two.1];
        let of = ctx.clone();
        let kept = tokio::spawn(async move {
            keep(&of, Some("n"), watches, &decided, ObjectReference::default()).await;
        });
        let mut waits = decision.clone();
        let early = timeout(Duration::from_secs(60), waits.wait_for(|decided| *decided)).await;
        assert!(early.is_err(), "nothing is known yet");
        two.0.send_replace(Refused);
        assert!(decision.wait_for(|decided| *decided).await.is_ok());
        assert!(ctx.unserved.contains("n"));
        let told = |ctx: &Context| {
            let series = ctx
                .metrics
                .text()
                .contains("keyferry_namespace_unserved{namespace=\"n\"} 1");
            series
                && ctx
                    .metrics
                    .notes()
                    .iter()
                    .any(|note| note.contains("namespace n is not served"))
        };
        assert!(told(&ctx));
        one.0.send_replace(Listed);
        two.0.send_replace(Listed);
        assert!(kept.await.is_ok());
        assert!(!ctx.unserved.contains("n") && !told(&ctx));
    }
}
