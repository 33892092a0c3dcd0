//! The wire: transport, logins, the KV engine, health, and the meaning of every answer. Nothing here
//! keeps state between calls.

pub mod auth;
pub mod body;
pub mod consistency;
pub mod error;
pub mod health;
pub mod json;
pub mod kv;
pub mod leased;
mod tls;
pub mod transport;

pub use error::{Outage, Unreachable, VaultError};
