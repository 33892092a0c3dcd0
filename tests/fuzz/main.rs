//! Nothing that a tenant or Vault writes breaks the operator, holds it up, or shows up in a message.
//!
//! `targets` changes real inputs (the golden corpus, fixtures of keys and stores, paths, patterns, YAML, answers of
//! Vault) at random, `objects` does the same to ExternalSecrets and stores, `answers` to logins and health checks over a
//! real connection, `covered` looks for what has no target, `leaks` puts recognisable values in place of real ones and looks for them in every error,
//! `deep` nests every language far deeper than any reader goes, `time` asks for the worst on purpose.
//!
//! `KEYFERRY_FUZZ_CASES` is the number of cases of each target; without it there are few, so that a debug build is
//! done in less than 40 s. A long run: `KEYFERRY_FUZZ_CASES=200000 cargo test --release --test fuzz targets`.
//! It then also takes the templates that make keys, which are slow.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod answers;
mod corpus;
mod covered;
mod deep;
#[path = "../golden/corpus.rs"]
mod golden;
mod leaks;
mod mutate;
mod objects;
mod targets;
mod time;
