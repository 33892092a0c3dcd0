//! The program: a sub-command, or the controller.

use std::process::ExitCode;

use clap::Parser as _;
use keyferry::cli::{Cli, Command, crds, run};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Crds { write }) => crds::crds(write.as_deref()),
        Some(Command::Run(args)) => controller(*args),
        None => controller(cli.run),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("keyferry: {message}");
            ExitCode::FAILURE
        }
    }
}

fn controller(args: keyferry::cli::RunArgs) -> Result<(), String> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| "a TLS provider is installed already".to_string())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("no runtime: {e}"))?;
    // What must answer whatever the others compute: the health endpoints and the leader election.
    let vital = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("vital")
        .enable_all()
        .build()
        .map_err(|e| format!("no runtime for what is vital: {e}"))?;
    let ended = runtime.block_on(run::run(args, vital.handle().clone()));
    vital.shutdown_background();
    ended
}
