//! Confused deputies: what a tenant with rights in a namespace of its own tries to have the operator read or write
//! elsewhere, field by field. Each is refused with words that say what, where and what to do, and the audit logs of
//! the API server and of Vault show that the operator did not try.

mod reads;
mod stores;
mod targets;

use anyhow::{Result, ensure};
use keyferry_testbed::cluster::AuditEvent;

use crate::scene::Scene;

/// Where a tenant has no rights.
const FOREIGN: &str = "kube-system";

/// Fails if the operator asked the API server for anything in the foreign namespace, or by a path that leaves its place.
fn ensure_none_strayed(scene: &Scene, mark: u64) -> Result<()> {
    let strays = |event: &AuditEvent| {
        let path = event.uri.split('?').next().unwrap_or_default();
        path.contains(FOREIGN) || path.contains("..") || path.contains('%')
    };
    // Operators of other tests ask this API server, too.
    let mut events = scene.cluster.audit_since(mark)?;
    events.retain(|event| event.is_operators() && event.credential() == Some(scene.operator().credential()));
    ensure!(!events.is_empty(), "the audit log shows no operator");
    let strayed: Vec<String> = events
        .iter()
        .filter(|event| strays(event))
        .map(|event| format!("{} {}", event.verb, event.uri))
        .collect();
    ensure!(strayed.is_empty(), "the operator asked for {strayed:?}");
    Ok(())
}
