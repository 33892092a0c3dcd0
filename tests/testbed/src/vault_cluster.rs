//! Three nodes of Vault with raft storage. All write into the first one's audit file, so that its marks are the
//! cluster's.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::vault::Vault;
use crate::wait::wait_for;

const ELECTED: Duration = Duration::from_secs(60);

/// A raft cluster of three nodes. The first is configured as [`Vault::start`] says.
pub struct VaultCluster {
    nodes: Vec<Vault>,
}

impl VaultCluster {
    /// Starts one; the first node leads.
    ///
    /// # Errors
    /// If a node cannot be started, or does not join.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let first = Vault::start(cluster).await?;
        let second = Vault::start_beside(cluster, &first).await?;
        let third = Vault::start_beside(cluster, &first).await?;
        let nodes = vec![first, second, third];
        let all = Self { nodes };
        all.wait_voters().await?;
        Ok(all)
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Vault] {
        &self.nodes
    }

    /// Where the nodes listen, without TLS.
    ///
    /// # Errors
    /// If an address cannot be read.
    pub fn sockets(&self) -> Result<Vec<SocketAddr>> {
        self.nodes.iter().map(Vault::socket).collect()
    }

    /// The active node.
    ///
    /// # Errors
    /// If there is none in time.
    pub async fn leader(&self) -> Result<&Vault> {
        wait_for("an active node", ELECTED, || async {
            for node in &self.nodes {
                if node.health().await.is_ok_and(|status| status == 200) {
                    return Ok(Some(node));
                }
            }
            Ok(None)
        })
        .await
    }

    /// A node that stands by.
    ///
    /// # Errors
    /// If there is none in time.
    pub async fn standby(&self) -> Result<&Vault> {
        wait_for("a standby", ELECTED, || async {
            for node in &self.nodes {
                if node.health().await.is_ok_and(|status| status == 429) {
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

    /// A node votes some seconds after it has joined; before that, the first one's end is the cluster's.
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
