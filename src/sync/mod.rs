//! What an ExternalSecret needs, and what its target must hold. Pure: no I/O, no clock.

pub mod assemble;
pub mod decode;
pub mod keys;
pub mod plan;
pub mod property;
