//! A program that ends with its owner.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};

/// Starts the program, says its pid, and ends it when standard input closes: that happens when the
/// owner lets go, and also when the owner is killed. The program leads a process group, so that its
/// children (Vault's plugins) end with it. The guard's third argument, if it is not empty, is a folder
/// to remove then.
const GUARD: &str = r#"
log=$1; pidfile=$2; folder=$3; shift 3
setsid "$@" >>"$log" 2>&1 </dev/null &
pid=$!
echo "$pid" >"$pidfile.new" && mv "$pidfile.new" "$pidfile"
cat >/dev/null
kill -s KILL -- "-$pid" 2>/dev/null
wait "$pid" 2>/dev/null
[ -z "$folder" ] || rm -rf "$folder"
"#;

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    guard: Child,
    pid: Pid,
    log: PathBuf,
}

impl Process {
    /// Starts a program; its output goes to `folder/name.log`. `sweep` is removed when it has ended.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(
        name: &str,
        folder: &Path,
        command: &[String],
        env: &[(String, String)],
        sweep: Option<&Path>,
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let pidfile = folder.join(format!("{name}.pid"));
        let _ = fs::remove_file(&pidfile);
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&log)
            .arg(&pidfile)
            .arg(sweep.unwrap_or(Path::new("")))
            .args(command)
            .envs(env.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let mut tries = 0;
        let pid = loop {
            if let Ok(text) = fs::read_to_string(&pidfile) {
                break text
                    .trim()
                    .parse::<i32>()
                    .ok()
                    .and_then(Pid::from_raw)
                    .context("no pid")?;
            }
            tries += 1;
            if tries > 1000 {
                bail!("{name} did not start");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Ok(Self {
            name: name.into(),
            guard,
            pid,
            log,
        })
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether it still runs.
    #[must_use]
    pub fn runs(&self) -> bool {
        // A dead child of the guard stays a zombie until the guard waits for it: its state tells. Its
        // other threads may still end then, and hold its ports.
        let proc = PathBuf::from(format!("/proc/{}", self.pid()));
        let state = fs::read_to_string(proc.join("stat")).unwrap_or_default();
        let dead = state
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .trim_start()
            .starts_with('Z');
        let threads = fs::read_dir(proc.join("task")).map_or(0, Iterator::count);
        test_kill_process(self.pid).is_ok() && !(dead && threads <= 1)
    }

    /// Sends a signal; `KILL` goes to its children as well.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let sent = if signal == Signal::KILL {
            kill_process_group(self.pid, signal)
        } else {
            kill_process(self.pid, signal)
        };
        sent.with_context(|| format!("{} does not run", self.name))
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// If it still runs then.
    pub fn wait(&self, limit: Duration) -> Result<()> {
        let end = std::time::Instant::now() + limit;
        while self.runs() {
            if std::time::Instant::now() > end {
                bail!("{} still runs after {limit:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// All that it said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The last of what it said, for errors.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}
