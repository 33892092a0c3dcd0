//! TLS in front of a plain server, with whatever certificate.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::pki::Pair;

/// A TLS end on loopback.
pub struct TlsFront(Listener);

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
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots(client_ca)?)).build()?;
        let config = ServerConfig::builder().with_client_cert_verifier(verifier);
        Self::listen(upstream, config.with_single_cert(chain, key)?).await
    }

    async fn listen(upstream: SocketAddr, config: ServerConfig) -> Result<Self> {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = Listener::start(move |client| {
            let acceptor = acceptor.clone();
            async move {
                let mut client = acceptor.accept(client).await?;
                let mut server = TcpStream::connect(upstream).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            }
        });
        Ok(Self(listener.await?))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }
}

/// A plain end on loopback in front of a TLS server: what [`TlsFront`] took off is put on again.
pub struct TlsBack(Listener);

impl TlsBack {
    /// Starts one in front of an address of loopback whose certificate this authority signed.
    ///
    /// # Errors
    /// If no port is free, or the authority cannot be read.
    pub async fn start(upstream: SocketAddr, ca: &str) -> Result<Self> {
        let config = ClientConfig::builder()
            .with_root_certificates(roots(ca)?)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::from(upstream.ip());
        let listener = Listener::start(move |mut client| {
            let (connector, name) = (connector.clone(), name.clone());
            async move {
                let server = TcpStream::connect(upstream).await?;
                let mut server = connector.connect(name, server).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            }
        });
        Ok(Self(listener.await?))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }
}

/// Takes connections until it is dropped.
struct Listener {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Listener {
    async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Result<Self>
    where
        F: Future<Output = io::Result<(u64, u64)>> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client));
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn roots(ca: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
    Ok(roots)
}

fn parsed(pair: &Pair) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = CertificateDer::from_pem_slice(pair.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?;
    Ok((vec![chain], key))
}
