//! Text under the verbs of `printf`, and Go's quoted strings (`strconv.Quote`).

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use super::fmt::Printer;
use super::fmt_value::bad_verb;
use super::funcs::Fault;
use super::value::Value;

/// Writes a text.
pub(super) fn text(printer: &mut Printer, bytes: &[u8], verb: char) -> Result<(), Fault> {
    match verb {
        'v' if printer.flags.sharp_v => quoted(printer, bytes),
        'v' | 's' => printer.pad(truncate(printer, bytes)),
        'x' => hex(printer, bytes, b"0123456789abcdef", b"0x"),
        'X' => hex(printer, bytes, b"0123456789ABCDEF", b"0X"),
        'q' => quoted(printer, bytes),
        _ => bad_verb(printer, &Value::text(bytes), verb),
    }
}

/// The text up to the precision, which counts runes.
fn truncate<'b>(printer: &Printer, bytes: &'b [u8]) -> &'b [u8] {
    let Some(precision) = printer.flags.precision else {
        return bytes;
    };
    let mut left = precision;
    let mut end = 0;
    for chunk in bytes.utf8_chunks() {
        let sizes = chunk
            .valid()
            .chars()
            .map(char::len_utf8)
            .chain(chunk.invalid().iter().map(|_| 1));
        for size in sizes {
            let Some(fewer) = left.checked_sub(1) else {
                return bytes.get(..end).unwrap_or_default();
            };
            left = fewer;
            end += size;
        }
    }
    bytes
}

fn quoted(printer: &mut Printer, bytes: &[u8]) -> Result<(), Fault> {
    let bytes = truncate(printer, bytes);
    printer.limits.grow(bytes.len().saturating_mul(2))?;
    let made = match std::str::from_utf8(bytes) {
        Ok(text) if printer.flags.sharp && can_backquote(text) => Cow::Owned(format!("`{text}`")),
        _ => quote(bytes, printer.flags.plus).into(),
    };
    printer.pad(made.as_bytes())
}

fn can_backquote(text: &str) -> bool {
    !text
        .chars()
        .any(|c| matches!(c, '`' | '\u{7F}' | '\u{FEFF}') || (c < ' ' && c != '\t'))
}

fn hex(printer: &mut Printer, bytes: &[u8], digits: &[u8; 16], prefix: &[u8]) -> Result<(), Fault> {
    let flags = printer.flags;
    let bytes = bytes
        .get(..flags.precision.unwrap_or(bytes.len()))
        .unwrap_or(bytes);
    if bytes.is_empty() {
        return printer.fill(flags.width.unwrap_or(0));
    }
    printer.limits.grow(bytes.len().saturating_mul(5))?;
    let mut made = Vec::with_capacity(bytes.len().saturating_mul(2));
    for (index, byte) in bytes.iter().enumerate() {
        if flags.space && index > 0 {
            made.push(b' ');
        }
        if flags.sharp && (flags.space || index == 0) {
            made.extend_from_slice(prefix);
        }
        let digit = |number: u8| digits.get(usize::from(number)).copied().unwrap_or_default();
        made.extend([digit(byte >> 4), digit(byte & 15)]);
    }
    printer.pad(&made)
}

/// A text in double quotes, as Go writes it.
#[must_use]
pub fn quote(bytes: &[u8], ascii: bool) -> String {
    let mut made = String::with_capacity(bytes.len() + 2);
    made.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            escape(&mut made, c, '"', ascii);
        }
        for byte in chunk.invalid() {
            made.push_str(&format!("\\x{byte:02x}"));
        }
    }
    made.push('"');
    made
}

/// A rune in single quotes, as Go writes it.
pub(super) fn quote_rune(c: char, ascii: bool) -> String {
    let mut made = String::from("'");
    escape(&mut made, c, '\'', ascii);
    made.push('\'');
    made
}

fn escape(made: &mut String, c: char, quote: char, ascii: bool) {
    match c {
        '\\' => made.push_str("\\\\"),
        '\x07' => made.push_str("\\a"),
        '\x08' => made.push_str("\\b"),
        '\x0C' => made.push_str("\\f"),
        '\n' => made.push_str("\\n"),
        '\r' => made.push_str("\\r"),
        '\t' => made.push_str("\\t"),
        '\x0B' => made.push_str("\\v"),
        c if c == quote => made.extend(['\\', c]),
        ' '..='~' => made.push(c),
        '\0'..='\x1F' | '\x7F' => made.push_str(&format!("\\x{:02x}", u32::from(c))),
        c if !ascii && is_printable(c) => made.push(c),
        c if u32::from(c) < 0x1_0000 => made.push_str(&format!("\\u{:04x}", u32::from(c))),
        c => made.push_str(&format!("\\U{:08x}", u32::from(c))),
    }
}

/// Go's `unicode.IsPrint`: letters, marks, numbers, punctuation and symbols, and the one space of ASCII.
pub(super) fn is_printable(c: char) -> bool {
    static PRINTABLE: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"[\p{L}\p{M}\p{N}\p{P}\p{S}]").ok());
    if c.is_ascii() {
        return matches!(c, ' '..='~');
    }
    let mut buffer = [0; 4];
    let text: &str = c.encode_utf8(&mut buffer);
    PRINTABLE
        .as_ref()
        .is_some_and(|printable| printable.is_match(text))
}
