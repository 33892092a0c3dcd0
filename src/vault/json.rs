//! JSON as Vault keeps it: numbers with their digits, objects in order of their keys, and the text form
//! that Go's `encoding/json` gives, which is what ends up in targets.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// Depth at which parsing stops: deeper than any secret, and far from the end of the stack.
const DEPTH_MAX: usize = 100;

/// One JSON value. `Debug` shows its kind only.
#[derive(Clone, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it was written.
    Number(String),
    /// A string.
    String(Zeroizing<String>),
    /// A list.
    Array(Vec<Json>),
    /// An object.
    Object(BTreeMap<String, Json>),
}

/// The text is not JSON, or too deep. What it holds is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not valid JSON")]
pub struct NotJson;

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "Json(null)",
            Self::Bool(_) => "Json(bool)",
            Self::Number(_) => "Json(number)",
            Self::String(_) => "Json(string)",
            Self::Array(_) => "Json(array)",
            Self::Object(_) => "Json(object)",
        })
    }
}

impl Json {
    /// Parses a text.
    ///
    /// # Errors
    /// If it is not JSON.
    pub fn parse(text: &[u8]) -> Result<Self, NotJson> {
        let raw: &RawValue = serde_json::from_slice(text).map_err(|_| NotJson)?;
        Self::of(raw, 0)
    }

    fn of(raw: &RawValue, depth: usize) -> Result<Self, NotJson> {
        fn read<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, NotJson> {
            serde_json::from_str(raw.get()).map_err(|_| NotJson)
        }
        if depth > DEPTH_MAX {
            return Err(NotJson);
        }
        Ok(match raw.get().as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'"') => Self::String(read(raw)?),
            Some(b'[') => {
                let items: Vec<&RawValue> = read(raw)?;
                Self::Array(
                    items
                        .into_iter()
                        .map(|item| Self::of(item, depth + 1))
                        .collect::<Result<_, _>>()?,
                )
            }
            Some(b'{') => {
                let entries: BTreeMap<String, &RawValue> = read(raw)?;
                let entry = |(key, item)| Ok((key, Self::of(item, depth + 1)?));
                Self::Object(entries.into_iter().map(entry).collect::<Result<_, _>>()?)
            }
            _ => Self::Number(raw.get().to_string()),
        })
    }

    /// The text as Go writes it: compact, keys sorted, `<`, `>`, `&` and the line separators escaped.
    #[must_use]
    pub fn to_go_string(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(digits) => out.push_str(digits),
            Self::String(text) => write_string(text, out),
            Self::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(entries) => {
                out.push('{');
                for (i, (key, value)) in entries.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write_string(key, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn go(text: &str) -> String {
        Json::parse(text.as_bytes()).unwrap().to_go_string()
    }

    #[test]
    fn the_text_is_gos() {
        assert_eq!(
            go(r#"{"b": 1.50, "a": "<x>&\u2028", "c": [null, true, 1e3]}"#),
            r#"{"a":"\u003cx\u003e\u0026\u2028","b":1.50,"c":[null,true,1e3]}"#
        );
        assert_eq!(go(r#""\u0001\b\f\n""#), r#""\u0001\b\f\n""#);
    }

    #[test]
    fn long_numbers_keep_their_digits() {
        assert_eq!(
            go("[12345678901234567890123, 0.1000]"),
            "[12345678901234567890123,0.1000]"
        );
    }

    #[test]
    fn what_is_no_json_is_refused_without_being_shown() {
        for text in ["", "{", "hunter2", "[1,]", "{\"a\":1}x"] {
            assert!(!format!("{:?}", Json::parse(text.as_bytes()).unwrap_err()).contains("hunter2"));
        }
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(Json::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn debug_shows_no_value() {
        assert_eq!(
            format!("{:?}", Json::parse(br#"{"a":"hunter2"}"#).unwrap()),
            "Json(object)"
        );
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(text in "\\PC*") {
            let json = Json::String(text.into());
            prop_assert_eq!(Json::parse(json.to_go_string().as_bytes()).unwrap(), json);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Json::parse(&bytes);
        }
    }
}
