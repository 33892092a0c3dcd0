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
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    /// What log lines may show by `Debug` or `Display`: names and times. No error is among them, because the errors of
    /// libraries quote answers; the text of one of ours is made first.
    const SHOWN: [&str; 7] = [
        "?key",
        "?pause",
        "%key",
        "%key.name",
        "%key.namespace",
        "%lane",
        "%self.base",
    ];

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    /// The log lines of a source, from behind the opening bracket on.
    fn lines(source: &str) -> Vec<&str> {
        let line = |rest: &'static str| source.match_indices(rest).map(move |(at, _)| at + rest.len());
        ["error", "warn", "info", "debug", "trace", "event"]
            .map(|level| -> &'static str { format!("tracing::{level}!(").leak() })
            .into_iter()
            .flat_map(line)
            .map(|at| {
                source[at..]
                    .split_once(';')
                    .map_or(&source[at..], |(line, _)| line)
            })
            .collect()
    }

    /// What of a log line must not be there.
    fn faults(line: &str) -> Vec<&str> {
        let odd = |at: usize| {
            let rest = &line[at..];
            let end = rest[1..].find(|c: char| !c.is_alphanumeric() && c != '_' && c != '.');
            let field = &rest[..end.map_or(rest.len(), |end| end + 1)];
            (field.len() > 1 && !SHOWN.contains(&field)).then_some(field)
        };
        let mut faults: Vec<&str> = line
            .match_indices(['?', '%'])
            .filter_map(|(at, _)| odd(at))
            .collect();
        faults.extend(line.contains('{').then_some("{"));
        faults.extend(line.contains("dyn ").then_some("dyn "));
        faults
    }

    #[test]
    fn no_log_line_takes_an_error_as_a_library_shows_it() {
        assert_eq!(faults(r#"?error, "not renewed")"#), ["?error"]);
        assert_eq!(
            faults(r#"%error, store = %key, "not renewed: {e:?}")"#),
            ["%error", "{"]
        );
        assert!(faults(r#"error, name = %key.name, "not renewed; again")"#).is_empty());
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
        let mut looked = 0;
        for file in files.iter().filter(|file| !file.ends_with("telemetry/logs.rs")) {
            let source = std::fs::read_to_string(file).unwrap();
            for line in lines(&source) {
                looked += 1;
                assert_eq!(faults(line), [""; 0], "{}: {line}", file.display());
            }
        }
        assert!(looked > 30, "only {looked} log lines were found");
    }

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
