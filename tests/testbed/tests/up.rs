//! The testbed as people use it: up, env, status, down; and nothing outlives its owner.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

fn testbed(args: &[&str]) -> Result<Output> {
    Ok(Command::new(env!("CARGO_BIN_EXE_testbed")).args(args).output()?)
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn processes_of(word: &str) -> Result<usize> {
    let list = Command::new("ps").args(["-eo", "args"]).output()?;
    let lines = String::from_utf8_lossy(&list.stdout).into_owned();
    Ok(lines
        .lines()
        .filter(|line| line.contains(word) && !line.starts_with("ps "))
        .count())
}

#[test]
fn up_env_status_and_down_work_and_leave_nothing_behind() -> Result<()> {
    let name = format!("test-{}", std::process::id());
    let up = testbed(&["up", "--no-operator", "--name", &name])?;
    ensure!(up.status.success(), "{}", text(&up));
    let env = text(&testbed(&["env", "--name", &name])?);
    // What the exports are for: a shell that has them has a cluster and a Vault.
    let script = format!(
        "{env}\nkubectl get crd externalsecrets.external-secrets.io -o name && vault kv put secret/x a=b && helm list -n security"
    );
    let shell = Command::new("sh").args(["-ec", &script]).output()?;
    ensure!(shell.status.success(), "{}", text(&shell));
    ensure!(
        text(&shell).contains("keyferry"),
        "the chart is not installed: {}",
        text(&shell)
    );
    let status = testbed(&["status", "--name", &name])?;
    ensure!(
        status.status.success() && text(&status).contains("operator: none"),
        "{}",
        text(&status)
    );
    ensure!(
        !testbed(&["up", "--name", &name])?.status.success(),
        "a second one of the same name started"
    );
    let kubeconfig = env
        .lines()
        .find_map(|line| line.strip_prefix("export KUBECONFIG='"))
        .context("no KUBECONFIG")?;
    let folder = kubeconfig.trim_end_matches("/admin.kubeconfig'").to_string();
    ensure!(processes_of(&folder)? > 0);
    let down = testbed(&["down", "--name", &name])?;
    ensure!(down.status.success(), "{}", text(&down));
    gone(&folder)?;
    ensure!(!testbed(&["status", "--name", &name])?.status.success());
    Ok(())
}

fn gone(folder: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while processes_of(folder)? > 0 || std::path::Path::new(folder).exists() {
        ensure!(Instant::now() < end, "processes or files of {folder} are left");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn nothing_outlives_an_owner_that_is_killed() -> Result<()> {
    let name = format!("killed-{}", std::process::id());
    let up = testbed(&["up", "--no-operator", "--name", &name])?;
    ensure!(up.status.success(), "{}", text(&up));
    let status = text(&testbed(&["status", "--name", &name])?);
    let pid = status
        .split("pid ")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next())
        .context("no pid")?;
    let folder = status
        .lines()
        .find_map(|line| line.trim().strip_prefix("KUBECONFIG="))
        .context("no KUBECONFIG")?;
    let folder = folder.trim_end_matches("/admin.kubeconfig").to_string();
    ensure!(Command::new("kill").args(["-9", pid]).status()?.success());
    gone(&folder)
}
