//! Pure: which reads an ExternalSecret needs (`plan`), and from their answers what the target must hold
//! (`assemble`, and `shape` where a template says so). Talks to nobody and reads no clock, so the controller and the `render` sub-command run the
//! same code.

pub mod assemble;
mod cron;
pub mod decode;
pub mod find;
mod gjson_path;
pub mod keys;
pub mod number;
pub mod plan;
pub mod property;
mod rewrite;
pub mod shape;
pub mod sources;
pub mod windows;
