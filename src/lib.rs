//! Keyferry ferries secrets from Vault (or OpenBao) into native Kubernetes Secrets.

pub mod api;
pub mod secret;
