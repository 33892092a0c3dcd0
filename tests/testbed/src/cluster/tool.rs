//! Programs that speak to the API server as the admin.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

/// kubectl or helm, ready to be run any number of times.
#[derive(Clone)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) home: PathBuf,
    pub(crate) kubeconfig: PathBuf,
}

impl Tool {
    /// Runs it; what it printed.
    pub(crate) async fn run(&self, args: &[&str], stdin: &str) -> Result<String> {
        let shown = format!("{} {}", self.program, args.join(" "));
        let mut command = Command::new(&self.path);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(args)
            .env("HOME", &self.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let stdin = stdin.to_string();
        tokio::task::spawn_blocking(move || {
            let mut child = command.spawn()?;
            if let Some(mut pipe) = child.stdin.take() {
                pipe.write_all(stdin.as_bytes())?;
            }
            let output = child.wait_with_output()?;
            if !output.status.success() {
                bail!("{shown}: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        })
        .await?
    }
}
