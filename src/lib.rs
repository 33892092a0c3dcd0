//! Keyferry ferries secrets from Vault (or OpenBao) into native Kubernetes Secrets.
//!
//! ```text
//!  watch event ─▶ controller ─▶ sync::plan ─▶ store (health, login, shared reads) ─▶ vault (protocol)
//!                     ▲                                         │ values
//!                     └── target::apply ◀── sync::assemble ◀────┘
//! ```
//!
//! Dependencies point one way: `cli → controller → {store, target, sync} → {vault, template, api}`. `sync`,
//! `template`, `api` and the planning half of `target` are pure and carry most of the tests.

pub mod api;
pub mod cli;
pub mod controller;
pub mod memory;
pub mod permits;
pub mod refusal;
pub mod secret;
pub mod store;
pub mod sync;
pub mod target;
pub mod telemetry;
pub mod template;
pub mod vault;
