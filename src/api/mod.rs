//! The types of `external-secrets.io/v1`, one file a kind.

pub mod bounds;
pub mod crds;
mod defaults;
pub mod duration;
pub mod external_secret;
pub mod meta;
mod rules;
pub mod store;
pub mod vault;
