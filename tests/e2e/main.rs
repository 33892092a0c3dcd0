//! Tests against a real API server and a real Vault. Each test has a namespace, a Vault and an operator
//! of its own, and the rights that our chart installs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api;
mod availability;
mod cluster;
mod examples;
mod fetch;
mod flaps;
mod install;
mod main_job;
mod manifest;
mod outage;
mod policies;
mod requests;
mod scene;
mod security;
mod templates;
mod tokens;
