#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]
//! `cargo bench --bench operator -- SCENARIO… [--objects N] [--sealed SECONDS] [--minutes N] [--operator 'CMD'] [--json FILE]`
//!
//! Each scenario gets a fresh control plane and a fresh Vault. Times are taken from watch events of
//! the bench's own client; Vault requests are counted from its audit device, requests to Kubernetes
//! from the API server's audit log, memory and processor time from /proc. Every time stands beside its
//! floor: a bare client with 32 requests in flight that does only what cannot be avoided. `templates` needs
//! no cluster: it renders the golden corpus with our engine and with Go's, by turns.

mod churn;
mod endurance;
mod floor;
mod hostile;
mod observer;
mod rig;
mod scenarios;
mod templates;

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Parser;
use serde_json::Value;

/// What to measure.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// first-sync, force-sync, shared-path, recovery, cold-start, steady, busy-newcomer, memory, memory-hostile, churn,
    /// templates.
    scenarios: Vec<String>,
    /// ExternalSecrets.
    #[arg(long, default_value_t = 1000)]
    objects: usize,
    /// Seconds that Vault stays sealed in `recovery`.
    #[arg(long, default_value_t = 60)]
    sealed: u64,
    /// Minutes of `churn`.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Another operator's command, started with the same kubeconfig.
    #[arg(long)]
    operator: Option<String>,
    /// File to append one JSON object per scenario to.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut names: Vec<&str> = options.scenarios.iter().map(String::as_str).collect();
    if names.is_empty() {
        // An hour of churn is for those who ask for it.
        names = scenarios::ALL.to_vec();
        names.retain(|name| *name != "churn");
    }
    if let Some(unknown) = names.iter().find(|name| !scenarios::ALL.contains(name)) {
        bail!("no scenario '{unknown}'; there are {}", scenarios::ALL.join(", "));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for name in names {
        let result = match name {
            "templates" => templates::run().map(|mut result| {
                result["scenario"] = "templates".into();
                result
            })?,
            _ => runtime.block_on(scenarios::run(name, &options))?,
        };
        print(&result);
        if let Some(path) = &options.json {
            let old = fs::read_to_string(path).unwrap_or_default();
            fs::write(path, format!("{old}{result}\n"))?;
        }
    }
    Ok(())
}

fn print(result: &Value) {
    println!("\n{}", result["scenario"].as_str().unwrap_or_default());
    for (key, value) in result.as_object().into_iter().flatten() {
        if key != "scenario" {
            println!("  {key:32} {value}");
        }
    }
}
