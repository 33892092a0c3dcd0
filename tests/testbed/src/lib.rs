//! A real control plane and a real Vault, as host processes on loopback, for Keyferry's tests,
//! benchmarks and demo. Nothing outlives its owner: every program runs below a small guard that ends
//! it when the owner's end of a pipe closes, however the owner ended.

pub mod cluster;
pub mod homelab;
pub mod operator;
pub mod pki;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod vault;
pub mod wait;

pub use cluster::Cluster;
pub use operator::{Operator, OperatorOptions};
pub use programs::Programs;
pub use proxy::{Mode, Proxy};
pub use vault::Vault;
pub use wait::wait_for;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// A port of loopback that is free at this moment.
///
/// # Errors
/// If the system has none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .context("no free port on loopback")?
        .local_addr()?
        .port())
}

/// The repository that this crate lies in.
#[must_use]
pub fn repository() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_path_buf()
}

/// Makes TLS work in this process; may be called any number of times.
pub fn install_tls_provider() {
    // A second call finds the first one's provider, which is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
