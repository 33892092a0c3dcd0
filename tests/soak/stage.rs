//! The cluster and the Vault of all seeds, and what each seed has of its own.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use keyferry_testbed::{
    Cluster, Mode, Operator, OperatorOptions, Proxy, SHORT_LEASE, TlsBack, TlsFront, Vault, wait_for,
};
use kube::Api;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ObjectMeta, Patch, PatchParams, PostParams,
};
use serde_json::{Value, json};
use tokio::sync::Mutex as Turn;
use tokio::time::{Instant, timeout};

use crate::faults::{Wire, Wrong, answers};
use crate::model::Tick;
use crate::plan::Planner;
use crate::world::World;

/// What is done while something else is broken is tried until that is mended.
const PATIENCE: Duration = Duration::from_secs(120);
const ONE_TRY: Duration = Duration::from_secs(10);
/// How whoever acts here is known to the API server.
pub const MANAGER: &str = "soak";
const KEY: &str = "keyferry-installation-key";

/// Tries until it is done.
///
/// # Errors
/// What the last try said, if it is not done in two minutes.
pub async fn patiently<T, F>(what: &str, act: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    wait_for(what, PATIENCE, || async {
        timeout(ONE_TRY, act()).await?.map(Some)
    })
    .await
}

/// What all seeds share.
pub struct Stage {
    pub cluster: Cluster,
    pub vault: Vault,
    /// The API server behind a server that answers some requests itself: TLS, answers, TLS.
    front: TlsFront,
    answering: Proxy,
    _back: TlsBack,
}

impl Stage {
    pub async fn new() -> Result<Self> {
        let cluster = Cluster::start().await?;
        cluster.install_chart(&["--set", "replicaCount=2"]).await?;
        let vault = Vault::start(&cluster).await?;
        let back = TlsBack::start(cluster.socket()?, cluster.ca_pem()).await?;
        let answering = Proxy::start(back.address()).await?;
        let front = TlsFront::start(answering.address(), &cluster.authority().server(&[])?).await?;
        Ok(Self {
            cluster,
            vault,
            front,
            answering,
            _back: back,
        })
    }

    /// What a replica's way to the API server does.
    pub fn api_mode(&self, wire: Wire) -> Mode {
        match wire {
            Wire::Drop => Mode::Pass,
            Wire::Slow(millis) => Mode::Delay(Duration::from_millis(millis)),
            Wire::Refuse => Mode::Refuse,
            Wire::Cut => Mode::Cut,
            Wire::Hang => Mode::Hang,
            Wire::Says(_) | Wire::Conflicts => {
                self.answering.set(Mode::Answers(answers(wire)));
                Mode::RoundRobin(vec![self.front.address()])
            }
        }
    }
}

/// What one seed has of its own: namespaces, stores, two replicas, and ways that can be broken.
pub struct Set<'a> {
    pub stage: &'a Stage,
    pub seed: u64,
    pub vault_wires: [Proxy; 2],
    pub api_wires: [Proxy; 2],
    replicas: [Turn<Option<Operator>>; 2],
    /// What replicas said that have ended.
    logs: Mutex<Vec<String>>,
    way: Mutex<usize>,
    world: Mutex<World>,
    journal: Mutex<Vec<String>>,
    began: Instant,
}

impl<'a> Set<'a> {
    pub async fn new(stage: &'a Stage, seed: u64) -> Result<Self> {
        let (vault, api) = (stage.vault.socket()?, stage.cluster.socket()?);
        let set = Self {
            stage,
            seed,
            vault_wires: [Proxy::start(vault).await?, Proxy::start(vault).await?],
            api_wires: [Proxy::start(api).await?, Proxy::start(api).await?],
            replicas: [Turn::new(None), Turn::new(None)],
            logs: Mutex::default(),
            way: Mutex::default(),
            world: Mutex::default(),
            journal: Mutex::default(),
            began: Instant::now(),
        };
        set.make_namespaces().await?;
        set.apply_store().await?;
        for who in 0..2 {
            set.start(who).await?;
        }
        Ok(set)
    }

    /// Each with a SecretStore, and a ServiceAccount that logs in by it.
    async fn make_namespaces(&self) -> Result<()> {
        let namespaces = Planner::namespaces(self.seed);
        let role = format!("soak-{}", self.seed);
        let bound = json!({"bound_service_account_namespaces": namespaces});
        self.stage.vault.write_role(&role, "reader", "", &bound).await?;
        let mut manifests = String::new();
        for namespace in &namespaces {
            let auth = json!({"kubernetes": {"role": role, "serviceAccountRef": {"name": "reader"}}});
            let of = json!({"name": "local", "namespace": namespace});
            let store = store("SecretStore", &of, &self.vault_wires[0], &auth);
            let name = json!({"name": namespace});
            let account = json!({"name": "reader", "namespace": namespace});
            manifests += &format!(
                "---\n{}\n---\n{}\n---\n{store}\n",
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": name}),
                json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}),
            );
        }
        patiently("the namespaces", || self.stage.cluster.apply(&manifests))
            .await
            .map(drop)
    }

    /// Makes the ClusterSecretStore, or changes it.
    pub async fn apply_store(&self) -> Result<()> {
        self.apply_store_with(|_| {}).await
    }

    /// Changes the ClusterSecretStore to one that must serve nobody.
    pub async fn spoil_store(&self, wrong: Wrong) -> Result<()> {
        let others = json!([{"namespaces": ["nobody"]}]);
        self.apply_store_with(|spec| match wrong {
            Wrong::Malformed => {
                spec["conditions"] = others;
                spec["refreshInterval"] = json!(99_999_999_999_u64);
            }
            Wrong::Narrowed => spec["conditions"] = others,
            Wrong::Folder => spec["provider"]["vault"]["path"] = json!("secret/data"),
        })
        .await
    }

    /// The same with other fields.
    async fn apply_store_with(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let way = *self.way.lock().unwrap_or_else(PoisonError::into_inner);
        let auth = json!({"kubernetes": {
            "role": "eso-reader", "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"},
        }});
        let name = json!({"name": self.store_name()});
        let mut manifest = store("ClusterSecretStore", &name, &self.vault_wires[way], &auth);
        change(&mut manifest["spec"]);
        patiently("the store", || async {
            let (api, params) = (self.stores(), PatchParams::apply(MANAGER).force());
            api.patch(&self.store_name(), &params, &Patch::Apply(&manifest))
                .await?;
            Ok(())
        })
        .await
    }

    pub async fn move_store(&self) -> Result<()> {
        {
            let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
            *way = 1 - *way;
        }
        self.apply_store().await
    }

    pub async fn delete_store(&self) -> Result<()> {
        patiently("the end of the store", || async {
            gone(
                self.stores()
                    .delete(&self.store_name(), &kube::api::DeleteParams::default())
                    .await,
            )
        })
        .await
    }

    /// Puts another key in the place of the one that the hashes are made with, or none.
    pub async fn replace_key(&self, key: Option<[u8; 32]>) -> Result<()> {
        let own = self.secrets("security");
        patiently("the end of the key", || async {
            gone(own.delete(KEY, &DeleteParams::default()).await)
        })
        .await?;
        let Some(key) = key else { return Ok(()) };
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(KEY.into()),
                ..ObjectMeta::default()
            },
            data: Some([("key".into(), ByteString(key.to_vec()))].into()),
            immutable: Some(true),
            ..Secret::default()
        };
        patiently("another key", || async {
            match own.create(&PostParams::default(), &secret).await {
                // The leader was faster: it is another one too.
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                other => Ok(other.map(drop)?),
            }
        })
        .await
    }

    pub fn store_name(&self) -> String {
        format!("soak-{}", self.seed)
    }

    fn stores(&self) -> Api<DynamicObject> {
        Api::all_with(
            self.stage.cluster.client(),
            &resource("ClusterSecretStore", "clustersecretstores"),
        )
    }

    pub fn externals(&self, namespace: &str) -> Api<DynamicObject> {
        let kind = resource("ExternalSecret", "externalsecrets");
        Api::namespaced_with(self.stage.cluster.client(), namespace, &kind)
    }

    pub fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.stage.cluster.client(), namespace)
    }

    pub fn now(&self) -> Tick {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what is done.
    pub fn note(&self, line: impl std::fmt::Display) {
        let line = format!("{:>7.2} s  {line}", self.began.elapsed().as_secs_f64());
        self.journal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line);
    }

    pub fn journal(&self) -> String {
        self.journal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .join("\n")
    }

    /// Starts a replica, as a kubelet does: again until it runs.
    pub async fn start(&self, who: usize) -> Result<()> {
        let options = OperatorOptions {
            command: vec![env!("CARGO_BIN_EXE_keyferry").into()],
            args: [&SHORT_LEASE[..], &["--loglevel=debug"]]
                .concat()
                .into_iter()
                .map(String::from)
                .collect(),
            api_server: Some(format!("https://{}", self.api_wires[who].address())),
            name: Some(format!("soak-{}-{who}", self.seed)),
            ..OperatorOptions::default()
        };
        let operator = patiently("the start of a replica", || {
            Operator::start(&self.stage.cluster, options.clone())
        })
        .await?;
        *self.replicas[who].lock().await = Some(operator);
        Ok(())
    }

    /// Ends a replica.
    pub async fn stop(&self, who: usize, gently: bool) -> Result<()> {
        let operator = self.replicas[who]
            .lock()
            .await
            .take()
            .context("it does not run")?;
        // Waiting for the end of a process would keep everything else waiting.
        let (ended, log) = tokio::task::spawn_blocking(move || {
            let ended = if gently {
                operator.terminate()
            } else {
                operator.kill()
            };
            (ended, operator.logs())
        })
        .await?;
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).push(log);
        ended
    }

    pub async fn pause(&self, who: usize, paused: bool) -> Result<()> {
        let replica = self.replicas[who].lock().await;
        replica.as_ref().context("it does not run")?.pause(paused)
    }

    /// Which replica leads.
    pub async fn leader(&self) -> Option<usize> {
        for (who, replica) in self.replicas.iter().enumerate() {
            let replica = replica.lock().await;
            let metrics = timeout(Duration::from_secs(1), replica.as_ref()?.metrics()).await;
            if metrics.is_ok_and(|text| text.is_ok_and(|text| text.contains("\nkeyferry_leader 1\n"))) {
                return Some(who);
            }
        }
        None
    }

    /// Whether both replicas are there.
    pub async fn all_run(&self) -> Result<()> {
        for (who, replica) in self.replicas.iter().enumerate() {
            let replica = replica.lock().await;
            let runs = replica.as_ref().is_some_and(Operator::runs);
            anyhow::ensure!(runs, "replica {who} has ended by itself");
        }
        Ok(())
    }

    /// All that the replicas said, oldest first.
    pub async fn logs(&self) -> String {
        let mut all = self.logs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for replica in &self.replicas {
            all.extend(replica.lock().await.as_ref().map(Operator::logs));
        }
        all.join("\n")
    }

    /// Ends what the next seed does not need.
    pub async fn clear(&self) -> Result<()> {
        for who in 0..2 {
            self.stop(who, true).await?;
        }
        self.delete_store().await?;
        let namespaces = Planner::namespaces(self.seed);
        let mut args = vec!["delete", "namespace", "--ignore-not-found", "--wait=false"];
        args.extend(namespaces.iter().map(String::as_str));
        patiently("the end of the namespaces", || {
            self.stage.cluster.kubectl(&args, "")
        })
        .await
        .map(drop)
    }
}

fn store(kind: &str, metadata: &Value, way: &Proxy, auth: &Value) -> Value {
    json!({
        "apiVersion": "external-secrets.io/v1", "kind": kind, "metadata": metadata,
        "spec": {"provider": {"vault": {
            "server": format!("http://{}", way.address()), "path": "secret", "version": "v2", "auth": auth,
        }}},
    })
}

fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("external-secrets.io", "v1", kind), plural)
}

/// A deletion of what is not there is done.
pub fn gone<T>(result: kube::Result<T>) -> Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other.map(drop)?),
    }
}
