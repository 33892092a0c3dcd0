//! The types of `external-secrets.io/v1`, one file a kind.

pub mod external_secret;
pub mod meta;
pub mod store;
pub mod vault;
