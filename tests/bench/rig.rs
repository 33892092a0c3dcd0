//! A fresh control plane, Vault and operator for one scenario.

use std::ops::Range;

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use keyferry_testbed::{Cluster, Operator, OperatorOptions, Vault};
use kube::api::{DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::Options;

pub const IN_FLIGHT: usize = 32;
pub const NAMESPACE: &str = "bench";

pub struct Rig {
    pub cluster: Cluster,
    pub vault: Vault,
    options: Options,
}

pub fn external_secrets(client: Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("external-secrets.io", "v1", "ExternalSecret");
    Api::namespaced_with(client, NAMESPACE, &ApiResource::from_gvk(&kind))
}

pub fn stores(client: Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("external-secrets.io", "v1", "ClusterSecretStore");
    Api::all_with(client, &ApiResource::from_gvk(&kind))
}

/// The path that object i of so many reads.
pub fn path_of(i: usize, objects: usize, paths: usize) -> usize {
    i * paths / objects.max(1)
}

pub fn value(round: usize, path: usize) -> Value {
    json!({"username": format!("user-{path}"), "password": format!("password-{path}-{round}")})
}

impl Rig {
    pub async fn start(options: &Options) -> Result<Self> {
        let cluster = Cluster::start().await?;
        let vault = Vault::start(&cluster).await?;
        cluster.install_chart(&[]).await?;
        cluster.kubectl(&["create", "namespace", NAMESPACE], "").await?;
        let rig = Self {
            cluster,
            vault,
            options: options.clone(),
        };
        let store = json!({
            "apiVersion": "external-secrets.io/v1", "kind": "ClusterSecretStore", "metadata": {"name": "store"},
            "spec": {"provider": {"vault": {"server": rig.vault.address(), "path": "secret", "auth": {"kubernetes": {
                "role": "eso-reader", "serviceAccountRef": {"name": "eso-vault-auth", "namespace": "security"},
            }}}}},
        });
        rig.cluster.apply(&store.to_string()).await?;
        Ok(rig)
    }

    pub async fn operator(&self) -> Result<Operator> {
        let (command, foreign) = match &self.options.operator {
            Some(command) => (
                ["sh", "-c", &format!("exec {command}")]
                    .map(String::from)
                    .to_vec(),
                true,
            ),
            None => (vec![env!("CARGO_BIN_EXE_keyferry").to_string()], false),
        };
        let options = OperatorOptions {
            command,
            foreign,
            ..OperatorOptions::default()
        };
        let operator = Operator::start(&self.cluster, options).await?;
        if !foreign {
            operator.wait_ready().await?;
        }
        Ok(operator)
    }

    /// Writes the values of so many paths.
    pub async fn write_paths(&self, paths: usize, round: usize) -> Result<()> {
        each(paths, |path| async move {
            self.vault.put(&format!("bench/{path}"), value(round, path)).await
        })
        .await
    }

    /// Creates the ExternalSecrets; neighbours share a path.
    pub async fn create_objects(&self, objects: usize, paths: usize, interval: &str) -> Result<()> {
        self.create_some(0..objects, objects, paths, interval).await
    }

    /// Creates some of them.
    pub async fn create_some(
        &self,
        some: Range<usize>,
        objects: usize,
        paths: usize,
        interval: &str,
    ) -> Result<()> {
        let api = external_secrets(self.cluster.client());
        let first = some.start;
        each(some.len(), |i| {
            let i = first + i;
            let (api, key) = (api.clone(), format!("bench/{}", path_of(i, objects, paths)));
            async move {
                let entry = |name: &str| json!({"secretKey": name, "remoteRef": {"key": key, "property": name}});
                let object = serde_json::from_value(json!({
                    "apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
                    "metadata": {"name": format!("app-{i}"), "namespace": NAMESPACE},
                    "spec": {
                        "refreshInterval": interval, "secretStoreRef": {"kind": "ClusterSecretStore", "name": "store"},
                        "data": [entry("username"), entry("password")],
                    },
                }))?;
                api.create(&PostParams::default(), &object).await?;
                Ok(())
            }
        })
        .await
    }
}

/// Does something for 0…n, 32 at a time.
pub async fn each<F: Future<Output = Result<()>>>(n: usize, work: impl Fn(usize) -> F) -> Result<()> {
    stream::iter(0..n)
        .map(work)
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<()>>()
        .await
        .map(drop)
}
