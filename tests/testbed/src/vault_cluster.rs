//! Three nodes of Vault with raft storage. All write into the first one's audit file, so that its marks are the
//! cluster's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::vault::Vault;
use crate::wait::wait_for;

const ELECTED: Duration = Duration::from_secs(60);

/// A raft cluster of three nodes. The first is configured as [`Vault::start`] says.
pub struct VaultCluster {
    nodes: Vec<Arc<Vault>>,
}

impl VaultCluster {
    /// Starts two further nodes beside a Vault.
    ///
    /// # Errors
    /// If a node cannot be started, or does not join.
    pub async fn around(cluster: &Cluster, first: Arc<Vault>) -> Result<Self> {
        // A node that has joined votes when it was well for this long; ten seconds by default.
        let stable = json!({"server_stabilization_time": "1s"});
        first
            .api("POST", "sys/storage/raft/autopilot/configuration", &stable)
            .await?;
        let second = Vault::start_beside(cluster, &first).await?;
        let third = Vault::start_beside(cluster, &first).await?;
        let all = Self {
            nodes: vec![first, Arc::new(second), Arc::new(third)],
        };
        all.wait_voters().await?;
        Ok(all)
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Arc<Vault>] {
        &self.nodes
    }

    /// Where the nodes listen, without TLS.
    ///
    /// # Errors
    /// If an address cannot be read.
    pub fn sockets(&self) -> Result<Vec<SocketAddr>> {
        self.nodes.iter().map(|node| node.socket()).collect()
    }

    /// The active node.
    ///
    /// # Errors
    /// If there is none in time.
    pub async fn leader(&self) -> Result<&Arc<Vault>> {
        self.node_with(200).await
    }

    /// A node that stands by.
    ///
    /// # Errors
    /// If there is none in time.
    pub async fn standby(&self) -> Result<&Arc<Vault>> {
        self.node_with(429).await
    }

    async fn node_with(&self, health: u16) -> Result<&Arc<Vault>> {
        wait_for(&format!("a node with health {health}"), ELECTED, || async {
            for node in &self.nodes {
                if node.health().await.is_ok_and(|status| status == health) {
                    return Ok(Some(node));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Makes the active node give up its place, as `vault operator step-down` does.
    ///
    /// # Errors
    /// If there is no active node, or it refuses.
    pub async fn step_down(&self) -> Result<()> {
        self.leader()
            .await?
            .api("PUT", "sys/step-down", &Value::Null)
            .await
            .map(drop)
    }

    /// Until the others vote, the first one's end is the cluster's.
    async fn wait_voters(&self) -> Result<()> {
        wait_for("three voters", ELECTED, || async {
            let answer = self
                .leader()
                .await?
                .api("GET", "sys/storage/raft/configuration", &Value::Null)
                .await?;
            let servers = answer["data"]["config"]["servers"]
                .as_array()
                .context("no servers")?;
            let voters = servers.iter().filter(|server| server["voter"] == true).count();
            Ok((voters == self.nodes.len()).then_some(()))
        })
        .await
    }
}
