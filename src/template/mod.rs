//! Go's text/template with the functions that ESO offers, for `target.template` and `rewrite.transform`.
//!
//! It is our own, because no crate passes byte strings, fails on missing keys and checks functions while
//! parsing. What it must do is held in `tests/golden`, which Go itself wrote.

pub mod funcs;
pub mod layout;
pub mod limits;
pub mod time;
pub mod value;
