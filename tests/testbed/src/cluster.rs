//! etcd, an API server and a controller manager.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

mod audit;
mod etcd;
mod tool;

use anyhow::{Context as _, Result, anyhow, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::Value;
use tempfile::TempDir;

pub use self::audit::AuditEvent;
use self::etcd::Etcd;
pub(crate) use self::tool::Tool;
use crate::pki::{Authority, Pair};
use crate::process::Process;
use crate::programs::Programs;
use crate::wait::{Ended, wait_for};
use crate::{free_port, install_tls_provider, read_from, repository};

const READY: Duration = Duration::from_secs(90);
const CONTROLLERS: &str = "serviceaccount-controller,serviceaccount-token-controller,garbage-collector-controller,\
                           namespace-controller,root-ca-certificate-publisher-controller,clusterrole-aggregation-controller";

/// A control plane.
pub struct Cluster {
    programs: Programs,
    folder: TempDir,
    url: String,
    authority: Authority,
    client: Client,
    namespaces: AtomicU64,
    _controller_manager: Process,
    api_server: Mutex<Process>,
    api_server_command: Vec<String>,
    // Last, so that it ends last; its guard removes the folder if the owner is killed.
    etcd: Etcd,
}

impl Cluster {
    /// Starts one, in about ten seconds.
    ///
    /// # Errors
    /// If a program cannot be built or started.
    pub async fn start() -> Result<Self> {
        install_tls_provider();
        let programs = tokio::task::spawn_blocking(Programs::ensure).await??;
        let folder = tempfile::Builder::new().prefix("keyferry-testbed-").tempdir()?;
        let path = folder.path();
        let authority = Authority::new("keyferry-testbed")?;
        let etcd_url = format!("http://127.0.0.1:{}", free_port()?);
        let etcd = Etcd::start(&programs, path, &etcd_url)?;
        let port = free_port()?;
        let url = format!("https://127.0.0.1:{port}");
        let api_server_command = api_server(&programs, path, &authority, &etcd_url, port)?;
        let api_server = Process::start("kube-apiserver", path, &api_server_command, &[], None)?;
        let admin = authority.client("admin", Some("system:masters"))?;
        write_kubeconfig(
            &path.join("admin.kubeconfig"),
            &url,
            &authority.pem,
            Credential::Pair(&admin),
        )?;
        let client = client_of(&path.join("admin.kubeconfig")).await?;
        wait_for("the API server", READY, || async {
            if !api_server.runs() {
                return Err(Ended(api_server.last_words()).into());
            }
            let request = http_get("/readyz")?;
            Ok(client
                .request_text(request)
                .await
                .ok()
                .filter(|text| text == "ok")
                .map(drop))
        })
        .await
        .map_err(|e| anyhow!("{e:#}\n{}", api_server.last_words()))?;
        let controller_manager = start_controller_manager(&programs, path, &url, &authority)?;
        Ok(Self {
            programs,
            url,
            authority,
            client,
            namespaces: AtomicU64::new(1),
            _controller_manager: controller_manager,
            api_server: Mutex::new(api_server),
            api_server_command,
            etcd,
            folder,
        })
    }

    /// The programs.
    #[must_use]
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Folder of the cluster; gone with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// URL of the API server.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where the API server listens.
    ///
    /// # Errors
    /// If the address cannot be read.
    pub fn socket(&self) -> Result<SocketAddr> {
        let address = self.url.strip_prefix("https://").context("no address")?;
        Ok(address.parse()?)
    }

    /// CA of the API server.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.authority.pem
    }

    /// The authority, for further certificates.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The admin's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("admin.kubeconfig")
    }

    /// The admin's client.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Runs kubectl as the admin; returns what it printed.
    ///
    /// # Errors
    /// What it said, if it failed.
    pub async fn kubectl(&self, args: &[&str], stdin: &str) -> Result<String> {
        self.tool("kubectl")?.run(args, stdin).await
    }

    /// Runs helm as the admin; returns what it printed.
    ///
    /// # Errors
    /// What helm said, if it failed.
    pub async fn helm(&self, args: &[&str]) -> Result<String> {
        self.tool("helm")?.run(args, "").await
    }

    /// A program that speaks as the admin.
    pub(crate) fn tool(&self, program: &'static str) -> Result<Tool> {
        Ok(Tool {
            program,
            path: self.programs.path(program)?,
            home: self.folder.path().to_path_buf(),
            kubeconfig: self.kubeconfig(),
        })
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// What kubectl said, if it failed.
    pub async fn apply(&self, yaml: &str) -> Result<String> {
        self.kubectl(&["apply", "-f", "-"], yaml).await
    }

    /// Makes a namespace of its own for a test.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        let name = format!("{prefix}-{}", self.namespaces.fetch_add(1, Ordering::Relaxed));
        self.kubectl(&["create", "namespace", &name], "").await?;
        Ok(name)
    }

    /// Installs our chart, with further arguments for helm.
    ///
    /// # Errors
    /// What helm said, if it failed.
    pub async fn install_chart(&self, further: &[&str]) -> Result<String> {
        let chart = repository().join("deploy/chart").display().to_string();
        let mut args = vec![
            "upgrade",
            "--install",
            "keyferry",
            &chart,
            "-n",
            "security",
            "--create-namespace",
        ];
        args.extend(further);
        self.helm(&args).await
    }

    /// A token of a ServiceAccount.
    ///
    /// # Errors
    /// If the API server refuses.
    pub async fn token(&self, namespace: &str, name: &str) -> Result<String> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        let spec = TokenRequestSpec {
            expiration_seconds: Some(24 * 3600),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest {
            spec,
            ..TokenRequest::default()
        };
        let answer = api
            .create_token_request(name, &PostParams::default(), &request)
            .await?;
        Ok(answer.status.context("no token")?.token)
    }

    /// A kubeconfig with a token of a ServiceAccount, for this server URL or the cluster's own.
    ///
    /// # Errors
    /// If the API server refuses the token.
    pub async fn service_account_kubeconfig(
        &self,
        namespace: &str,
        name: &str,
        server: Option<&str>,
    ) -> Result<PathBuf> {
        let token = self.token(namespace, name).await?;
        let unique = self.namespaces.fetch_add(1, Ordering::Relaxed);
        let path = self
            .folder
            .path()
            .join(format!("{namespace}-{name}-{unique}.kubeconfig"));
        write_kubeconfig(
            &path,
            server.unwrap_or(&self.url),
            &self.authority.pem,
            Credential::Token(&token),
        )?;
        Ok(path)
    }

    /// Kills the API server and starts it again.
    ///
    /// # Errors
    /// If it does not come back.
    pub async fn restart_api_server(&self) -> Result<()> {
        kill(&self.api_server)?;
        self.start_api_server().await
    }

    async fn start_api_server(&self) -> Result<()> {
        let process = Process::start(
            "kube-apiserver",
            self.folder.path(),
            &self.api_server_command,
            &[],
            None,
        )?;
        *self.api_server.lock().map_err(|_| anyhow!("poisoned"))? = process;
        self.wait_api_server().await
    }

    /// Kills etcd and starts it again after a time; nothing that it stored is lost.
    ///
    /// # Errors
    /// If it or the API server does not come back.
    pub async fn restart_etcd(&self, after: Duration) -> Result<()> {
        self.etcd.restart(after).await?;
        self.wait_api_server().await
    }

    /// Takes a backup of all that is stored, or brings the last one back. The API server is down meanwhile, as it has
    /// to be when the store under it is exchanged.
    ///
    /// # Errors
    /// If a file cannot be copied, or something does not come back.
    pub async fn back_up(&self, back: bool) -> Result<()> {
        kill(&self.api_server)?;
        self.etcd.stop()?;
        self.etcd.copy(back)?;
        self.etcd.start_again()?;
        self.start_api_server().await
    }

    async fn wait_api_server(&self) -> Result<()> {
        wait_for("the API server", READY, || async {
            // With a limit: a connection of the old process may never answer.
            let text = tokio::time::timeout(
                Duration::from_secs(2),
                self.client.request_text(http_get("/readyz")?),
            )
            .await;
            let last_words = self
                .api_server
                .lock()
                .map(|process| process.last_words())
                .unwrap_or_default();
            match text {
                Ok(Ok(text)) if text == "ok" => Ok(Some(())),
                other => bail!("{:?}\n{last_words}", other.map(|r| r.map_err(|e| e.to_string()))),
            }
        })
        .await
    }

    /// A mark in the API server's audit log.
    #[must_use]
    pub fn audit_mark(&self) -> u64 {
        fs::metadata(self.folder.path().join("audit.log"))
            .map(|meta| meta.len())
            .unwrap_or(0)
    }

    /// What was asked of the API server since a mark.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn audit_since(&self, mark: u64) -> Result<Vec<AuditEvent>> {
        let text = read_from(&self.folder.path().join("audit.log"), mark)?;
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect())
    }
}

fn http_get(path: &str) -> Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path).body(Vec::new())?)
}

async fn client_of(kubeconfig: &Path) -> Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    config.read_timeout = None;
    Ok(Client::try_from(config)?)
}

enum Credential<'a> {
    Pair(&'a Pair),
    Token(&'a str),
}

fn write_kubeconfig(path: &Path, server: &str, ca: &str, credential: Credential<'_>) -> Result<()> {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let user: Value = match credential {
        Credential::Pair(pair) => serde_json::json!({
            "client-certificate-data": encode(&pair.certificate), "client-key-data": encode(&pair.key),
        }),
        Credential::Token(token) => serde_json::json!({"token": token}),
    };
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "testbed",
        "clusters": [{"name": "testbed", "cluster": {"server": server, "certificate-authority-data": encode(ca)}}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "user"}}],
    });
    Ok(fs::write(path, serde_json::to_vec(&config)?)?)
}

fn kill(process: &Mutex<Process>) -> Result<()> {
    let process = process.lock().map_err(|_| anyhow!("poisoned"))?;
    process.signal(rustix::process::Signal::KILL)?;
    process.wait(Duration::from_secs(10))
}

fn api_server(
    programs: &Programs,
    folder: &Path,
    authority: &Authority,
    etcd: &str,
    port: u16,
) -> Result<Vec<String>> {
    let write = |name: &str, text: &str| -> Result<String> {
        let path = folder.join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let serving = authority.server(&["kubernetes.default.svc", "kubernetes.default", "kubernetes"])?;
    let accounts = Authority::new("service-accounts")?.client("service-accounts", None)?;
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";
    let key = write("service-accounts.key", &accounts.key)?;
    // The public half, which the API server takes from a certificate.
    let public = write("service-accounts.crt", &accounts.certificate)?;
    Ok(vec![
        programs.path("kube-apiserver")?.display().to_string(),
        format!("--etcd-servers={etcd}"),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={}", write("serving.crt", &serving.certificate)?),
        format!("--tls-private-key-file={}", write("serving.key", &serving.key)?),
        format!("--client-ca-file={}", write("ca.crt", &authority.pem)?),
        format!("--service-account-key-file={public}"),
        format!("--service-account-signing-key-file={key}"),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        "--service-cluster-ip-range=10.96.0.0/16".into(),
        "--authorization-mode=Node,RBAC".into(),
        "--endpoint-reconciler-type=none".into(),
        "--enable-priority-and-fairness=false".into(),
        format!("--audit-policy-file={}", write("audit-policy.yaml", policy)?),
        format!("--audit-log-path={}", folder.join("audit.log").display()),
        "--audit-log-maxsize=2000".into(),
    ])
}

fn start_controller_manager(
    programs: &Programs,
    folder: &Path,
    url: &str,
    authority: &Authority,
) -> Result<Process> {
    let pair = authority.client("system:kube-controller-manager", Some("system:masters"))?;
    let kubeconfig = folder.join("controller-manager.kubeconfig");
    write_kubeconfig(&kubeconfig, url, &authority.pem, Credential::Pair(&pair))?;
    let command = vec![
        programs.path("kube-controller-manager")?.display().to_string(),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--controllers={CONTROLLERS}"),
        "--leader-elect=false".into(),
        "--use-service-account-credentials=false".into(),
        "--secure-port=0".into(),
        format!("--root-ca-file={}", folder.join("ca.crt").display()),
        format!(
            "--service-account-private-key-file={}",
            folder.join("service-accounts.key").display()
        ),
        "--kube-api-qps=500".into(),
        "--kube-api-burst=1000".into(),
    ];
    Process::start("kube-controller-manager", folder, &command, &[], None)
}
