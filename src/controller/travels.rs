//! An API server that went back in time: its store was restored from a backup while we ran. Generations and
//! resourceVersions fall then, and what is remembered is of a future that never came. Whichever watch notices it tells
//! the others; each lists anew, and what it lists is believed.

use tokio::sync::watch;

use super::context::Context;
use super::queue::Priority;
use crate::api::external_secret::ExternalSecret;

/// How often the API server went back in time.
pub struct Travels(watch::Sender<u64>);

impl Default for Travels {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Travels {
    /// Follows them from now on.
    #[must_use]
    pub fn follow(&self) -> Travel {
        Travel(self.0.subscribe())
    }
}

/// What one watch knows of them.
pub struct Travel(watch::Receiver<u64>);

impl Travel {
    /// Waits until another watch noticed one.
    pub async fn began(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// This watch noticed one. Nothing happens twice if others did at the same time.
    pub fn tell(&mut self, ctx: &Context) {
        if !self.0.has_changed().unwrap_or(true) {
            forget(ctx);
            ctx.travels.0.send_modify(|count| *count += 1);
        }
        self.0.mark_unchanged();
    }
}

/// The Secrets are as they were then, and Vault is not: all that is refreshed at all is read again, also where the
/// restored status says that it is not due.
fn forget(ctx: &Context) {
    tracing::warn!(
        "the API server went back in time, as after a backup of its store was restored; everything is listed anew, and \
         synced again"
    );
    ctx.targets().doubt();
    ctx.doubt();
    let keys = ctx.index().keys(None);
    for key in keys {
        let object = ctx.index().get(&key);
        if object.is_some_and(|object| is_refreshed(&object)) {
            ctx.remember(&key, |memory| memory.store_changed = true);
        }
    }
    let stores: Vec<_> = ctx.known_stores().keys().cloned().collect();
    for key in stores {
        ctx.store_queue.push(&key, Priority::Urgent);
    }
}

fn is_refreshed(object: &ExternalSecret) -> bool {
    let interval = object.spec.refresh_interval();
    interval.is_ok_and(|interval| interval.as_std().is_some_and(|interval| !interval.is_zero()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use kube::api::ObjectMeta;
    use serde_json::json;
    use tokio::time::Instant;

    use crate::controller::context::tests::context;
    use crate::controller::index::ObjectKey;
    use crate::controller::targets::State;

    #[tokio::test]
    async fn what_is_remembered_is_not_believed_after_the_api_server_went_back_in_time() {
        let ctx = context(200);
        for (name, interval) in [("hourly", "1h"), ("once", "0")] {
            let object = json!({
                "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
                "metadata": {"name": name, "namespace": "n", "uid": name}, "spec": {"refreshInterval": interval},
            });
            let (key, _) = ctx.index().apply(serde_json::from_value(object).unwrap());
            ctx.remember(&key, |memory| memory.last_success = Some(Timestamp::now()));
        }
        let (hourly, once) = (ObjectKey::new("n", "hourly"), ObjectKey::new("n", "once"));
        let metadata = |version: &str| ObjectMeta {
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        };
        ctx.targets()
            .verify(&hourly, &metadata("105"), true, Instant::now());
        let (mut first, mut second) = (ctx.travels.follow(), ctx.travels.follow());
        first.tell(&ctx);
        assert_eq!(ctx.targets().state(&hourly), State::Unknown);
        assert!(ctx.memory(&hourly).store_changed && ctx.memory(&hourly).last_success.is_none());
        assert!(!ctx.memory(&once).store_changed, "once is once");
        // What is there now is older than what was remembered, and true.
        ctx.targets()
            .verify(&hourly, &metadata("100"), true, Instant::now());
        assert_eq!(ctx.targets().state(&hourly), State::Intact);
        // Another watch that noticed the same tells nothing new, and lists anew too.
        second.tell(&ctx);
        assert_eq!(ctx.targets().state(&hourly), State::Intact);
        assert_eq!(*ctx.travels.0.borrow(), 1);
    }
}
