//! One active replica, by a Lease.
//!
//! Takeover replaces the Lease with the resourceVersion that was read, so that of two standbys one
//! loses. Whether a holder is gone is judged by how long *we* have seen its record unchanged, never by
//! its clock. A leader that could not renew stops writing before anybody else may begin: every write
//! asks the [`Fence`].

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use super::standby::Standby;
use crate::target::apply;
use crate::target::fence::Fence;

/// Between two tries to let go of the lease.
const RELEASE_PAUSE: Duration = Duration::from_millis(100);

/// Times of the election, as ESO's flags name them.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// How long a record holds without renewal.
    pub lease_duration: Duration,
    /// How long after its last renewal a leader may still write.
    pub renew_deadline: Duration,
    /// Between tries.
    pub retry_period: Duration,
}

impl Times {
    /// What a record says of its life. A second that has begun counts as one: others must not begin before this
    /// leader has stopped.
    fn lease_seconds(&self) -> u64 {
        let begun = u64::from(self.lease_duration.subsec_nanos() > 0);
        self.lease_duration.as_secs().saturating_add(begun)
    }

    /// How long what a leader wrote last may be under way: until another may begin.
    #[must_use]
    pub fn delivery(&self) -> Duration {
        self.lease_duration.saturating_sub(self.renew_deadline)
    }
}

/// Takes part in the election.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    times: Times,
    fence: Arc<Fence>,
    standby: Standby,
    /// Another's record as it was last seen.
    observed: Option<Observed>,
}

struct Observed {
    version: String,
    /// Since when it has not changed.
    since: Instant,
    /// How long it holds.
    duration: Duration,
}

impl Candidate {
    /// `identity` must be unique among the replicas, and the same after a restart of the container, so
    /// that a restart need not wait for its own lease to run out.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        times: Times,
        fence: Arc<Fence>,
        standby: Standby,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.into(),
            identity: identity.into(),
            times,
            fence,
            standby,
            observed: None,
        }
    }

    /// Takes part until the process ends.
    pub async fn run(mut self) {
        let mut led = false;
        loop {
            let asked = self.fence.now();
            // A connection that hangs leaves time for another try.
            match timeout(self.times.renew_deadline / 2, self.try_hold()).await {
                Ok(Ok(true)) => {
                    if !led {
                        tracing::info!(lease = self.name, identity = self.identity, "leading");
                        self.standby.leads(&self.identity);
                    }
                    self.fence.open(asked, self.times.renew_deadline);
                    led = true;
                }
                Ok(Ok(false)) => {
                    if led {
                        tracing::warn!(lease = self.name, "another replica took the lease over");
                    }
                    led = false;
                    self.fence.close();
                }
                failed => {
                    let error = failed.map_or_else(
                        |_| "timeout".into(),
                        |r| r.err().map_or(String::new(), |e| apply::describe(&e)),
                    );
                    tracing::warn!(lease = self.name, error, "the lease could not be renewed");
                    if led && !self.fence.is_open() {
                        tracing::warn!(
                            lease = self.name,
                            "no longer leading: the lease was not renewed in time"
                        );
                        led = false;
                        self.fence.close();
                    }
                }
            }
            sleep(self.pause(led)).await;
        }
    }

    /// Until the next try. A standby looks more often than a leader renews, and exactly when the lease runs out.
    fn pause(&self, leads: bool) -> Duration {
        if leads {
            return self.times.retry_period;
        }
        let pause = self.times.retry_period / 2;
        let left = self.observed.as_ref().map(|observed| {
            let until = observed.since + observed.duration;
            until.saturating_duration_since(Instant::now())
        });
        // What ran out long ago could not be taken over: the API server fails.
        left.filter(|left| !left.is_zero())
            .map_or(pause, |left| pause.min(left + Duration::from_millis(1)))
    }

    /// Lets go of the lease, so that another replica need not wait. Tries until it is done, or somebody else's: the
    /// caller sets the limit.
    pub async fn release(client: Client, namespace: &str, name: &str, identity: &str) {
        let api: Api<Lease> = Api::namespaced(client, namespace);
        loop {
            match Self::try_release(&api, name, identity).await {
                Ok(true) => return,
                // Our own renewal, which was under way when the election ended.
                Ok(false) => {}
                Err(error) => {
                    let error = apply::describe(&error);
                    tracing::debug!(error, "lease not released; tried again, or it runs out by itself");
                    sleep(RELEASE_PAUSE).await;
                }
            }
        }
    }

    async fn try_release(api: &Api<Lease>, name: &str, identity: &str) -> Result<bool, kube::Error> {
        let Some(mut lease) = api.get_opt(name).await? else {
            return Ok(true);
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(identity) {
            return Ok(true);
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        won(api.replace(name, &PostParams::default(), &lease).await)
    }

    async fn try_hold(&mut self) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let mut lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.record(&LeaseSpec::default())),
            };
            self.note(&mut lease);
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder != self.identity && !holder.is_empty() && !self.ran_out(&lease, &spec) {
            self.standby.behind(&lease);
            return Ok(false);
        }
        let mut mine = Lease {
            spec: Some(self.record(&spec)),
            ..lease
        };
        self.note(&mut mine);
        won(self.api.replace(&self.name, &PostParams::default(), &mine).await)
    }

    /// What this installation serves, for those behind it.
    fn note(&self, lease: &mut Lease) {
        let annotations = lease.metadata.annotations.get_or_insert_default();
        self.standby.own().note(annotations);
    }

    fn ran_out(&mut self, lease: &Lease, spec: &LeaseSpec) -> bool {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let known = self.observed.take().filter(|known| known.version == version);
        let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        let observed = self.observed.insert(Observed {
            version,
            since: known.map_or_else(Instant::now, |known| known.since),
            duration: seconds.map_or(self.times.lease_duration, Duration::from_secs),
        });
        observed.since.elapsed() > observed.duration
    }

    fn record(&self, old: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let same = old.holder_identity.as_deref() == Some(&self.identity);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.times.lease_seconds()).ok(),
            acquire_time: if same {
                old.acquire_time.clone()
            } else {
                Some(now.clone())
            },
            lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(!same)),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }
}

/// A conflict means that somebody else was faster.
fn won(result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Method, Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_never_holds_shorter_than_its_leader_believes() {
        for (millis, seconds) in [(1, 1), (1_000, 1), (1_001, 2), (1_900, 2), (15_000, 15)] {
            let times = Times {
                lease_duration: Duration::from_millis(millis),
                renew_deadline: Duration::ZERO,
                retry_period: Duration::ZERO,
            };
            assert_eq!(times.lease_seconds(), seconds, "{millis} ms");
        }
    }

    /// Lets go of a lease where the first answer of this kind is this status; says how many of them there were.
    async fn released_after(method: Method, status: u16) -> usize {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let first = request.method() == method && counted.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": "lease", "namespace": "n", "resourceVersion": "1"},
                    "spec": {"holderIdentity": "me"},
                });
                let failure = json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Some", "code": status,
                    "message": "not now",
                });
                let (status, body) = if first { (status, failure) } else { (200, lease) };
                let response = Response::builder()
                    .status(status)
                    .body(Body::from(body.to_string().into_bytes()));
                Ok::<_, std::convert::Infallible>(response.unwrap())
            }
        });
        Candidate::release(Client::new(service, "n"), "n", "lease", "me").await;
        asked.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_renewal_that_is_under_way_does_not_keep_the_lease_from_being_released() {
        assert_eq!(released_after(Method::PUT, 409).await, 2);
    }

    #[tokio::test]
    async fn an_api_server_that_fails_for_a_moment_does_not_keep_the_lease_from_being_released() {
        for method in [Method::GET, Method::PUT] {
            assert_eq!(released_after(method.clone(), 500).await, 2, "{method}");
        }
    }
}
