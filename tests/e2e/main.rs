//! Tests against a real API server and a real Vault. Each test has a namespace, a Vault and an operator
//! of its own, and the rights that our chart installs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api;
mod availability;
mod examples;
mod failures;
mod fake;
mod fetch;
mod install;
mod kv;
mod least_rights;
mod main_job;
mod manifest;
mod outage;
mod policies;
mod scene;
mod security;
mod templates;
mod tenants;
mod tls;
mod tokens;
mod wire;
