//! Asking a server how it is: without a token, without an audit line, exempt from quotas.

use std::fmt;

use rustify::endpoint::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use serde::Deserialize;
use vaultrs::api::sys::requests::ReadHealthRequest;

use super::error::{Outage, VaultError, is_page};
use super::transport::{Call, Reply, Transport};

/// `GET sys/leader`, which the catalogue of vaultrs lacks; unauthenticated and unaudited like the health.
struct ReadLeader;

impl Endpoint for ReadLeader {
    type Response = Leader;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        "/sys/leader".into()
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::GET
    }
}

#[derive(Deserialize)]
struct Leader {
    #[serde(default)]
    ha_enabled: bool,
    #[serde(default)]
    leader_address: Option<ActiveNode>,
}

/// What tells a sealed Vault from a proxy that has none behind it.
#[derive(Deserialize)]
struct Seal {
    sealed: bool,
}

/// How a node that is well serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serving {
    /// By itself.
    Itself,
    /// It stands by, and forwards to the active node at this address. With raft it goes on naming the last one
    /// while another is elected: what it says is no proof that anybody serves.
    Through(ActiveNode),
}

/// The active node's address as a standby gives it: compared with others and never shown, for it may be anything.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct ActiveNode(String);

impl fmt::Debug for ActiveNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ActiveNode")
    }
}

/// One health check.
///
/// # Errors
/// What keeps the server from serving.
pub async fn probe(transport: &Transport) -> Result<Serving, Outage> {
    let reply = health(transport).await?;
    match reply.status {
        // A page for people, which proxies and portals also serve with 200.
        200 if is_page(&reply.body) => Err(Outage::NotVault),
        // 473: a performance standby answers reads by itself.
        200 | 473 => Ok(Serving::Itself),
        // A standby forwards to the active node, if there is one. (429 here never means a quota.)
        429 => active_node(transport).await,
        474 => Err(Outage::NoActiveNode),
        501 => Err(Outage::Uninitialized),
        503 if serde_json::from_slice::<Seal>(&reply.body).is_ok_and(|seal| seal.sealed) => {
            Err(Outage::Sealed)
        }
        status => Err(match VaultError::of_status(status, None, &reply.body) {
            VaultError::Outage(outage) => outage,
            _ => Outage::Failing(status),
        }),
    }
}

fn outage_of(error: &VaultError) -> Outage {
    match error {
        VaultError::Unreachable(kind) => Outage::Unreachable(*kind),
        _ => Outage::NotVault,
    }
}

async fn health(transport: &Transport) -> Result<Reply, Outage> {
    let request = ReadHealthRequest::builder()
        .build()
        .map_err(|_| Outage::Failing(0))?;
    ask(transport, &request).await
}

/// Health is the server's, not the namespace's: in a namespace the calls would not exist.
async fn ask<E: Endpoint>(transport: &Transport, request: &E) -> Result<Reply, Outage> {
    let call = Call::new(request).map_err(|e| outage_of(&e))?.without_namespace();
    transport.send(call).await.map_err(|e| outage_of(&e))
}

async fn active_node(transport: &Transport) -> Result<Serving, Outage> {
    let reply = ask(transport, &ReadLeader).await?;
    match serde_json::from_slice::<Leader>(&reply.body) {
        Ok(leader) if leader.ha_enabled => match leader.leader_address {
            Some(node) if !node.0.is_empty() => Ok(Serving::Through(node)),
            _ => Err(Outage::NoActiveNode),
        },
        _ => Ok(Serving::Itself),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by a long run of tests/fuzz.
    #[test]
    fn what_a_standby_says_of_its_active_node_is_not_shown() {
        let said = Serving::Through(ActiveNode("hvs.canary".into()));
        assert!(!format!("{said:?}").contains("canary"));
    }
}
