//! The manifests of the homelab, for a Vault on loopback. `deploy/examples/homelab` has them as users
//! apply them; only the server's address differs.

use anyhow::{Context as _, Result};

use crate::repository;

/// The address that the manifests name.
pub const SERVER: &str = "http://vault.security.svc.cluster.local:8200";

/// One of the manifests, with this Vault's address.
///
/// # Errors
/// If the file cannot be read.
pub fn manifest(file: &str, server: &str) -> Result<String> {
    let path = repository().join("deploy/examples/homelab").join(file);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.replace(SERVER, server))
}
