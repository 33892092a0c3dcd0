//! `cargo testbed up | down | env | status`.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use keyferry_testbed::wait::wait_for;
use keyferry_testbed::{Cluster, Operator, OperatorOptions, Vault, operator, programs};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// A real cluster and a real Vault on loopback.
#[derive(Parser)]
#[command(name = "testbed")]
struct Cli {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    /// Start everything; it runs in the background until `down`.
    Up(Up),
    /// End everything.
    Down(Name),
    /// Print the exports for a shell: eval "$(cargo testbed env)".
    Env(Name),
    /// Say what runs.
    Status(Name),
}

#[derive(Args, Clone)]
struct Name {
    /// Which testbed.
    #[arg(long, default_value = "default")]
    name: String,
}

#[derive(Args, Clone)]
struct Up {
    #[command(flatten)]
    name: Name,
    /// Another operator's command, started with the same kubeconfig.
    #[arg(long, conflicts_with = "no_operator")]
    operator: Option<String>,
    /// Start no operator.
    #[arg(long)]
    no_operator: bool,
    /// Stay in the foreground.
    #[arg(long)]
    foreground: bool,
}

fn state_file(name: &str) -> Result<PathBuf> {
    if name.is_empty()
        || !name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    {
        bail!("a name has letters, digits, '-' and '_' only");
    }
    Ok(programs::cache()?.join("run").join(format!("{name}.json")))
}

fn state(name: &str) -> Result<Value> {
    let path = state_file(name)?;
    let none = format!("no testbed '{name}' runs; start one with: cargo testbed up --name {name}");
    let state: Value = serde_json::from_slice(&fs::read(&path).with_context(|| none.clone())?)?;
    if !alive(&state) {
        let _ = fs::remove_file(path);
        bail!(none);
    }
    Ok(state)
}

fn pid(state: &Value) -> Option<Pid> {
    Pid::from_raw(i32::try_from(state["pid"].as_i64()?).ok()?)
}

fn alive(state: &Value) -> bool {
    pid(state).is_some_and(|pid| test_kill_process(pid).is_ok())
}

fn main() -> std::process::ExitCode {
    match command() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testbed: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn command() -> Result<()> {
    match Cli::parse().command {
        Sub::Up(up) => runtime()?.block_on(start(up)),
        Sub::Down(name) => runtime()?.block_on(down(&name.name)),
        Sub::Env(name) => {
            for (key, value) in exports(&state(&name.name)?) {
                println!("export {key}='{value}'");
            }
            Ok(())
        }
        Sub::Status(name) => {
            let state = state(&name.name)?;
            println!("testbed '{}' runs, pid {}", name.name, state["pid"]);
            exports(&state)
                .iter()
                .for_each(|(key, value)| println!("  {key}={value}"));
            println!("  operator: {}", state["operator"].as_str().unwrap_or("none"));
            Ok(())
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

fn exports(state: &Value) -> Vec<(&'static str, String)> {
    let text = |key: &str| state[key].as_str().unwrap_or_default().to_string();
    vec![
        ("KUBECONFIG", text("kubeconfig")),
        ("VAULT_ADDR", text("vault_addr")),
        ("VAULT_TOKEN", text("vault_token")),
        (
            "PATH",
            format!("{}:{}", text("path"), std::env::var("PATH").unwrap_or_default()),
        ),
    ]
}

async fn start(up: Up) -> Result<()> {
    let name = up.name.name.clone();
    if state(&name).is_ok() {
        bail!("testbed '{name}' runs already; end it with: cargo testbed down --name {name}");
    }
    if up.foreground {
        return supervise(up).await;
    }
    // What takes long is done before the background: its progress is seen.
    tokio::task::spawn_blocking(keyferry_testbed::Programs::ensure).await??;
    if up.operator.is_none() && !up.no_operator {
        build()?;
    }
    let path = state_file(&name)?;
    fs::create_dir_all(path.parent().context("no folder")?)?;
    let log = fs::File::create(path.with_extension("log"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["up", "--foreground", "--name", &name]);
    match &up.operator {
        Some(operator) => drop(command.args(["--operator", operator])),
        None if up.no_operator => drop(command.arg("--no-operator")),
        None => {}
    }
    // A process group of its own: it outlives this command, and ends with `down`.
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let ready = wait_for("the testbed", Duration::from_secs(180), || {
        let ended = child.try_wait();
        let name = name.clone();
        async move {
            match ended? {
                Some(status) => Err(anyhow::anyhow!("it ended with {status}")),
                None => Ok(state(&name).ok()),
            }
        }
    });
    let state = match ready.await {
        Ok(state) => state,
        Err(error) => {
            let _ = child.kill();
            let log = fs::read_to_string(path.with_extension("log")).unwrap_or_default();
            bail!("{error:#}\n{log}");
        }
    };
    println!("testbed '{name}' runs. Use it:  eval \"$(cargo testbed env --name {name})\"");
    exports(&state)
        .iter()
        .filter(|(key, _)| *key != "PATH")
        .for_each(|(key, value)| println!("  {key}={value}"));
    println!("End it:  cargo testbed down --name {name}");
    Ok(())
}

fn build() -> Result<String> {
    eprintln!("testbed: building the operator (release) …");
    operator::build()
}

async fn supervise(up: Up) -> Result<()> {
    let path = state_file(&up.name.name)?;
    fs::create_dir_all(path.parent().context("no folder")?)?;
    let cluster = Cluster::start().await?;
    let vault = Vault::start(&cluster).await?;
    cluster.install_chart(&[]).await?;
    let operator = match (&up.operator, up.no_operator) {
        (_, true) => None,
        (Some(command), _) => {
            let command = ["sh", "-c", &format!("exec {command}")]
                .map(String::from)
                .to_vec();
            Some(
                Operator::start(
                    &cluster,
                    OperatorOptions {
                        command,
                        foreign: true,
                        ..OperatorOptions::default()
                    },
                )
                .await?,
            )
        }
        (None, false) => {
            let binary = build()?;
            let options = OperatorOptions {
                command: vec![binary],
                ..OperatorOptions::default()
            };
            let operator = Operator::start(&cluster, options).await?;
            operator.wait_ready().await?;
            Some(operator)
        }
    };
    let folders: Vec<String> = cluster
        .programs()
        .folders()
        .iter()
        .map(|f| f.display().to_string())
        .collect();
    let state = json!({
        "pid": std::process::id(), "kubeconfig": cluster.kubeconfig(), "vault_addr": vault.address(),
        "vault_token": vault.root_token(), "unseal_key": vault.unseal_key(), "path": folders.join(":"),
        "operator": operator.as_ref().map(|operator| format!("pid {}", operator.pid())),
    });
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(&state)?)?;
    fs::rename(&new, &path)?;
    println!("ready");
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    if let Some(operator) = &operator {
        let _ = operator.terminate();
    }
    let _ = fs::remove_file(path);
    Ok(())
}

async fn down(name: &str) -> Result<()> {
    let state = state(name)?;
    let pid = pid(&state).context("no pid")?;
    kill_process(pid, Signal::TERM)?;
    wait_for("the testbed's end", Duration::from_secs(40), || async {
        Ok((!alive(&state)).then_some(()))
    })
    .await?;
    println!("testbed '{name}' has ended");
    Ok(())
}
