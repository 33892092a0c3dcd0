//! The store of the API server.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;

use super::kill;
use crate::free_port;
use crate::process::Process;
use crate::programs::Programs;

pub(super) struct Etcd {
    folder: PathBuf,
    command: Vec<String>,
    running: Mutex<Process>,
    // After the one that runs, because the first one's guard removes the folder when it is let go.
    ended: Mutex<Vec<Process>>,
}

impl Etcd {
    /// Starts it. Its guard removes the folder when all is over, also if the owner is killed.
    pub(super) fn start(programs: &Programs, folder: &Path, url: &str) -> Result<Self> {
        let peer = format!("http://127.0.0.1:{}", free_port()?);
        let command = vec![
            programs.path("etcd")?.display().to_string(),
            format!("--data-dir={}", folder.join("etcd").display()),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            // The data is thrown away: waiting for the disk would only measure the disk.
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
        ];
        Ok(Self {
            running: Mutex::new(Process::start("etcd", folder, &command, &[], Some(folder))?),
            ended: Mutex::default(),
            folder: folder.to_path_buf(),
            command,
        })
    }

    /// Kills it, and starts it again after a time; what it stored is still there.
    pub(super) async fn restart(&self, after: Duration) -> Result<()> {
        self.stop()?;
        tokio::time::sleep(after).await;
        self.start_again()
    }

    /// Kills it.
    pub(super) fn stop(&self) -> Result<()> {
        kill(&self.running)
    }

    /// Copies what it stored to a backup, or back. Only while it is stopped.
    pub(super) fn copy(&self, back: bool) -> Result<()> {
        let (data, backup) = (self.folder.join("etcd"), self.folder.join("etcd-backup"));
        let (from, to) = if back { (&backup, &data) } else { (&data, &backup) };
        if to.exists() {
            std::fs::remove_dir_all(to)?;
        }
        copy(from, to)
    }

    /// Starts it again after a stop.
    pub(super) fn start_again(&self) -> Result<()> {
        let process = Process::start("etcd", &self.folder, &self.command, &[], None)?;
        let old = std::mem::replace(&mut *locked(&self.running), process);
        locked(&self.ended).push(old);
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    // As etcd wishes it.
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?;
    Ok(())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
