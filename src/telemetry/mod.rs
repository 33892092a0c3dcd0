//! What the outside can see of the process: metrics, logs, health endpoints.

pub mod http;
pub mod logs;
pub mod metrics;
pub mod objects;
pub mod panics;
