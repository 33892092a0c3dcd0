//! TLS in front of a plain server, with whatever certificate.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::pki::Pair;

/// A TLS end on loopback.
pub struct TlsFront {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl TlsFront {
    /// Starts one that shows this certificate, in front of an address.
    ///
    /// # Errors
    /// If no port is free, or the certificate cannot be used.
    pub async fn start(upstream: SocketAddr, pair: &Pair) -> Result<Self> {
        let (chain, key) = parsed(pair)?;
        let config = ServerConfig::builder().with_no_client_auth();
        Self::listen(upstream, config.with_single_cert(chain, key)?).await
    }

    /// The same, for clients that show a certificate of this authority.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_mutual(upstream: SocketAddr, pair: &Pair, client_ca: &str) -> Result<Self> {
        let (chain, key) = parsed(pair)?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(client_ca.as_bytes())?)?;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build()?;
        let config = ServerConfig::builder().with_client_cert_verifier(verifier);
        Self::listen(upstream, config.with_single_cert(chain, key)?).await
    }

    async fn listen(upstream: SocketAddr, config: ServerConfig) -> Result<Self> {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut client = acceptor.accept(client).await?;
                    let mut server = TcpStream::connect(upstream).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Ok(Self { address, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn parsed(pair: &Pair) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = CertificateDer::from_pem_slice(pair.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?;
    Ok((vec![chain], key))
}
