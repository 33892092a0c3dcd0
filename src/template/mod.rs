//! Go's text/template with the functions that ESO offers, for `target.template` and `rewrite.transform`.
//!
//! It is our own, because no crate passes byte strings, fails on missing keys and checks functions while
//! parsing. What it must do is held in `tests/golden`, which Go itself wrote.

mod error;
mod exec;
pub mod fmt;
mod fmt_number;
mod fmt_quote;
mod fmt_value;
pub mod funcs;
pub mod layout;
mod lex;
pub mod limits;
mod methods;
mod parse;
mod parse_literal;
pub mod re2;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
pub mod time;
mod tree;
pub mod value;

use std::collections::BTreeMap;

pub use error::{ErrorKind, TemplateError};

use crate::secret::SecretBytes;

/// What stands before and behind an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delims {
    /// Before it; the standard `{{` if empty.
    pub left: String,
    /// Behind it; the standard `}}` if empty.
    pub right: String,
}

impl Default for Delims {
    fn default() -> Self {
        Self {
            left: "{{".into(),
            right: "}}".into(),
        }
    }
}

/// What a key that is missing in a map means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingKey {
    /// The rendering fails.
    Error,
    /// Its value is nil, which prints as `<no value>`.
    Invalid,
}

/// A template that was parsed. It can be rendered any number of times, by several threads at once.
pub struct Template {
    name: Box<str>,
    text: Box<str>,
    trees: tree::Trees,
    names: Vec<Box<str>>,
    stable: bool,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// If the text is no template, or calls a function that does not exist.
    pub fn parse(name: &str, text: &str, delims: &Delims) -> Result<Self, TemplateError> {
        let left = if delims.left.is_empty() {
            "{{"
        } else {
            &delims.left
        };
        let right = if delims.right.is_empty() {
            "}}"
        } else {
            &delims.right
        };
        let parsed = parse::parse(name, text, left, right)
            .map_err(|error| TemplateError::parse(name, text, &error))?;
        Ok(Self {
            name: name.into(),
            text: text.into(),
            trees: parsed.trees,
            names: parsed.names,
            stable: parsed.stable,
        })
    }

    /// Renders the template with Go's `map[string]string` as its data.
    ///
    /// # Errors
    /// If something is missing, has the wrong type or goes wrong in a function, or if it takes too much.
    pub fn render(
        &self,
        data: &BTreeMap<String, SecretBytes>,
        missing: MissingKey,
    ) -> Result<SecretBytes, TemplateError> {
        exec::render(self, data, missing)
            .map(SecretBytes::new)
            .map_err(|failure| TemplateError::exec(&self.name, &self.text, &failure))
    }

    /// Whether the same data always gives the same result: no function makes a key, a random number or the time.
    #[must_use]
    pub fn is_stable(&self) -> bool {
        self.stable
    }

    /// A part of the text.
    fn source(&self, span: tree::Span) -> &str {
        self.text.get(span.at..span.end).unwrap_or_default()
    }
}
