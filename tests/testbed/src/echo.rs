//! How slow the machine is, measured beside what a test measures. A promise in seconds holds for a machine that has
//! time for it; on a loaded one everything takes longer, also what has nothing to do with the operator.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, Tool};

/// A promise may take so many echoes longer. The longest chain that one spans is a health check, a token, a login, its
/// review, a status, a read, a write, and the test's own look.
const STEPS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Default)]
struct Measured {
    worst: Duration,
    /// Since when an answer is awaited.
    pending: Option<Instant>,
}

/// Asks the API server for an echo all the time, as tests do: a ConfigMap is written, and looked at by kubectl.
pub struct Echo {
    measured: Arc<Mutex<Measured>>,
    asking: JoinHandle<()>,
}

impl Echo {
    /// Begins to measure.
    ///
    /// # Errors
    /// If there is no namespace for it.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let (kubectl, namespace) = (cluster.tool("kubectl")?, cluster.namespace("echo").await?);
        let measured = Arc::<Mutex<Measured>>::default();
        let asking = tokio::spawn(ask(kubectl, namespace, measured.clone()));
        Ok(Self { measured, asking })
    }

    /// The slowest echo so far, one that is still awaited included.
    #[must_use]
    pub fn worst(&self) -> Duration {
        locked(&self.measured).so_far()
    }

    /// How long what is promised within so long may take on this machine, at the pace of now.
    #[must_use]
    pub fn allows(&self, promised: Duration) -> Duration {
        promised + self.worst() * STEPS
    }
}

impl Measured {
    fn begin(&mut self) {
        self.pending = Some(Instant::now());
    }

    fn end(&mut self) {
        self.worst = self.so_far();
        self.pending = None;
    }

    fn so_far(&self) -> Duration {
        let pending = self.pending.map(|since| since.elapsed()).unwrap_or_default();
        self.worst.max(pending)
    }
}

async fn ask(kubectl: Tool, namespace: String, measured: Arc<Mutex<Measured>>) {
    for number in 0_u64.. {
        locked(&measured).begin();
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"number": number.to_string()},
            "metadata": {"name": "echo", "namespace": namespace},
        });
        // An error is an echo that is still awaited: servers are restarted in some tests.
        while kubectl
            .run(&["apply", "-f", "-"], &map.to_string())
            .await
            .is_err()
        {
            sleep(PAUSE).await;
        }
        locked(&measured).end();
        sleep(PAUSE).await;
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.asking.abort();
    }
}

fn locked(measured: &Mutex<Measured>) -> std::sync::MutexGuard<'_, Measured> {
    measured.lock().unwrap_or_else(PoisonError::into_inner)
}
