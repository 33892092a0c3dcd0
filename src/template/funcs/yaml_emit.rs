//! Writes YAML as Go's `sigs.k8s.io/yaml` does: block style, two spaces, lists not indented within maps.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::super::words::{is_digit, is_letter};
use super::{Data, Scalar, go_float, resolve};

/// A key that is written before its value on one line has at most so many bytes.
const SIMPLE_KEY: usize = 128;

/// A line is folded at the first space after so many columns.
const WIDTH: i64 = 80;

/// The document, with the line feed at its end.
pub fn document(data: &Data) -> Vec<u8> {
    let mut emitter = Emitter {
        out: String::new(),
        column: 0,
        blank: true,
        indention: true,
    };
    emitter.node(data, -1, false);
    emitter.indent(0);
    emitter.out.into_bytes()
}

struct Emitter {
    out: String,
    column: i64,
    /// Whether what was written last separates.
    blank: bool,
    /// Whether nothing but indentation and indicators were written in this line.
    indention: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

impl Emitter {
    fn put(&mut self, c: char) {
        self.out.push(c);
        self.column = self.column.saturating_add(1);
    }

    fn line(&mut self) {
        self.out.push('\n');
        self.column = 0;
    }

    fn indent(&mut self, to: i64) {
        if !self.indention || self.column > to || (self.column == to && !self.blank) {
            self.line();
        }
        while self.column < to {
            self.put(' ');
        }
        self.blank = true;
        self.indention = true;
    }

    fn indicator(&mut self, c: char, apart: bool, indention: bool) {
        if apart && !self.blank {
            self.put(' ');
        }
        self.put(c);
        self.blank = false;
        self.indention = self.indention && indention;
    }

    fn node(&mut self, data: &Data, indent: i64, in_map: bool) {
        let deeper = if indent < 0 { 0 } else { indent.saturating_add(2) };
        match data {
            Data::List(items) if items.is_empty() => {
                self.indicator('[', true, false);
                // The emitter takes this one for separating.
                self.indicator(']', false, false);
            }
            Data::Map(items) if items.is_empty() => {
                self.indicator('{', true, false);
                self.indicator('}', false, false);
            }
            Data::List(items) => {
                let flush = in_map && !self.indention && indent >= 0;
                let deeper = if flush { indent } else { deeper };
                for item in items {
                    self.indent(deeper);
                    self.indicator('-', true, true);
                    self.node(item, deeper, false);
                }
            }
            Data::Map(items) => {
                for (key, value) in sorted(items) {
                    self.indent(deeper);
                    self.entry(key, value, deeper);
                }
            }
            Data::Text(text) => {
                let text = String::from_utf8_lossy(text);
                self.text(&text, indent, false);
            }
            scalar => self.scalar(scalar),
        }
    }

    fn entry(&mut self, key: &[u8], value: &Data, indent: i64) {
        let key = String::from_utf8_lossy(key);
        let simple = key.len() <= SIMPLE_KEY && !key.contains(breaks);
        if simple {
            self.text(&key, indent, true);
        } else {
            self.indicator('?', true, true);
            self.text(&key, indent, false);
            self.indent(indent);
        }
        self.indicator(':', !simple, !simple);
        self.node(value, indent, true);
    }

    fn scalar(&mut self, data: &Data) {
        let text = match data {
            Data::Bool(is) => is.to_string(),
            Data::Int(number) => number.to_string(),
            Data::Uint(number) => number.to_string(),
            Data::Float(number) => go_float(*number, false),
            _ => "null".into(),
        };
        if !self.blank {
            self.put(' ');
        }
        text.chars().for_each(|c| self.put(c));
        self.blank = false;
        self.indention = false;
    }

    fn text(&mut self, text: &str, indent: i64, key: bool) {
        // A scalar alone in its document is indented as well.
        let indent = if indent < 0 { 2 } else { indent.saturating_add(2) };
        match style(text, key) {
            Style::Plain => {
                if !self.blank {
                    self.put(' ');
                }
                self.lines(text, indent, false, key);
            }
            Style::Single => {
                self.indicator('\'', true, false);
                self.lines(text, indent, true, key);
                self.indicator('\'', false, false);
            }
            Style::Double => self.double(text, indent, key),
            Style::Literal => {
                self.literal(text, indent);
                return;
            }
        }
        self.blank = false;
        self.indention = false;
    }

    /// A scalar without escapes; only line breaks other than the line feed can be in it.
    fn lines(&mut self, text: &str, indent: i64, quoted: bool, key: bool) {
        let mut broken = false;
        let mut spaced = false;
        let mut rest = text.chars().peekable();
        let mut first = true;
        while let Some(c) = rest.next() {
            let within = !quoted || !std::mem::take(&mut first) && rest.peek().is_some();
            if breaks(c) {
                if !broken && c == '\n' {
                    self.line();
                }
                self.line_break(c);
                self.indention = true;
                broken = true;
                continue;
            }
            if c == ' ' {
                if within && !key && !spaced && self.column > WIDTH && rest.peek() != Some(&' ') {
                    self.indent(indent);
                } else {
                    self.put(c);
                }
                spaced = true;
                continue;
            }
            if broken {
                self.indent(indent);
            }
            if quoted && c == '\'' {
                self.put('\'');
            }
            self.put(c);
            self.indention = false;
            (broken, spaced) = (false, false);
        }
    }

    fn line_break(&mut self, c: char) {
        if c == '\n' {
            self.line();
        } else {
            self.out.push(c);
            self.column = 0;
        }
    }

    fn double(&mut self, text: &str, indent: i64, key: bool) {
        self.indicator('"', true, false);
        let mut spaced = false;
        let mut rest = text.chars().peekable();
        let mut first = true;
        // The library escapes everything in a text that starts with a byte-order mark.
        let all = text.starts_with('\u{FEFF}');
        while let Some(c) = rest.next() {
            let within = !std::mem::take(&mut first) && rest.peek().is_some();
            if c == ' ' && !all && within && !key && !spaced && self.column > WIDTH {
                self.indent(indent);
                if rest.peek() == Some(&' ') {
                    self.put('\\');
                }
                spaced = true;
                continue;
            }
            spaced = c == ' ';
            if !all && printable(c) && !breaks(c) && c != '"' && c != '\\' {
                self.put(c);
                continue;
            }
            let escaped = match c {
                '\0' => "\\0".into(),
                '\u{7}' => "\\a".into(),
                '\u{8}' => "\\b".into(),
                '\t' => "\\t".into(),
                '\n' => "\\n".into(),
                '\u{B}' => "\\v".into(),
                '\u{C}' => "\\f".into(),
                '\r' => "\\r".into(),
                '\u{1B}' => "\\e".into(),
                '"' => "\\\"".into(),
                '\\' => "\\\\".into(),
                '\u{85}' => "\\N".into(),
                '\u{A0}' => "\\_".into(),
                '\u{2028}' => "\\L".into(),
                '\u{2029}' => "\\P".into(),
                c if (c as u32) <= 0xFF => format!("\\x{:02X}", c as u32),
                c if (c as u32) <= 0xFFFF => format!("\\u{:04X}", c as u32),
                c => format!("\\U{:08X}", c as u32),
            };
            escaped.chars().for_each(|c| self.put(c));
        }
        self.indicator('"', false, false);
    }

    fn literal(&mut self, text: &str, indent: i64) {
        self.indicator('|', true, false);
        if text.starts_with(|c| c == ' ' || breaks(c)) {
            self.indicator('2', false, false);
        }
        let mut back = text.chars().rev();
        match (back.next().is_some_and(breaks), back.next().is_none_or(breaks)) {
            (false, _) => self.indicator('-', false, false),
            (true, true) => self.indicator('+', false, false),
            (true, false) => {}
        }
        self.line();
        self.blank = true;
        self.indention = true;
        let mut broken = true;
        for c in text.chars() {
            if breaks(c) {
                self.line_break(c);
                self.indention = true;
                broken = true;
                continue;
            }
            if broken {
                self.indent(indent);
            }
            self.put(c);
            self.indention = false;
            broken = false;
        }
    }
}

/// What YAML 1.1 takes for a line break.
fn breaks(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// What the library writes as it is. Runes of four bytes are not among it.
fn printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{A0}'..='\u{D7FF}' | '\u{E000}'..='\u{FEFE}' | '\u{FF00}'..='\u{FFFD}')
}

/// How a text is written.
fn style(text: &str, key: bool) -> Style {
    let plain = matches!(resolve(text), Scalar::Text) && !base_sixty(text);
    if text.is_empty() {
        return Style::Double;
    }
    let multiline = text.contains(breaks);
    let special = !text.chars().all(printable) || text.contains(" \n") || space_before_break(text);
    let ends_blank = text.ends_with(' ');
    if text.contains('\n') {
        let block = !key && !special && !ends_blank;
        return if block { Style::Literal } else { Style::Double };
    }
    if !plain || (key && multiline) {
        return Style::Double;
    }
    if !multiline && !special && !ends_blank && !text.starts_with(' ') && !indicates(text) {
        return Style::Plain;
    }
    if special || break_before_space(text) {
        Style::Double
    } else {
        Style::Single
    }
}

fn space_before_break(text: &str) -> bool {
    text.chars()
        .zip(text.chars().skip(1))
        .any(|(a, b)| a == ' ' && breaks(b))
}

fn break_before_space(text: &str) -> bool {
    text.chars()
        .zip(text.chars().skip(1))
        .any(|(a, b)| breaks(a) && b == ' ')
}

/// Whether a part of a text would be read as syntax.
fn indicates(text: &str) -> bool {
    if text.starts_with("---") || text.starts_with("...") {
        return true;
    }
    let mut before = ' ';
    let mut rest = text.chars().enumerate().peekable();
    while let Some((index, c)) = rest.next() {
        let blank_after = rest.peek().is_none_or(|(_, c)| matches!(c, ' ' | '\t'));
        let first = index == 0;
        let syntax = match c {
            '#' => matches!(before, ' ' | '\t' | '\0') || breaks(before),
            ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => first,
            '?' | '-' => first && blank_after,
            ':' => blank_after,
            _ => false,
        };
        if syntax {
            return true;
        }
        before = c;
    }
    false
}

/// Whether YAML 1.1 reads a text as a number of base 60, such as a time of day.
fn base_sixty(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut groups = digits.split(':');
    let underscored = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let sixty = |text: &str| match text.as_bytes() {
        [one] => one.is_ascii_digit(),
        [ten, one] => matches!(ten, b'0'..=b'5') && one.is_ascii_digit(),
        _ => false,
    };
    let first = groups.next().unwrap_or_default();
    if !first.starts_with(|c: char| c.is_ascii_digit()) || !underscored(first) {
        return false;
    }
    let rest: Vec<&str> = groups.collect();
    let Some((last, middle)) = rest.split_last() else {
        return false;
    };
    let (whole, fraction) = last.split_once('.').unwrap_or((last, ""));
    middle.iter().all(|group| sixty(group)) && sixty(whole) && underscored(fraction)
}

/// A map's entries in the library's order, in which numbers in texts count as numbers.
fn sorted(items: &BTreeMap<Vec<u8>, Data>) -> Vec<(&Vec<u8>, &Data)> {
    let entries = items.iter().map(|(key, value)| {
        let runes: Vec<char> = String::from_utf8_lossy(key).chars().collect();
        (runes, (key, value))
    });
    merge_sort(entries.collect())
        .into_iter()
        .map(|(_, entry)| entry)
        .collect()
}

/// The order is not total, which the standard library's sorting may answer with a panic.
fn merge_sort<T>(mut head: Vec<(Vec<char>, T)>) -> Vec<(Vec<char>, T)> {
    if head.len() < 2 {
        return head;
    }
    let tail = merge_sort(head.split_off(head.len() / 2));
    let mut made = Vec::with_capacity(head.len().saturating_add(tail.len()));
    let mut left = merge_sort(head).into_iter().peekable();
    let mut right = tail.into_iter().peekable();
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let next = if natural(&b.0, &a.0) == Ordering::Less {
            right.next()
        } else {
            left.next()
        };
        made.extend(next);
    }
    made.extend(left);
    made.extend(right);
    made
}

fn natural(a: &[char], b: &[char]) -> Ordering {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let (Some(one), Some(two)) = (a.get(same), b.get(same)) else {
        return a.len().cmp(&b.len());
    };
    match (is_letter(*one), is_letter(*two)) {
        (true, true) => return one.cmp(two),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    let mut start = 0_i64;
    if *one == '0' || *two == '0' {
        let digits = a.iter().take(same).rev().take_while(|c| is_digit(**c));
        start = i64::from(digits.into_iter().any(|c| *c != '0'));
    }
    let number = |runes: &[char]| {
        let digits = runes.iter().skip(same).take_while(|c| is_digit(**c));
        digits.fold((start, 0_usize), |(number, count), c| {
            let digit = i64::from(*c as u32).wrapping_sub(48);
            (
                number.wrapping_mul(10).wrapping_add(digit),
                count.saturating_add(1),
            )
        })
    };
    number(a).cmp(&number(b)).then(one.cmp(two))
}
