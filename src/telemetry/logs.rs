//! Logs: structured, one line per thing that a person should know.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
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

/// Libraries log what they are handed: `rustify` and `vaultrs` paths and bodies, `kube_client` whole answers that it
/// cannot decode, `hyper`, `h2` and `rustls` bytes of the wire, `aws_sigv4` the request that it signs. So only our own
/// lines follow the level, and of the libraries only those that say what is wrong with a watch (promise 8).
fn filter(level: LevelFilter) -> Targets {
    Targets::new()
        .with_target("keyferry", level)
        .with_targets(["kube_client", "kube_runtime"].map(|library| (library, LevelFilter::ERROR)))
}

/// Starts logging to standard error.
///
/// # Errors
/// If the level is none of the five: a list of levels by module is not taken, because it would wake libraries that
/// show secrets.
pub fn init(level: &str, format: LogFormat) -> Result<(), String> {
    let level: tracing::Level = level
        .parse()
        .map_err(|_| format!("log level '{level}' is not one of trace, debug, info, warn, error"))?;
    let filter = filter(LevelFilter::from_level(level));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_level_wakes_a_library_that_shows_what_it_is_handed() {
        let filter = filter(LevelFilter::TRACE);
        assert!(filter.would_enable("keyferry::store::login", &tracing::Level::TRACE));
        for library in [
            "hyper::proto::h1",
            "rustls::client",
            "reqwest",
            "rustify::endpoint",
            "kube_client::client",
        ] {
            assert!(!filter.would_enable(library, &tracing::Level::WARN), "{library}");
        }
    }

    #[test]
    fn a_list_of_levels_by_module_is_refused() {
        for level in ["trace,hyper::proto=trace", "hyper=trace", "loud", ""] {
            assert!(init(level, LogFormat::Text).is_err(), "{level}");
        }
    }
}
