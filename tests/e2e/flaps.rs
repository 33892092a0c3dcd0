//! Whether anything turned Ready=False, ever: from every change that the API server told, not from looks at times.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::serde::de::DeserializeOwned;
use keyferry::api::external_secret::ExternalSecret;
use keyferry::api::meta::Condition;
use keyferry::api::store::ClusterSecretStore;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::scene::Scene;

/// Watches the ExternalSecrets and the stores of a scene.
pub struct Flaps {
    seen: Arc<Mutex<Vec<String>>>,
    watches: Vec<JoinHandle<()>>,
}

impl Flaps {
    /// From now on; what is not Ready now counts as well.
    pub fn of(scene: &Scene) -> Self {
        let client = scene.cluster.client();
        let seen = Arc::default();
        let objects = Api::<ExternalSecret>::namespaced(client.clone(), &scene.namespace);
        let stores = Api::<ClusterSecretStore>::all(client);
        let watches = vec![
            watch(objects, String::new(), &seen, |object| {
                object.status.clone().unwrap_or_default().conditions
            }),
            watch(stores, scene.class.clone(), &seen, |store| {
                store.status.clone().unwrap_or_default().conditions
            }),
        ];
        Self { seen, watches }
    }

    /// Whether there was none.
    pub fn none(&self, scene: &Scene) -> Result<()> {
        ensure!(
            self.watches.iter().all(|watch| !watch.is_finished()),
            "a watch ended"
        );
        let seen = self.seen.lock().unwrap();
        ensure!(seen.is_empty(), "{}\n{}", seen.join("\n"), scene.story());
        Ok(())
    }
}

impl Drop for Flaps {
    fn drop(&mut self) {
        self.watches.iter().for_each(JoinHandle::abort);
    }
}

fn watch<K>(
    api: Api<K>,
    prefix: String,
    seen: &Arc<Mutex<Vec<String>>>,
    conditions: impl Fn(&K) -> Vec<Condition> + Send + 'static,
) -> JoinHandle<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let (seen, begun) = (seen.clone(), Instant::now());
    tokio::spawn(async move {
        let stream = watcher(api, watcher::Config::default())
            .default_backoff()
            .applied_objects();
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            let Ok(object) = event else { continue };
            if !object.name_any().starts_with(&prefix) {
                continue;
            }
            for condition in conditions(&object) {
                if condition.type_ == "Ready" && condition.status == "False" {
                    let line = format!(
                        "after {:.1?} {} {} turned Ready=False: {:?} {:?}",
                        begun.elapsed(),
                        K::kind(&()),
                        object.name_any(),
                        condition.reason,
                        condition.message
                    );
                    seen.lock().unwrap().push(line);
                }
            }
        }
    })
}
