//! How a Vault listens: certificates that change, and a listener that wants to see one.

use std::fs;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::Vault;
use crate::free_port;
use crate::pki::Pair;

const CLIENT_CA: &str = "client-ca.crt";

impl Vault {
    /// Shows another certificate from now on, without a restart.
    ///
    /// # Errors
    /// If the files cannot be written, or it does not run.
    pub fn show_certificate(&self, pair: &Pair) -> Result<()> {
        fs::write(self.folder.join("tls.crt"), &pair.certificate)?;
        fs::write(self.folder.join("tls.key"), &pair.key)?;
        let process = self
            .process
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        process.as_ref().context("it does not run")?.signal(Signal::HUP)
    }

    /// Restarts with one more listener, which serves only those who show a certificate of this CA; its base URL.
    ///
    /// # Errors
    /// If it does not come back.
    pub async fn listen_to_certified(&self, ca_pem: &str) -> Result<String> {
        let file = self.folder.join("vault.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
        let port = free_port()?;
        let listeners = config["listener"].as_array_mut().context("no listeners")?;
        listeners.push(json!({"tcp": {
            "address": format!("127.0.0.1:{port}"), "cluster_address": format!("127.0.0.1:{}", free_port()?),
            "tls_cert_file": self.folder.join("tls.crt"), "tls_key_file": self.folder.join("tls.key"),
            "tls_client_ca_file": self.folder.join(CLIENT_CA), "tls_require_and_verify_client_cert": true,
        }}));
        fs::write(&file, serde_json::to_vec(&config)?)?;
        self.certify_by(ca_pem).await?;
        Ok(format!("https://127.0.0.1:{port}"))
    }

    /// Restarts and takes certificates of this CA only.
    ///
    /// # Errors
    /// If it does not come back.
    pub async fn certify_by(&self, ca_pem: &str) -> Result<()> {
        fs::write(self.folder.join(CLIENT_CA), ca_pem)?;
        self.restart_sealed().await?;
        self.unseal().await
    }
}
