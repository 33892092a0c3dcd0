//! Reads JSON in one pass, and writes what stayed text.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::{Html, Json, JsonError, MAX_DEPTH, Nested, go_string_len, write_go_string};

/// Bytes that a tree may take. A secret of 1 MiB, the most that Vault stores by default, stays below whatever it
/// holds.
pub(super) const MAX_TREE: usize = 40 << 20;
/// What a value takes in a list, and its text on the heap.
pub(super) const VALUE: usize = size_of::<Json>() + 32;
/// What a member of an object takes beside its value: the key, and room that the map keeps free.
pub(super) const MEMBER: usize = 96;
/// What an object or an array takes that holds little: a node of the map has room for eleven members.
const SMALL: usize = 512;
/// What a member of text takes while it is written: where its key and its value are.
const WRITTEN_MEMBER: usize = size_of::<(&str, &str)>();

/// Makes a tree of so many levels.
pub(super) fn parse(text: &[u8], levels: usize) -> Result<Json, JsonError> {
    let raw: &RawValue = serde_json::from_slice(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Eof => JsonError::Truncated,
        _ => JsonError::Syntax {
            line: error.line(),
            column: error.column(),
        },
    })?;
    let mut reader = Reader::of(raw.get());
    reader.levels = levels;
    reader.value(0)
}

/// Goes through a text that is known to be JSON.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Bytes that the tree takes so far.
    tree: usize,
    levels: usize,
}

impl<'a> Reader<'a> {
    /// Of text alone: it makes no tree.
    fn of(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            tree: 0,
            levels: 0,
        }
    }

    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or_default()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    fn from(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn charge(&mut self, bytes: usize) -> Result<(), JsonError> {
        self.tree += bytes;
        if self.tree > MAX_TREE {
            return Err(JsonError::TooLarge);
        }
        Ok(())
    }

    /// A string literal, with its quotes.
    fn literal(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        let mut unicode = false;
        self.at += 1;
        loop {
            match self.peek() {
                b'\\' => {
                    self.at += 1;
                    unicode |= self.peek() == b'u';
                }
                b'"' | 0 => break,
                _ => {}
            }
            self.at += 1;
        }
        self.at += 1;
        let literal = self.from(start);
        if unicode {
            drop(Zeroizing::new(unescaped(literal)?.into_owned()));
        }
        Ok(literal)
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self) -> &'a str {
        let start = self.at;
        while matches!(self.peek(), b'+' | b'-' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E') {
            self.at += 1;
        }
        self.from(start)
    }

    /// Goes through the members or elements of what opens here; `each` reads one.
    fn inside(
        &mut self,
        depth: usize,
        mut each: impl FnMut(&mut Self) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        if depth >= MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        self.at += 1;
        loop {
            self.skip_space();
            match self.peek() {
                b']' | b'}' => break,
                b',' => self.at += 1,
                // Cannot be in a text that was checked.
                0 => return Err(JsonError::Truncated),
                _ => each(self)?,
            }
        }
        self.at += 1;
        Ok(())
    }

    fn key(&mut self) -> Result<&'a str, JsonError> {
        let key = self.literal()?;
        self.skip_space();
        self.at += 1;
        self.skip_space();
        Ok(key)
    }

    fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        match self.peek() {
            b'[' | b'{' if depth >= self.levels => {
                let text = self.skipped(depth)?;
                self.charge(VALUE + text.len())?;
                Ok(Json::Nested(Nested(Zeroizing::new(text.to_owned()))))
            }
            b'{' => {
                self.charge(SMALL)?;
                let mut members = BTreeMap::new();
                self.inside(depth, |reader| {
                    let key = reader.key()?;
                    reader.charge(MEMBER + key.len())?;
                    let value = reader.value(depth + 1)?;
                    members.insert(unescaped(key)?.into_owned(), value);
                    Ok(())
                })?;
                Ok(Json::Object(members))
            }
            b'[' => {
                self.charge(SMALL)?;
                let mut items = Vec::new();
                self.inside(depth, |reader| {
                    items.push(reader.value(depth + 1)?);
                    Ok(())
                })?;
                Ok(Json::Array(items))
            }
            b'"' => {
                let literal = self.literal()?;
                self.charge(VALUE + literal.len())?;
                Ok(Json::String(unescaped(literal)?.into_owned()))
            }
            _ => {
                let word = self.word();
                self.charge(VALUE + word.len())?;
                Ok(match word {
                    "true" => Json::Bool(true),
                    "false" => Json::Bool(false),
                    "null" => Json::Null,
                    number => Json::Number(number.to_owned()),
                })
            }
        }
    }

    /// The text of the value that begins here, which is checked and not kept.
    fn skipped(&mut self, depth: usize) -> Result<&'a str, JsonError> {
        let start = self.at;
        match self.peek() {
            b'{' => self.inside(depth, |reader| {
                reader.charge(WRITTEN_MEMBER)?;
                reader.key()?;
                reader.skipped(depth + 1).map(drop)
            })?,
            b'[' => self.inside(depth, |reader| reader.skipped(depth + 1).map(drop))?,
            b'"' => drop(self.literal()?),
            _ => drop(self.word()),
        }
        Ok(self.from(start))
    }
}

/// What a string literal says.
fn unescaped(literal: &str) -> Result<Cow<'_, str>, JsonError> {
    let inner = literal
        .get(1..literal.len().saturating_sub(1))
        .unwrap_or_default();
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    let text: String = serde_json::from_str(literal).map_err(|_| JsonError::Unicode)?;
    Ok(Cow::Owned(text))
}

/// The members of an object's text, in the order of their keys; of equal keys the last one.
fn members<'a>(reader: &mut Reader<'a>) -> Result<Vec<(&'a str, &'a str)>, JsonError> {
    let mut members = Vec::new();
    reader.inside(0, |reader| {
        let key = reader.key()?;
        members.push((key, reader.skipped(0)?));
        Ok(())
    })?;
    // Stable: the last one of equal keys stays the last.
    members.sort_by(|(one, _), (two, _)| compare(one, two));
    members.reverse();
    members.dedup_by(|(one, _), (two, _)| compare(one, two) == Ordering::Equal);
    members.reverse();
    Ok(members)
}

fn compare(one: &str, two: &str) -> Ordering {
    match (unescaped(one), unescaped(two)) {
        (Ok(one), Ok(two)) => one.cmp(&two),
        _ => one.cmp(two),
    }
}

/// Where what is written goes: a text, or a count of its bytes.
trait Sink {
    fn plain(&mut self, text: &str);
    fn string(&mut self, text: &str);
    fn number(&mut self, text: &str) {
        self.plain(text);
    }
}

struct Text<'a>(&'a mut String, Html);

impl Sink for Text<'_> {
    fn plain(&mut self, text: &str) {
        self.0.push_str(text);
    }

    fn string(&mut self, text: &str) {
        write_go_string(text, self.0, self.1);
    }
}

struct Length(usize);

impl Sink for Length {
    fn plain(&mut self, text: &str) {
        self.0 += text.len();
    }

    fn string(&mut self, text: &str) {
        self.0 += go_string_len(text);
    }
}

struct Changed<'a>(Text<'a>, fn(&str) -> String);

impl Sink for Changed<'_> {
    fn plain(&mut self, text: &str) {
        self.0.plain(text);
    }

    fn string(&mut self, text: &str) {
        self.0.string(text);
    }

    fn number(&mut self, text: &str) {
        self.0.plain(&Zeroizing::new((self.1)(text)));
    }
}

/// Writes the value that begins here as Go does. All in it was checked when it was read.
fn write(reader: &mut Reader<'_>, out: &mut impl Sink) -> Result<(), JsonError> {
    match reader.peek() {
        b'{' => {
            out.plain("{");
            for (position, (key, value)) in members(reader)?.into_iter().enumerate() {
                if position > 0 {
                    out.plain(",");
                }
                write_literal(key, out)?;
                out.plain(":");
                write(&mut Reader::of(value), out)?;
            }
            out.plain("}");
        }
        b'[' => {
            out.plain("[");
            let mut first = true;
            reader.inside(0, |reader| {
                if !std::mem::take(&mut first) {
                    out.plain(",");
                }
                write(reader, out)
            })?;
            out.plain("]");
        }
        b'"' => write_literal(reader.literal()?, out)?,
        b't' | b'f' | b'n' => out.plain(reader.word()),
        _ => out.number(reader.word()),
    }
    Ok(())
}

fn write_literal(literal: &str, out: &mut impl Sink) -> Result<(), JsonError> {
    match unescaped(literal)? {
        Cow::Borrowed(text) => out.string(text),
        Cow::Owned(text) => out.string(&Zeroizing::new(text)),
    }
    Ok(())
}

impl Nested {
    pub(super) fn is_array(&self) -> bool {
        self.0.starts_with('[')
    }

    pub(super) fn written_len(&self) -> usize {
        let mut length = Length(0);
        // What was checked when it was read does not fail when it is written.
        write(&mut Reader::of(&self.0), &mut length).ok();
        length.0
    }

    pub(super) fn write(&self, out: &mut String, html: Html) {
        write(&mut Reader::of(&self.0), &mut Text(out, html)).ok();
    }

    pub(super) fn change_numbers(&mut self, change: fn(&str) -> String) {
        let mut out = Zeroizing::new(String::with_capacity(self.written_len()));
        write(
            &mut Reader::of(&self.0),
            &mut Changed(Text(&mut out, Html::Plain), change),
        )
        .ok();
        self.0 = out;
    }
}
