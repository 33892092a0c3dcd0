//! Compares the template engine with what Go gave.
