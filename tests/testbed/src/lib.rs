//! A real control plane and a real Vault, as host processes on loopback, for Keyferry's tests,
//! benchmarks and demo. Nothing outlives its owner: every program runs below a small guard that ends
//! it when the owner's end of a pipe closes, however the owner ended.

pub mod answer;
pub mod cluster;
pub mod echo;
pub mod homelab;
pub mod ldap;
pub mod operator;
pub mod pki;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod recorder;
pub mod tls;
pub mod vault;
pub mod vault_cluster;
pub mod wait;

pub use answer::{Answer, End};
pub use cluster::Cluster;
pub use echo::Echo;
pub use ldap::Ldap;
pub use operator::{Operator, OperatorOptions, SHORT_LEASE};
pub use programs::Programs;
pub use proxy::{Mode, Proxy};
pub use recorder::{Recorded, Recorder, Say};
pub use tls::{TlsBack, TlsFront};
pub use vault::Vault;
pub use vault_cluster::VaultCluster;
pub use wait::wait_for;

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

static PORTS: AtomicU32 = AtomicU32::new(0);

/// A port of loopback that is free at this moment. It lies below those that the system hands out to
/// clients, so that a program that is stopped finds its own port again.
///
/// # Errors
/// If there is none.
pub fn free_port() -> Result<u16> {
    for _ in 0..1000 {
        let own = std::process::id().wrapping_mul(97);
        let step = PORTS.fetch_add(1, Ordering::Relaxed).wrapping_add(own);
        let port = 15_000 + u16::try_from(step % 15_000)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on loopback between 15000 and 30000")
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

/// What a file holds behind a mark: the logs of ten thousand objects are too long to be read whole each time.
fn read_from(path: &Path, mark: u64) -> Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(mark))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
