//! A Vault with raft storage, a file audit device and Kubernetes auth against a cluster.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

mod listeners;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::cluster::Cluster;
use crate::process::Process;
use crate::programs::Programs;
use crate::wait::wait_for;
use crate::{free_port, read_from};

const READY: Duration = Duration::from_secs(60);
/// What the role `eso-reader` may do.
pub const POLICY: &str = "path \"secret/*\" { capabilities = [\"read\", \"list\"] }\n\
                      path \"kv1/*\" { capabilities = [\"read\", \"list\"] }";
static COUNT: AtomicU64 = AtomicU64::new(1);

/// One line of the audit device.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    /// `request` or `response`.
    pub kind: String,
    /// Path of the request, without `v1/`.
    pub path: String,
    /// `read`, `update`, …
    pub operation: String,
    /// What Vault said was wrong.
    pub error: String,
    /// Whether the root token asked, as the tests do.
    pub root: bool,
    /// When.
    pub time: String,
}

/// A Vault.
pub struct Vault {
    folder: PathBuf,
    programs: Programs,
    address: String,
    tls_address: String,
    command: Vec<String>,
    process: Mutex<Option<Process>>,
    http: reqwest::Client,
    root_token: String,
    unseal_key: String,
}

impl Vault {
    /// Starts one, unsealed and configured: KV v2 at `secret`, KV v1 at `kv1`, Kubernetes auth at
    /// `kubernetes` with role `eso-reader` for the ServiceAccount `security/eso-vault-auth`.
    ///
    /// # Errors
    /// If it cannot be started or configured.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let mut vault = Self::launch(cluster)?;
        vault.wait_uninitialized().await?;
        vault.initialize().await?;
        vault.configure(cluster).await?;
        Ok(vault)
    }

    /// Starts a further node of the raft cluster of another Vault, unsealed; it stands by.
    ///
    /// # Errors
    /// If it cannot be started, or does not join.
    pub async fn start_beside(cluster: &Cluster, first: &Self) -> Result<Self> {
        let mut vault = Self::launch(cluster)?;
        vault.wait_uninitialized().await?;
        let join = json!({"leader_api_addr": first.address});
        vault.api("PUT", "sys/storage/raft/join", &join).await?;
        vault.unseal_key.clone_from(&first.unseal_key);
        vault.root_token.clone_from(&first.root_token);
        vault.unseal_now().await?;
        // 429: a standby.
        vault.wait_health("the joined Vault", &[429]).await?;
        Ok(vault)
    }

    /// Starts the process of a node.
    fn launch(cluster: &Cluster) -> Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = cluster.folder().join(format!("vault-{number}"));
        let plugins = folder.join("plugins");
        fs::create_dir_all(&plugins)?;
        fs::create_dir_all(folder.join("raft"))?;
        let (port, tls_port, cluster_port) = (free_port()?, free_port()?, free_port()?);
        let pair = cluster
            .authority()
            .server(&["vault.security.svc.cluster.local"])?;
        fs::write(folder.join("tls.crt"), &pair.certificate)?;
        fs::write(folder.join("tls.key"), &pair.key)?;
        let config = json!({
            "disable_mlock": true, "plugin_directory": plugins,
            "api_addr": format!("http://127.0.0.1:{port}"), "cluster_addr": format!("https://127.0.0.1:{cluster_port}"),
            "storage": {"raft": {
                "path": folder.join("raft"), "node_id": format!("node-{number}"), "performance_multiplier": 1,
            }},
            "listener": [
                {"tcp": {"address": format!("127.0.0.1:{port}"), "tls_disable": true, "cluster_address": format!("127.0.0.1:{cluster_port}")}},
                {"tcp": {
                    "address": format!("127.0.0.1:{tls_port}"), "tls_cert_file": folder.join("tls.crt"),
                    "tls_key_file": folder.join("tls.key"), "cluster_address": format!("127.0.0.1:{}", free_port()?),
                }},
            ],
        });
        fs::write(folder.join("vault.json"), serde_json::to_vec(&config)?)?;
        let command = vec![
            cluster.programs().path("vault")?.display().to_string(),
            "server".into(),
            "-log-level=warn".into(),
            format!("-config={}", folder.join("vault.json").display()),
        ];
        Ok(Self {
            process: Mutex::new(Some(Process::start("vault", &folder, &command, &[], None)?)),
            address: format!("http://127.0.0.1:{port}"),
            tls_address: format!("https://127.0.0.1:{tls_port}"),
            http: reqwest::Client::builder()
                .timeout(Duration::from_secs(30))
                .build()?,
            root_token: String::new(),
            unseal_key: String::new(),
            command,
            folder,
            programs: cluster.programs().clone(),
        })
    }

    /// Base URL, plain.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it listens, without TLS.
    ///
    /// # Errors
    /// If the address cannot be read.
    pub fn socket(&self) -> Result<SocketAddr> {
        let address = self.address.strip_prefix("http://").context("no address")?;
        Ok(address.parse()?)
    }

    /// Base URL with TLS; the certificate is signed by the cluster's CA.
    #[must_use]
    pub fn tls_address(&self) -> &str {
        &self.tls_address
    }

    /// The root token.
    #[must_use]
    pub fn root_token(&self) -> &str {
        &self.root_token
    }

    /// The key that unseals.
    #[must_use]
    pub fn unseal_key(&self) -> &str {
        &self.unseal_key
    }

    /// Calls the API with the root token. A 404 comes back as `null`.
    ///
    /// # Errors
    /// What Vault answered, if it is not success.
    pub async fn api(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let method: reqwest::Method = method.parse()?;
        let mut request = self.http.request(method, format!("{}/v1/{path}", self.address));
        if !self.root_token.is_empty() {
            request = request.header("X-Vault-Token", &self.root_token);
        }
        if !body.is_null() {
            request = request.json(body);
        }
        if path.starts_with("secret/data/") && body.get("data").is_some() {
            request = request.header("Content-Type", "application/json");
        }
        let response = request.send().await?;
        let (status, text) = (response.status().as_u16(), response.text().await?);
        match status {
            404 => Ok(Value::Null),
            200..300 => Ok(serde_json::from_str(&text).unwrap_or(Value::Null)),
            _ => bail!("Vault answered {status} to {path}: {text}"),
        }
    }

    /// Writes a secret (KV v2).
    ///
    /// # Errors
    /// See [`Self::api`].
    pub async fn put(&self, path: &str, data: Value) -> Result<()> {
        self.api("POST", &format!("secret/data/{path}"), &json!({"data": data}))
            .await
            .map(drop)
    }

    /// Changes keys of a secret (KV v2), as `vault kv patch` does.
    ///
    /// # Errors
    /// See [`Self::api`].
    pub async fn patch(&self, path: &str, data: Value) -> Result<()> {
        let mut whole = self
            .api("GET", &format!("secret/data/{path}"), &Value::Null)
            .await?["data"]["data"]
            .clone();
        let (Some(whole_map), Some(new)) = (whole.as_object_mut(), data.as_object()) else {
            bail!("no such secret, or no object");
        };
        whole_map.extend(new.clone());
        self.put(path, whole).await
    }

    /// Deletes the latest version of a secret (KV v2).
    ///
    /// # Errors
    /// See [`Self::api`].
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.api("DELETE", &format!("secret/data/{path}"), &Value::Null)
            .await
            .map(drop)
    }

    /// Revokes every token that logins by Kubernetes auth obtained.
    ///
    /// # Errors
    /// See [`Self::api`].
    pub async fn revoke_logins(&self) -> Result<()> {
        self.api(
            "PUT",
            "sys/leases/revoke-prefix/auth/kubernetes/login",
            &json!({}),
        )
        .await
        .map(drop)
    }

    /// How many tokens of logins by Kubernetes auth live.
    ///
    /// # Errors
    /// See [`Self::api`].
    pub async fn living_logins(&self) -> Result<usize> {
        let list = self
            .api("LIST", "sys/leases/lookup/auth/kubernetes/login", &Value::Null)
            .await?;
        Ok(list["data"]["keys"].as_array().map_or(0, Vec::len))
    }

    /// Stops it.
    ///
    /// # Errors
    /// If it does not stop.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::TERM)
    }

    /// Kills it, as a node that dies does.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&self) -> Result<()> {
        self.end(Signal::KILL)
    }

    fn end(&self, signal: Signal) -> Result<()> {
        let process = self
            .process
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .context("it does not run")?;
        process.signal(signal)?;
        if process.wait(Duration::from_secs(5)).is_err() {
            process.signal(Signal::KILL)?;
            process.wait(Duration::from_secs(5))?;
        }
        Ok(())
    }

    /// Starts it again; it is sealed, as after a reboot.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn start_sealed(&self) -> Result<()> {
        let process = Process::start("vault", &self.folder, &self.command, &[], None)?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        self.wait_health("the sealed Vault", &[503]).await
    }

    /// Stops it and starts it again, sealed.
    ///
    /// # Errors
    /// If it does not come back.
    pub async fn restart_sealed(&self) -> Result<()> {
        self.stop()?;
        self.start_sealed().await
    }

    /// Sends the unseal key; does not wait for Vault to be active.
    ///
    /// # Errors
    /// See [`Self::api`].
    pub async fn unseal_now(&self) -> Result<()> {
        self.api("PUT", "sys/unseal", &json!({"key": self.unseal_key}))
            .await
            .map(drop)
    }

    /// Unseals, and waits until it is active.
    ///
    /// # Errors
    /// If it does not become active.
    pub async fn unseal(&self) -> Result<()> {
        self.unseal_now().await?;
        self.wait_health("the unsealed Vault", &[200]).await
    }

    /// Waits for one of these statuses of `sys/health`.
    pub(crate) async fn wait_health(&self, what: &str, statuses: &[u16]) -> Result<()> {
        wait_for(what, READY, || async {
            Ok(statuses.contains(&self.health().await?).then_some(()))
        })
        .await
    }

    /// Status of `sys/health`: 200 of an active node, 429 of a standby, 503 of a sealed one.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn health(&self) -> Result<u16> {
        Ok(self
            .http
            .get(format!("{}/v1/sys/health", self.address))
            .send()
            .await?
            .status()
            .as_u16())
    }

    async fn wait_uninitialized(&self) -> Result<()> {
        self.wait_health("Vault", &[501]).await.map_err(|e| {
            let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
            anyhow!(
                "{e:#}\n{}",
                process.as_ref().map(Process::last_words).unwrap_or_default()
            )
        })
    }

    async fn initialize(&mut self) -> Result<()> {
        let keys = self
            .api(
                "PUT",
                "sys/init",
                &json!({"secret_shares": 1, "secret_threshold": 1}),
            )
            .await?;
        self.unseal_key = keys["keys_base64"][0].as_str().context("no unseal key")?.into();
        self.unseal().await?;
        self.root_token = keys["root_token"].as_str().context("no root token")?.into();
        Ok(())
    }

    async fn configure(&self, cluster: &Cluster) -> Result<()> {
        let audit = json!({"type": "file", "options": {"file_path": self.folder.join("audit.log")}});
        self.api("PUT", "sys/audit/file", &audit).await?;
        for (path, version) in [("secret", "2"), ("kv1", "1")] {
            self.api(
                "POST",
                &format!("sys/mounts/{path}"),
                &json!({"type": "kv", "options": {"version": version}}),
            )
            .await?;
        }
        self.enable_plugin("kubernetes", "kubernetes").await?;
        // Of two Vaults that start at the same time one finds that the other was faster.
        wait_for("the ServiceAccounts", READY, || async {
            cluster.apply(SERVICE_ACCOUNTS).await.map(Some)
        })
        .await?;
        let config = json!({
            "kubernetes_host": cluster.url(), "kubernetes_ca_cert": cluster.ca_pem(), "disable_local_ca_jwt": true,
            "token_reviewer_jwt": cluster.token("security", "vault-reviewer").await?,
        });
        self.api("POST", "auth/kubernetes/config", &config).await?;
        self.api("PUT", "sys/policies/acl/eso-reader", &json!({"policy": POLICY}))
            .await?;
        self.write_role("eso-reader", "eso-vault-auth", "security", &json!({}))
            .await?;
        // KV v2 upgrades its mount for a moment after it is made.
        wait_for("the KV engine", READY, || async {
            self.put("testbed/probe", json!({"ready": "yes"})).await.map(Some)
        })
        .await
    }

    /// Enables an auth method that is built in: approle, cert, jwt or userpass.
    ///
    /// # Errors
    /// See [`Self::api`].
    pub async fn enable_auth(&self, kind: &str, mount: &str) -> Result<()> {
        self.api("POST", &format!("sys/auth/{mount}"), &json!({"type": kind}))
            .await
            .map(drop)
    }

    /// Registers an auth method that is a plugin, and enables it: kubernetes, aws or ldap.
    ///
    /// # Errors
    /// If the testbed has no such plugin, or see [`Self::api`].
    pub async fn enable_plugin(&self, kind: &str, mount: &str) -> Result<()> {
        let program = format!("vault-plugin-auth-{kind}");
        let binary = fs::read(self.programs.path(&program)?)?;
        let sha256: String = Sha256::digest(&binary)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        fs::copy(
            self.programs.path(&program)?,
            self.folder.join("plugins").join(&program),
        )?;
        let plugin = json!({"sha256": sha256, "command": program});
        self.api("PUT", &format!("sys/plugins/catalog/auth/{kind}"), &plugin)
            .await?;
        self.enable_auth(kind, mount).await
    }

    /// Writes a role of the Kubernetes auth method; `further` overrides its fields.
    ///
    /// # Errors
    /// See [`Self::api`].
    pub async fn write_role(
        &self,
        role: &str,
        account: &str,
        namespace: &str,
        further: &Value,
    ) -> Result<()> {
        let mut body = json!({
            "bound_service_account_names": [account], "bound_service_account_namespaces": [namespace],
            "token_policies": ["eso-reader"], "token_ttl": "1h",
        });
        if let (Some(body), Some(further)) = (body.as_object_mut(), further.as_object()) {
            body.extend(further.clone());
        }
        self.api("POST", &format!("auth/kubernetes/role/{role}"), &body)
            .await
            .map(drop)
    }

    /// A mark in the audit device.
    #[must_use]
    pub fn audit_mark(&self) -> u64 {
        fs::metadata(self.folder.join("audit.log"))
            .map(|meta| meta.len())
            .unwrap_or(0)
    }

    /// What was asked of Vault since a mark.
    ///
    /// # Errors
    /// If the device's file cannot be read.
    pub fn audit_since(&self, mark: u64) -> Result<Vec<AuditEntry>> {
        let bytes = read_from(&self.folder.join("audit.log"), mark)?;
        let lines = bytes
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        Ok(lines
            .map(|line| AuditEntry {
                kind: text(&line["type"]),
                path: text(&line["request"]["path"]),
                operation: text(&line["request"]["operation"]),
                error: text(&line["error"]),
                root: line["auth"]["display_name"] == "root",
                time: text(&line["time"]),
            })
            .collect())
    }

    /// Requests of the operator since a mark, counted by path: whatever the root token did not ask.
    ///
    /// # Errors
    /// If the device's file cannot be read.
    pub fn requests_since(&self, mark: u64) -> Result<HashMap<String, usize>> {
        let mut counts = HashMap::new();
        for entry in self.audit_since(mark)? {
            if entry.kind == "request" && !entry.root && entry.path != "sys/unseal" {
                *counts.entry(entry.path).or_default() += 1;
            }
        }
        Ok(counts)
    }
}

const SERVICE_ACCOUNTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: security}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: eso-vault-auth, namespace: security}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: vault-reviewer, namespace: security}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: vault-reviewer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:auth-delegator"}
subjects: [{kind: ServiceAccount, name: vault-reviewer, namespace: security}]
"#;
