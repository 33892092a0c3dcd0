//! What is written to Kubernetes: decided by pure functions, done by a thin shell.

pub mod apply;
pub mod clock;
pub mod fence;
pub mod fenced;
pub mod hash;
pub mod kept;
pub mod leased;
pub mod manifest;
pub mod manifest_apply;
pub mod manifest_path;
pub mod names;
pub mod order;
pub mod plan;
mod request;
pub mod reserved;
mod stale;
pub mod typed;
pub mod undone;
pub mod writes;
