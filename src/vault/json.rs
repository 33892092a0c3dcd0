//! JSON as Vault sends it: numbers keep their digits, and nothing of it can be printed by accident.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::{Zeroize, Zeroizing};

mod read;

/// How deep objects and arrays may be nested; deeper ones are refused rather than risking the stack.
pub const MAX_DEPTH: usize = 128;

/// Memory that what is made of this text takes up at most: its strings, and a tree of as many values as it has signs
/// between them.
#[must_use]
pub fn cost(text: &[u8]) -> usize {
    let values = text
        .iter()
        .filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{'));
    let tree = values.count().saturating_mul(read::VALUE + read::MEMBER);
    text.len().saturating_add(tree.min(read::MAX_TREE))
}

/// The same of any text of so many bytes.
#[must_use]
pub fn most(bytes: usize) -> usize {
    // A sign and a digit for each value.
    let tree = (bytes / 2).saturating_mul(read::VALUE + read::MEMBER);
    bytes.saturating_add(tree.min(read::MAX_TREE))
}

/// A JSON value that holds secrets: wiped when dropped, and `Debug` names only its kind.
///
/// Numbers keep the text they had, because users store account numbers and PINs as numbers and a trip through
/// a float would change them.
///
/// What is nested deeper than what is asked for stays text until it is written: a tree of it takes forty times its
/// size.
#[derive(Clone, Default)]
pub enum Json {
    /// `null`
    #[default]
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it was written.
    Number(String),
    /// A string, unescaped.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object; of equal keys the last one counts, as in Go.
    Object(BTreeMap<String, Json>),
    /// An array or an object, as the text that it was.
    Nested(Nested),
}

/// The text of an array or an object that was checked as a whole; wiped when dropped.
#[derive(Clone)]
pub struct Nested(Zeroizing<String>);

/// Why a text is not JSON that we accept; never holds any of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It ends too early.
    #[error("the JSON text ends too early")]
    Truncated,
    /// It breaks a rule of JSON.
    #[error("not valid JSON (line {line}, column {column})")]
    Syntax {
        /// Line of the fault, from 1.
        line: usize,
        /// Column of the fault, from 1.
        column: usize,
    },
    /// A string in it holds half of a surrogate pair or an impossible escape.
    #[error("the JSON text holds a string that is not valid Unicode")]
    Unicode,
    /// It is nested too deeply.
    #[error("the JSON text is nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// A tree of it would take too much memory.
    #[error(
        "the JSON text holds too many members and elements: they take more than {} MiB in memory",
        read::MAX_TREE >> 20
    )]
    TooLarge,
}

impl Json {
    /// Reads one JSON value; anything but white space after it is an error. The arrays and objects in it stay text.
    pub fn parse(text: &[u8]) -> Result<Self, JsonError> {
        Self::parse_levels(text, 1)
    }

    /// The same with a tree of so many levels.
    pub fn parse_levels(text: &[u8], levels: usize) -> Result<Self, JsonError> {
        read::parse(text, levels)
    }

    /// What it is, in the words of JSON; safe to print.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
            Self::Nested(text) if text.is_array() => "an array",
            Self::Nested(_) => "an object",
        }
    }

    /// How many bytes it takes up, about.
    #[must_use]
    pub fn size(&self) -> usize {
        let own = size_of::<Self>();
        own + match self {
            Self::Null | Self::Bool(_) => 0,
            Self::Number(text) | Self::String(text) => text.len(),
            Self::Array(items) => items.iter().map(Self::size).sum(),
            Self::Object(members) => members
                .iter()
                .map(|(key, member)| key.len() + member.size())
                .sum(),
            Self::Nested(text) => text.0.len(),
        }
    }

    /// The member of an object that is no text.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.get(key),
            _ => None,
        }
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Takes the members out of an object.
    #[must_use]
    pub fn into_object(mut self) -> Option<BTreeMap<String, Self>> {
        match &mut self {
            Self::Object(members) => Some(std::mem::take(members)),
            Self::Nested(text) => match Self::parse(text.0.as_bytes()) {
                Ok(mut json @ Self::Object(_)) => {
                    if let Self::Object(members) = &mut json {
                        return Some(std::mem::take(members));
                    }
                    None
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// The text that Go's `encoding/json` makes of it: sorted keys, no white space, `<`, `>`, `&`, U+2028 and
    /// U+2029 escaped. Byte for byte what ESO writes, so that a takeover restarts nobody's pods.
    #[must_use]
    pub fn to_go_string(&self) -> String {
        let mut out = String::with_capacity(self.size_hint());
        self.write(&mut out, Html::Escaped);
        out
    }

    /// The same with `<`, `>` and `&` as they are: Go's encoder with `SetEscapeHTML(false)`.
    #[must_use]
    pub fn to_go_string_without_html(&self) -> String {
        let mut out = String::with_capacity(self.size_hint());
        self.write(&mut out, Html::Plain);
        out
    }

    /// Upper bound of the written size for usual texts: a buffer that never grows leaves no copies behind.
    fn size_hint(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 5,
            Self::Number(text) => text.len(),
            Self::String(text) => go_string_len(text),
            Self::Array(items) => 2 + items.iter().map(|item| item.size_hint() + 1).sum::<usize>(),
            Self::Object(members) => {
                2 + members
                    .iter()
                    .map(|(key, value)| go_string_len(key) + value.size_hint() + 2)
                    .sum::<usize>()
            }
            Self::Nested(text) => text.written_len(),
        }
    }

    /// Rewrites every number.
    pub fn change_numbers(&mut self, change: fn(&str) -> String) {
        match self {
            Self::Number(text) => *self = Self::Number(change(text)),
            Self::Array(items) => items.iter_mut().for_each(|item| item.change_numbers(change)),
            Self::Object(members) => members
                .values_mut()
                .for_each(|member| member.change_numbers(change)),
            Self::Nested(text) => text.change_numbers(change),
            Self::Null | Self::Bool(_) | Self::String(_) => {}
        }
    }

    fn write(&self, out: &mut String, html: Html) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(true) => out.push_str("true"),
            Self::Bool(false) => out.push_str("false"),
            Self::Number(text) => out.push_str(text),
            Self::String(text) => write_go_string(text, out, html),
            Self::Array(items) => {
                out.push('[');
                for (position, item) in items.iter().enumerate() {
                    if position > 0 {
                        out.push(',');
                    }
                    item.write(out, html);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (position, (key, value)) in members.iter().enumerate() {
                    if position > 0 {
                        out.push(',');
                    }
                    write_go_string(key, out, html);
                    out.push(':');
                    value.write(out, html);
                }
                out.push('}');
            }
            Self::Nested(text) => text.write(out, html),
        }
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(one), Self::Bool(two)) => one == two,
            (Self::Number(one), Self::Number(two)) | (Self::String(one), Self::String(two)) => one == two,
            _ => {
                self.kind() == other.kind()
                    && Zeroizing::new(self.to_go_string()) == Zeroizing::new(other.to_go_string())
            }
        }
    }
}

impl Eq for Json {}

impl Drop for Json {
    fn drop(&mut self) {
        if let Self::String(text) | Self::Number(text) = self {
            text.zeroize();
        }
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({})", self.kind())
    }
}

/// What becomes of `<`, `>` and `&` in strings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Html {
    Escaped,
    Plain,
}

/// Writes a string literal as Go's `encoding/json` does.
fn write_go_string(text: &str, out: &mut String, html: Html) {
    out.push('"');
    for c in text.chars() {
        match go_escape(c) {
            Escape::None => out.push(c),
            Escape::Long if html == Html::Plain && matches!(c, '<' | '>' | '&') => out.push(c),
            Escape::Short(letter) => {
                out.push('\\');
                out.push(letter);
            }
            Escape::Long => {
                let code = u32::from(c);
                out.push_str("\\u");
                for shift in [12, 8, 4, 0] {
                    out.push(char::from_digit((code >> shift) & 0xf, 16).unwrap_or('0'));
                }
            }
        }
    }
    out.push('"');
}

/// A string literal as Go's `encoding/json` writes it.
#[must_use]
pub fn go_string(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(go_string_len(text)));
    write_go_string(text, &mut out, Html::Escaped);
    out
}

fn go_string_len(text: &str) -> usize {
    let escaped = |c: char| match go_escape(c) {
        Escape::None => c.len_utf8(),
        Escape::Short(_) => 2,
        Escape::Long => 6,
    };
    2 + text.chars().map(escaped).sum::<usize>()
}

enum Escape {
    None,
    Short(char),
    Long,
}

fn go_escape(c: char) -> Escape {
    match c {
        '"' | '\\' => Escape::Short(c),
        '\u{8}' => Escape::Short('b'),
        '\u{c}' => Escape::Short('f'),
        '\n' => Escape::Short('n'),
        '\r' => Escape::Short('r'),
        '\t' => Escape::Short('t'),
        '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => Escape::Long,
        _ => Escape::None,
    }
}

#[cfg(test)]
mod tests;
