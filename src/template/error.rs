//! What is wrong with a template, and where. Never a value of its data.

use std::fmt;

use super::exec::Failure;
use super::lex::SyntaxError;
use super::parse::shorten;

/// When a template failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// While it was parsed: it fails with any data.
    Parse,
    /// While it was carried out.
    Exec,
}

/// What is wrong with a template: its name, line and column, and what failed, mostly in Go's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    kind: ErrorKind,
    message: String,
}

impl TemplateError {
    /// When it failed.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(super) fn parse(name: &str, text: &str, error: &SyntaxError) -> Self {
        let (line, column) = place(text, error.at);
        Self {
            kind: ErrorKind::Parse,
            message: format!("template: {name}:{line}:{column}: {}", error.message),
        }
    }

    pub(super) fn exec(name: &str, text: &str, failure: &Failure) -> Self {
        let (line, column) = place(text, failure.span.at);
        let context = shorten(
            text.get(failure.span.at..failure.span.end)
                .unwrap_or_default()
                .trim(),
        );
        let executing = &failure.executing;
        let message = &failure.message;
        Self {
            kind: ErrorKind::Exec,
            message: format!(
                "template: {name}:{line}:{column}: executing {executing:?} at <{context}>: {message}"
            ),
        }
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TemplateError {}

/// Line, from 1, and bytes before this place in the line, as Go counts them.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rfind('\n')
        .map_or(before.len(), |newline| before.len() - newline - 1);
    (line, column)
}
