//! The stage: one cluster for all tests of this program, and a scene per test.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Secret;
use keyferry_testbed::{Cluster, Operator, OperatorOptions, Vault, wait_for};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// Long enough for a loaded machine; no test depends on it but those that fail.
pub const SOON: Duration = Duration::from_secs(45);

// One runtime for all tests: connections of clients belong to the runtime that made them.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime")
});
static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();

/// Runs a test on the common runtime.
pub fn play(test: impl Future<Output = Result<()>>) {
    if let Err(error) = RUNTIME.block_on(test) {
        panic!("{error:#}");
    }
}

/// The cluster, with the chart installed.
pub async fn cluster() -> Result<&'static Cluster> {
    CLUSTER
        .get_or_try_init(|| async {
            let cluster = Cluster::start().await?;
            cluster.install_chart(&[]).await?;
            anyhow::Ok(cluster)
        })
        .await
}

/// One test's own namespace, Vault, store and operator.
pub struct Scene {
    pub cluster: &'static Cluster,
    pub vault: Arc<Vault>,
    pub namespace: String,
    /// Name of its ClusterSecretStore and class of its operator.
    pub class: String,
    pub operator: Option<Operator>,
}

impl Scene {
    /// With a Vault, a ClusterSecretStore and an operator that serves only this scene.
    pub async fn new(name: &str) -> Result<Self> {
        let mut scene = Self::without_operator(name).await?;
        scene.store(scene.vault.address()).await?;
        scene.start_operator(&[]).await?;
        Ok(scene)
    }

    /// With a Vault only.
    pub async fn without_operator(name: &str) -> Result<Self> {
        let cluster = cluster().await?;
        let vault = Arc::new(Vault::start(cluster).await?);
        let namespace = cluster.namespace(name).await?;
        Ok(Self {
            cluster,
            vault,
            class: namespace.clone(),
            namespace,
            operator: None,
        })
    }

    /// Starts the operator of this scene, with further arguments.
    pub async fn start_operator(&mut self, further: &[&str]) -> Result<()> {
        let operator = Operator::start(self.cluster, self.options(further)).await?;
        operator.wait_ready().await?;
        self.operator = Some(operator);
        Ok(())
    }

    /// How the operator of this scene is started.
    pub fn options(&self, further: &[&str]) -> OperatorOptions {
        let mut args = vec![
            format!("--controller-class={}", self.class),
            format!("--namespace={}", self.namespace),
            // The chart's right on the Lease is for one name, and the tests run side by side.
            "--enable-leader-election=false".into(),
            "--loglevel=trace".into(),
        ];
        args.extend(further.iter().map(|arg| (*arg).to_string()));
        OperatorOptions {
            command: vec![env!("CARGO_BIN_EXE_keyferry").into()],
            args,
            ..OperatorOptions::default()
        }
    }

    pub fn operator(&self) -> &Operator {
        self.operator.as_ref().expect("an operator")
    }

    /// Makes the ClusterSecretStore of this scene, for a Vault at this address.
    pub async fn store(&self, server: &str) -> Result<()> {
        self.store_with(server, &login()).await
    }

    /// The same, with another auth.
    pub async fn store_with(&self, server: &str, auth: &Value) -> Result<()> {
        self.cluster
            .apply(&self.store_manifest(server, auth).to_string())
            .await
            .map(drop)
    }

    pub fn store_manifest(&self, server: &str, auth: &Value) -> Value {
        json!({
            "apiVersion": "external-secrets.io/v1", "kind": "ClusterSecretStore", "metadata": {"name": self.class},
            "spec": {"controller": self.class, "provider": {"vault": {
                "server": server, "path": "secret", "version": "v2", "auth": auth,
            }}},
        })
    }

    /// A further ClusterSecretStore, `<class>-<name>`.
    pub async fn further_store(&self, name: &str, auth: &Value) -> Result<()> {
        let mut store = self.store_manifest(self.vault.address(), auth);
        store["metadata"]["name"] = json!(format!("{}-{name}", self.class));
        self.cluster.apply(&store.to_string()).await.map(drop)
    }

    /// A Secret as users make it, with these values.
    pub async fn write_secret(&self, namespace: &str, name: &str, values: Value) -> Result<()> {
        let manifest = json!({"apiVersion": "v1", "kind": "Secret", "stringData": values,
            "metadata": {"namespace": namespace, "name": name}});
        self.cluster.apply(&manifest.to_string()).await.map(drop)
    }

    /// Applies an ExternalSecret of this scene.
    pub async fn external_secret(&self, name: &str, spec: Value) -> Result<()> {
        self.cluster
            .apply(&self.external_secret_manifest(name, spec).to_string())
            .await
            .map(drop)
    }

    pub fn external_secret_manifest(&self, name: &str, mut spec: Value) -> Value {
        if spec.get("secretStoreRef").is_none() {
            spec["secretStoreRef"] = json!({"kind": "ClusterSecretStore", "name": self.class});
        }
        json!({
            "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
            "metadata": {"namespace": self.namespace, "name": name}, "spec": spec,
        })
    }

    /// Many ExternalSecrets `prefix-0…`, each reading its own path.
    pub async fn many(&self, prefix: &str, count: usize, interval: &str) -> Result<()> {
        let mut yaml = String::new();
        for i in 0..count {
            self.vault
                .put(
                    &format!("{prefix}/{i}"),
                    json!({"value": format!("{prefix}-{i}")}),
                )
                .await?;
            let spec = json!({"refreshInterval": interval, "data": [one("value", &format!("{prefix}/{i}"), "value")]});
            yaml += &format!(
                "---\n{}\n",
                self.external_secret_manifest(&format!("{prefix}-{i}"), spec)
            );
        }
        self.cluster.apply(&yaml).await.map(drop)
    }

    /// ExternalSecrets on the path `app/0`, made while Vault cannot be asked.
    pub async fn many_without_vault(&self, prefix: &str, count: usize) -> Result<()> {
        for i in 0..count {
            let spec = json!({"refreshInterval": "1h", "data": [one("value", "app/0", "value")]});
            self.external_secret(&format!("{prefix}-{i}"), spec).await?;
        }
        Ok(())
    }

    pub async fn get(&self, kind: &str, name: &str) -> Result<Value> {
        let mut object = self.of_kind(kind)?.get(name).await?;
        object.metadata.managed_fields = None;
        Ok(serde_json::to_value(object)?)
    }

    pub async fn list(&self, kind: &str) -> Result<Vec<Value>> {
        let mut objects = self.list_with_managed_fields(kind).await?;
        for object in &mut objects {
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
        }
        Ok(objects)
    }

    /// The same, with who wrote which field.
    pub async fn list_with_managed_fields(&self, kind: &str) -> Result<Vec<Value>> {
        let objects = self.of_kind(kind)?.list(&ListParams::default()).await?;
        Ok(objects
            .items
            .iter()
            .map(serde_json::to_value)
            .collect::<Result<_, _>>()?)
    }

    /// Objects of a kind by the name that kubectl knows it by. Tests look often: a process for each look would cost
    /// more than what is looked at.
    fn of_kind(&self, kind: &str) -> Result<Api<DynamicObject>> {
        let (group, kind, plural) = match kind {
            "externalsecret" | "externalsecrets" => {
                ("external-secrets.io", "ExternalSecret", "externalsecrets")
            }
            "secretstore" => ("external-secrets.io", "SecretStore", "secretstores"),
            "clustersecretstore" => ("external-secrets.io", "ClusterSecretStore", "clustersecretstores"),
            "secret" | "secrets" => ("", "Secret", "secrets"),
            "configmap" => ("", "ConfigMap", "configmaps"),
            // Of the tests of generic targets.
            "shop" => ("keyferry.example", "Shop", "shops"),
            other => bail!("the tests do not look at {other}"),
        };
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural);
        let client = self.cluster.client();
        Ok(match kind {
            "ClusterSecretStore" => Api::all_with(client, &resource),
            _ => Api::namespaced_with(client, &self.namespace, &resource),
        })
    }

    /// A key of a Secret, decoded; `None` if either is missing.
    pub async fn value(&self, secret: &str, key: &str) -> Result<Option<String>> {
        let secrets: Api<Secret> = Api::namespaced(self.cluster.client(), &self.namespace);
        let data = secrets.get_opt(secret).await?.and_then(|secret| secret.data);
        let value = data.and_then(|mut data| data.remove(key));
        Ok(value
            .map(|value| String::from_utf8_lossy(&value.0).into_owned())
            .filter(|text| !text.is_empty()))
    }

    pub async fn wait_value(&self, secret: &str, key: &str, wanted: &str) -> Result<()> {
        let what = format!("key {key} of Secret {secret} in {}", self.namespace);
        wait_for(&what, SOON, || async {
            match self.value(secret, key).await? {
                Some(value) if value == wanted => Ok(Some(())),
                Some(_) => bail!("it has another value"),
                None => Ok(None),
            }
        })
        .await
        .with_context(|| self.story())
    }

    pub async fn wait_gone(&self, kind: &str, name: &str) -> Result<()> {
        let objects = self.of_kind(kind)?;
        // The garbage collector learns of new kinds every 30 s.
        wait_for(&format!("the end of {kind} {name}"), 2 * SOON, || async {
            Ok(objects.get_opt(name).await?.is_none().then_some(()))
        })
        .await
        .with_context(|| self.story())
    }

    /// Status, reason and message of the Ready condition.
    pub async fn ready(&self, kind: &str, name: &str) -> Result<(String, String, String)> {
        let object = self.get(kind, name).await?;
        let conditions = object["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let ready = conditions
            .iter()
            .find(|condition| condition["type"] == "Ready")
            .context("no Ready condition")?;
        let text = |key: &str| ready[key].as_str().unwrap_or_default().to_string();
        Ok((text("status"), text("reason"), text("message")))
    }

    /// Waits for a status and a word of the reason or the message.
    pub async fn wait_ready(&self, kind: &str, name: &str, status: &str, word: &str) -> Result<String> {
        wait_for(
            &format!("{kind} {name} Ready={status} with '{word}'"),
            SOON,
            || async {
                let (is, reason, message) = self.ready(kind, name).await?;
                if is == status && (reason.contains(word) || message.contains(word)) {
                    return Ok(Some(message));
                }
                bail!("Ready={is} {reason}: {message}")
            },
        )
        .await
        .with_context(|| self.story())
    }

    /// Waits until so many ExternalSecrets are Ready and were refreshed.
    pub async fn wait_synced(&self, count: usize) -> Result<()> {
        wait_for("the sync of all", 2 * SOON, || async {
            let objects = self.list("externalsecrets").await?;
            let synced = objects.iter().filter(|object| {
                object["status"]["conditions"][0]["status"] == "True"
                    && object["status"]["refreshTime"].is_string()
            });
            let synced = synced.count();
            ensure!(synced == count, "{synced} of {count}");
            Ok(Some(()))
        })
        .await
        .with_context(|| self.story())
    }

    pub async fn wait_store(&self, status: &str, word: &str) -> Result<String> {
        self.wait_ready("clustersecretstore", &self.class, status, word)
            .await
    }

    pub async fn annotate(&self, name: &str, annotation: &str) -> Result<()> {
        let (key, value) = annotation.split_once('=').context("no value")?;
        let patch = json!({"metadata": {"annotations": {key: value}}});
        let objects = self.of_kind("externalsecret")?;
        objects
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    pub async fn force_sync(&self, name: &str) -> Result<()> {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)?
            .as_nanos();
        self.annotate(name, &format!("force-sync={now}")).await
    }

    /// The operator's warnings, for a test that failed. No secrets are in logs: a test holds that.
    pub fn story(&self) -> String {
        let logs = self.operator.as_ref().map(Operator::logs).unwrap_or_default();
        let lines: Vec<&str> = logs
            .lines()
            .filter(|l| !l.contains("TRACE") && !l.contains("DEBUG"))
            .collect();
        format!(
            "the operator said:\n{}",
            lines[lines.len().saturating_sub(25)..].join("\n")
        )
    }
}

/// One entry of `data`.
pub fn one(secret_key: &str, key: &str, property: &str) -> Value {
    json!({"secretKey": secret_key, "remoteRef": {"key": key, "property": property}})
}

/// The auth of most stores.
pub fn login() -> Value {
    json!({"kubernetes": {
        "mountPath": "kubernetes", "role": "eso-reader",
        "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"},
    }})
}
