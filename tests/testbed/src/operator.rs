//! The operator, as a host process with the rights that the chart installs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::process::Process;
use crate::wait::{Ended, wait_for};
use crate::{free_port, repository};

/// Arguments for a short lease, where leaders are to follow one another soon.
pub const SHORT_LEASE: [&str; 3] = [
    "--leader-election-lease-duration=4s",
    "--leader-election-renew-deadline=3s",
    "--leader-election-retry-period=500ms",
];

static COUNT: AtomicU64 = AtomicU64::new(1);

/// How to start it.
#[derive(Clone, Debug, Default)]
pub struct OperatorOptions {
    /// The program and its first arguments.
    pub command: Vec<String>,
    /// Further arguments; they win over those of the chart.
    pub args: Vec<String>,
    /// Further environment variables.
    pub env: Vec<(String, String)>,
    /// URL of the API server, if it is not the cluster's own (a proxy).
    pub api_server: Option<String>,
    /// Name of the pod; unique if absent.
    pub name: Option<String>,
    /// Whether it is another operator, which knows neither the chart's arguments nor ours.
    pub foreign: bool,
}

/// A running operator.
pub struct Operator {
    process: Process,
    metrics: String,
    live: String,
    http: reqwest::Client,
    credential: String,
}

/// Builds the operator as it is released; the path of the program.
///
/// # Errors
/// If cargo cannot build it; it has said why.
pub fn build() -> Result<String> {
    let build = "build --release --locked --quiet --package keyferry --bin keyferry";
    let status = Command::new("cargo")
        .current_dir(repository())
        .args(build.split(' '))
        .status()
        .context("cannot run cargo")?;
    ensure!(
        status.success(),
        "the operator could not be built; see cargo's messages above"
    );
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    Ok(target.join("release/keyferry").display().to_string())
}

impl Operator {
    /// Starts it with a token of the chart's ServiceAccount and with the arguments, the plain environment variables and
    /// the memory limit of the chart's Deployment. The chart must be installed.
    ///
    /// # Errors
    /// If the chart is not installed, or the program cannot be started.
    pub async fn start(cluster: &Cluster, options: OperatorOptions) -> Result<Self> {
        let text = cluster
            .kubectl(
                &["get", "deployment", "keyferry", "-n", "security", "-o", "json"],
                "",
            )
            .await?;
        let deployment: Value = serde_json::from_str(&text)?;
        let pod = &deployment["spec"]["template"]["spec"];
        let account = pod["serviceAccountName"]
            .as_str()
            .context("the Deployment names no ServiceAccount")?;
        let of_container = |field: &str| pod["containers"][0][field].as_array().into_iter().flatten();
        let args = of_container("args").filter_map(|arg| arg.as_str().map(String::from));
        let plain = |variable: &Value| {
            let (name, value) = (variable["name"].as_str()?, variable["value"].as_str()?);
            Some((name.to_string(), value.to_string()))
        };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = options.name.unwrap_or_else(|| format!("keyferry-{number}"));
        let folder = cluster.folder().join(format!("operator-{number}"));
        fs::create_dir_all(&folder)?;
        let token_file = folder.join("token");
        fs::write(&token_file, cluster.token("security", account).await?)?;
        let kubeconfig = cluster
            .service_account_kubeconfig("security", account, options.api_server.as_deref())
            .await?;
        let (metrics, live) = (
            format!("127.0.0.1:{}", free_port()?),
            format!("127.0.0.1:{}", free_port()?),
        );
        let mut env = vec![
            ("KUBECONFIG".to_string(), kubeconfig.display().to_string()),
            ("POD_NAMESPACE".into(), "security".into()),
            ("POD_NAME".into(), name),
            ("RUST_BACKTRACE".into(), "0".into()),
        ];
        let mut command = options.command;
        if !options.foreign {
            command.extend(args);
            env.extend(of_container("env").filter_map(plain));
            command.push(format!("--metrics-addr={metrics}"));
            command.push(format!("--live-addr={live}"));
            command.push(format!("--service-account-token-file={}", token_file.display()));
            // No container tells it.
            let limit = pod["containers"][0]["resources"]["limits"]["memory"].as_str();
            command.extend(limit.map(|limit| format!("--memory-limit={limit}")));
        }
        command.extend(options.args);
        env.extend(options.env);
        let process = Process::start("operator", &folder, &command, &env, None)?;
        Ok(Self {
            process,
            metrics,
            live,
            http: reqwest::Client::new(),
            credential: credential(&kubeconfig)?,
        })
    }

    /// Where its health is asked for.
    #[must_use]
    pub fn live(&self) -> &str {
        &self.live
    }

    /// Waits until its watches are in sync.
    ///
    /// # Errors
    /// If it ended, or is not ready in time.
    pub async fn wait_ready(&self) -> Result<()> {
        wait_for("the operator", Duration::from_secs(60), || async {
            if !self.process.runs() {
                return Err(Ended(self.process.last_words()).into());
            }
            let answer = self
                .http
                .get(format!("http://{}/readyz", self.live))
                .send()
                .await?;
            Ok(answer.status().is_success().then_some(()))
        })
        .await
    }

    /// What `/readyz` says.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn readyz(&self) -> Result<String> {
        let answer = self.http.get(format!("http://{}/readyz", self.live)).send();
        Ok(answer.await?.text().await?)
    }

    /// Its metrics, as text.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(self
            .http
            .get(format!("http://{}/metrics", self.metrics))
            .send()
            .await?
            .text()
            .await?)
    }

    /// How the API server's audit log names its token.
    #[must_use]
    pub fn credential(&self) -> &str {
        &self.credential
    }

    /// All that it logged.
    #[must_use]
    pub fn logs(&self) -> String {
        self.process.log()
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Whether it runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.process.runs()
    }

    /// Asks it to stop, and waits.
    ///
    /// # Errors
    /// If it still runs after 20 s.
    pub fn terminate(&self) -> Result<()> {
        self.process.signal(Signal::TERM)?;
        self.process.wait(Duration::from_secs(20))
    }

    /// Kills it.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&self) -> Result<()> {
        self.process.signal(Signal::KILL)?;
        self.process.wait(Duration::from_secs(5))
    }

    /// Stops its time, or lets it go on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&self, paused: bool) -> Result<()> {
        self.process
            .signal(if paused { Signal::STOP } else { Signal::CONT })
    }

    /// Its resident memory, in MiB.
    ///
    /// # Errors
    /// If it does not run.
    pub fn rss_mib(&self) -> Result<f64> {
        self.memory_mib("VmRSS:")
    }

    /// The most that its resident memory ever was, in MiB.
    ///
    /// # Errors
    /// If it does not run.
    pub fn peak_mib(&self) -> Result<f64> {
        self.memory_mib("VmHWM:")
    }

    fn memory_mib(&self, of: &str) -> Result<f64> {
        let status = fs::read_to_string(PathBuf::from(format!("/proc/{}/status", self.pid())))?;
        let line = status.lines().find_map(|line| line.strip_prefix(of));
        let kib = line.with_context(|| format!("no {of}"))?.trim();
        Ok(kib.trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
    }

    /// Its processor time so far, in seconds.
    ///
    /// # Errors
    /// If it does not run.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks = |i: usize| {
            fields
                .get(i)
                .and_then(|field| field.parse::<f64>().ok())
                .context("no times")
        };
        Ok((ticks(11)? + ticks(12)?) / 100.0)
    }
}

fn credential(kubeconfig: &Path) -> Result<String> {
    use base64::Engine as _;
    let config: Value = serde_json::from_slice(&fs::read(kubeconfig)?)?;
    let token = config["users"][0]["user"]["token"].as_str().context("no token")?;
    let claims = token.split('.').nth(1).context("no JWT")?;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims)?;
    let claims: Value = serde_json::from_slice(&claims)?;
    Ok(format!("JTI={}", claims["jti"].as_str().context("no jti")?))
}
