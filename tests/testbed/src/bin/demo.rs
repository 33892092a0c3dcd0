//! `cargo demo`: the main job, played on a real cluster and a real Vault, step by step with times.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail, ensure};
use clap::Parser;
use keyferry_testbed::{Cluster, Operator, OperatorOptions, Vault, homelab, operator, wait_for};
use serde_json::{Value, json};

/// Plays the homelab's story: sync, rotate, reboot sealed, unseal, recovered.
#[derive(Parser)]
#[command(name = "demo")]
struct Cli {
    /// Leave everything running, and print how to use it.
    #[arg(long)]
    keep: bool,
}

const LIMIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(play(cli.keep)))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\n✗ this step did not hold: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn step(text: &str) {
    println!("\n▶ {text}");
}

fn held(text: &str) {
    println!("  ✓ {text}");
}

async fn play(keep: bool) -> Result<()> {
    step("Building the operator (release)");
    let began = Instant::now();
    let binary = operator::build()?;
    held(&format!("built in {:.1?}", began.elapsed()));
    step("Starting etcd, an API server, a controller manager and a Vault on loopback");
    let began = Instant::now();
    let cluster = Cluster::start().await?;
    let vault = Vault::start(&cluster).await?;
    held(&format!("they run, after {:.1?}", began.elapsed()));
    step("helm install keyferry deploy/chart -n security --create-namespace");
    cluster.install_chart(&[]).await?;
    let options = OperatorOptions {
        command: vec![binary],
        ..OperatorOptions::default()
    };
    let operator = Operator::start(&cluster, options).await?;
    operator.wait_ready().await?;
    held("the operator runs with the rights that the chart gives its ServiceAccount");
    let pid = operator.pid();
    sync(&cluster, &vault).await?;
    rotate(&cluster, &vault).await?;
    reboot(&cluster, &vault).await?;
    ensure!(
        operator.runs() && operator.pid() == pid,
        "the operator was restarted"
    );
    held("nothing was restarted: the operator is the same process as before");
    println!("\nEvery step held.");
    if keep {
        println!("\nLeft running; use it in another shell, and end it with Ctrl-C here:");
        println!("  export KUBECONFIG='{}'", cluster.kubeconfig().display());
        println!(
            "  export VAULT_ADDR='{}' VAULT_TOKEN='{}'",
            vault.address(),
            vault.root_token()
        );
        let folders: Vec<String> = cluster
            .programs()
            .folders()
            .iter()
            .map(|f| f.display().to_string())
            .collect();
        println!("  export PATH=\"{}:$PATH\"", folders.join(":"));
        tokio::signal::ctrl_c().await?;
    }
    operator.terminate()
}

async fn sync(cluster: &Cluster, vault: &Vault) -> Result<()> {
    step("vault kv put secret/postgres-secret …, kubectl apply -f deploy/examples/homelab/");
    println!(
        "  (the manifests as they are, but for the server's address: {})",
        vault.address()
    );
    vault
        .put(
            "postgres-secret",
            json!({"POSTGRES_USER": "postgres", "POSTGRES_PASSWORD": "first"}),
        )
        .await?;
    cluster
        .apply(&homelab::manifest("store.yaml", vault.address())?)
        .await?;
    cluster
        .apply(&homelab::manifest("postgres.yaml", vault.address())?)
        .await?;
    let began = Instant::now();
    wait_password(cluster, "first").await?;
    held(&format!(
        "Secret db/postgres-secret is there, {:.0?} after kubectl returned",
        began.elapsed()
    ));
    wait_ready(
        cluster,
        &["externalsecret", "postgres-secret", "-n", "db"],
        "True",
        "SecretSynced",
    )
    .await?;
    for args in [vec!["get", "css,es", "-A"], vec!["get", "secret", "-n", "db"]] {
        println!("{}", indented(&cluster.kubectl(&args, "").await?));
    }
    Ok(())
}

async fn rotate(cluster: &Cluster, vault: &Vault) -> Result<()> {
    step(
        "vault kv patch secret/postgres-secret POSTGRES_PASSWORD=second, kubectl annotate externalsecret postgres-secret -n db force-sync=$(date +%s) --overwrite",
    );
    vault
        .patch("postgres-secret", json!({"POSTGRES_PASSWORD": "second"}))
        .await?;
    let annotation = format!(
        "force-sync={}",
        SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs()
    );
    let began = Instant::now();
    cluster
        .kubectl(
            &[
                "annotate",
                "externalsecret",
                "postgres-secret",
                "-n",
                "db",
                &annotation,
                "--overwrite",
            ],
            "",
        )
        .await?;
    let annotated = began.elapsed();
    wait_password(cluster, "second").await?;
    let (all, own) = (began.elapsed(), began.elapsed().saturating_sub(annotated));
    held(&format!(
        "new value seen {all:.0?} after the command began, {own:.0?} after it returned (two runs of kubectl included)"
    ));
    Ok(())
}

async fn reboot(cluster: &Cluster, vault: &Vault) -> Result<()> {
    step("Reboot: Vault stops and comes back sealed");
    let before = secret(cluster).await?;
    vault.restart_sealed().await?;
    let store = ["clustersecretstore", "k8s-secrets"];
    // A store is checked every five minutes; a read notices at once.
    cluster
        .kubectl(
            &[
                "annotate",
                "externalsecret",
                "postgres-secret",
                "-n",
                "db",
                "force-sync=reboot",
                "--overwrite",
            ],
            "",
        )
        .await?;
    let message = wait_ready(cluster, &store, "False", "Sealed").await?;
    held(&format!("the store says: {message}"));
    let object = ["externalsecret", "postgres-secret", "-n", "db"];
    let message = wait_ready(cluster, &object, "True", "could not be confirmed").await?;
    held(&format!(
        "the ExternalSecret stays Ready within its grace: {message}"
    ));
    ensure!(secret(cluster).await? == before, "the Secret was touched");
    held("the Secret is untouched");
    step("vault operator unseal");
    let began = Instant::now();
    vault.unseal_now().await?;
    wait_ready(cluster, &store, "True", "Valid").await?;
    let ready = began.elapsed();
    wait_ready(cluster, &object, "True", "secret synced").await?;
    held(&format!(
        "the store is Ready {ready:.0?} after the unseal, the ExternalSecret confirmed after {:.0?}",
        began.elapsed()
    ));
    if ready > Duration::from_secs(2) {
        bail!("the store was Ready only {ready:.1?} after the unseal; two seconds are promised");
    }
    let after = secret(cluster).await?;
    ensure!(after["data"] == before["data"], "the Secret lost its data");
    Ok(())
}

async fn secret(cluster: &Cluster) -> Result<Value> {
    let text = cluster
        .kubectl(
            &["get", "secret", "postgres-secret", "-n", "db", "-o", "json"],
            "",
        )
        .await?;
    Ok(serde_json::from_str(&text)?)
}

async fn wait_password(cluster: &Cluster, wanted: &str) -> Result<()> {
    let args = [
        "get",
        "secret",
        "postgres-secret",
        "-n",
        "db",
        "-o",
        "go-template={{.data.POSTGRES_PASSWORD | base64decode}}",
    ];
    wait_for(
        &format!("POSTGRES_PASSWORD {wanted:?} in Secret db/postgres-secret"),
        LIMIT,
        || async { Ok((cluster.kubectl(&args, "").await? == wanted).then_some(())) },
    )
    .await
}

async fn wait_ready(cluster: &Cluster, what: &[&str], status: &str, word: &str) -> Result<String> {
    let mut args = vec!["get"];
    args.extend(what);
    let path = "jsonpath={range .status.conditions[?(@.type==\"Ready\")]}{.status}|{.reason}|{.message}{end}";
    args.extend(["-o", path]);
    wait_for(
        &format!("{} with Ready={status} and '{word}'", what.join(" ")),
        LIMIT,
        || async {
            let text = cluster.kubectl(&args, "").await?;
            let mut parts = text.splitn(3, '|');
            let (is, reason, message) = (
                parts.next(),
                parts.next().unwrap_or_default(),
                parts.next().unwrap_or_default(),
            );
            if is == Some(status) && (reason.contains(word) || message.contains(word)) {
                return Ok(Some(message.to_string()));
            }
            bail!("{text}")
        },
    )
    .await
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("    {line}\n"))
        .collect::<String>()
        .trim_end()
        .to_string()
}
