//! Tests against a real API server and a real Vault. Each test has a namespace, a Vault and an operator
//! of its own, and the rights that our chart installs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api;
mod auth;
mod auth_refusals;
mod availability;
mod canaries;
mod chart;
mod closed;
mod cluster;
mod crowds;
mod deletions;
mod deputies;
mod examples;
mod failures;
mod fake;
mod fetch;
mod flaps;
mod hostile;
mod iam;
mod install;
mod key;
mod kv;
mod leases;
mod least_rights;
mod leftovers;
mod lessor;
mod main_job;
mod manifest;
mod mounts;
mod outage;
mod policies;
mod renames;
mod requests;
mod rights;
mod scene;
mod security;
mod stalls;
mod sts;
mod templates;
mod tenants;
mod tls;
mod token_kinds;
mod tokens;
mod wire;
mod writes;
