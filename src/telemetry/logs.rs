//! Logs: structured, one line per thing that a person should know.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Form of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// Libraries that log what they are handed are silent at every level: `rustify` and `vaultrs` put
/// paths and bodies into their lines, `kube_client` whole answers that it cannot decode, `hyper`,
/// `h2` and `rustls` bytes of the wire, `aws_sigv4` the request that it signs (promise 8).
const SILENT: &str = "vaultrs=off,rustify=off,kube_client=error,kube_runtime=error,hyper=off,hyper_util=off,h2=off,\
                      reqwest=off,rustls=off,tower=off,aws_sigv4=off";

/// Starts logging to standard error.
///
/// # Errors
/// If the level is not one that the filter knows.
pub fn init(level: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(format!("{level},{SILENT}"))
        .map_err(|_| format!("log level '{level}' is not one of trace, debug, info, warn, error"))?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let started = match format {
        LogFormat::Text => registry.with(layer).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    started.map_err(|e| e.to_string())
}
