//! JSON as Go's `encoding/json` writes and reads it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::words::runes;
use super::{Answer, Fault, Func, Ty, args, func, json_read, semver};
use crate::template::layout;
use crate::template::limits::Limits;
use crate::template::value::{Elem, IntKind, List, NESTING, Text, Value};

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func("toJson", &[Ty::Any], |limits, list| {
        soft(limits, list, Form::Compact)
    }),
    func("mustToJson", &[Ty::Any], |limits, list| {
        hard(limits, list, Form::Compact)
    }),
    func("toPrettyJson", &[Ty::Any], |limits, list| {
        soft(limits, list, Form::Pretty)
    }),
    func("mustToPrettyJson", &[Ty::Any], |limits, list| {
        hard(limits, list, Form::Pretty)
    }),
    // Both fail where there is no JSON for a value.
    func("toRawJson", &[Ty::Any], |limits, list| {
        hard(limits, list, Form::Raw)
    }),
    func("mustToRawJson", &[Ty::Any], |limits, list| {
        hard(limits, list, Form::Raw)
    }),
    func("fromJson", &[Ty::Text], from_json),
    func("mustFromJson", &[Ty::Text], must_from_json),
];

/// How it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Compact,
    /// With line breaks and two spaces for each level.
    Pretty,
    /// With the characters of HTML as they are.
    Raw,
}

/// Why nothing was written.
enum Stop {
    /// JSON has nothing for a value of this type.
    Type(String),
    Fault(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

fn written(limits: &mut Limits, list: &[Value], form: Form) -> Result<Value, Stop> {
    let mut writer = Writer {
        out: Vec::new(),
        form,
        limits,
    };
    writer.value(args::value(list, 0), 0)?;
    Ok(Value::text(writer.out))
}

/// Gives an empty text where there is no JSON for a value.
fn soft(limits: &mut Limits, list: &[Value], form: Form) -> Answer {
    match written(limits, list, form) {
        Ok(text) => Ok(text),
        Err(Stop::Type(_)) => Ok(Value::text("")),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}

fn hard(limits: &mut Limits, list: &[Value], form: Form) -> Answer {
    written(limits, list, form).map_err(|stop| match stop {
        Stop::Type(name) => format!("json: unsupported value of type {name}").into(),
        Stop::Fault(fault) => fault,
    })
}

struct Writer<'a> {
    out: Vec<u8>,
    form: Form,
    limits: &'a mut Limits,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Stop> {
        self.limits.step(1)?;
        if depth > NESTING {
            return Err(Fault::from("the value is nested too deeply").into());
        }
        match value {
            Value::Nil => self.raw("null"),
            Value::Bool(true) => self.raw("true"),
            Value::Bool(false) => self.raw("false"),
            Value::Int(IntKind::Uint64, number) => self.raw(&number.cast_unsigned().to_string()),
            Value::Int(_, number) | Value::Duration(number) => self.raw(&number.to_string()),
            Value::Float(number) if number.is_finite() => self.raw(&float(*number)),
            Value::Text(text) => self.text(text),
            Value::List(list) => self.list(list, depth),
            Value::Map(map) => self.map(&map.items.borrow(), depth),
            Value::Time(time) if (0..=9999).contains(&time.civil().year) => {
                self.text(&layout::format(time, b"2006-01-02T15:04:05.999999999Z07:00"))
            }
            Value::Version(version) => self.text(semver::text(version).as_bytes()),
            Value::Certificate(certificate) => {
                let fields = [
                    (Text::from(&b"Cert"[..]), Value::Text(certificate.cert.clone())),
                    (Text::from(&b"Key"[..]), Value::Text(certificate.key.clone())),
                ];
                self.map(&BTreeMap::from(fields), depth)
            }
            Value::Float(_) | Value::Complex(..) | Value::Time(_) => Err(Stop::Type(value.type_name())),
        }
    }

    fn raw(&mut self, text: &str) -> Result<(), Stop> {
        self.limits.grow(text.len())?;
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// What comes before an element, or before the closing bracket.
    fn line(&mut self, depth: usize) -> Result<(), Stop> {
        if self.form == Form::Pretty {
            let indent = depth.saturating_mul(2);
            self.limits.grow(indent.saturating_add(1))?;
            self.out.push(b'\n');
            self.out.resize(self.out.len().saturating_add(indent), b' ');
        }
        Ok(())
    }

    fn list(&mut self, list: &List, depth: usize) -> Result<(), Stop> {
        if list.nil {
            return self.raw("null");
        }
        if list.elem == Elem::Byte {
            let byte = |item: &Value| match item {
                Value::Int(_, number) => u8::try_from(*number).ok(),
                _ => None,
            };
            let data: Vec<u8> = list.items.iter().filter_map(byte).collect();
            return self.text(STANDARD.encode(data).as_bytes());
        }
        let deeper = depth.saturating_add(1);
        self.raw("[")?;
        for (index, item) in list.items.iter().enumerate() {
            if index > 0 {
                self.raw(",")?;
            }
            self.line(deeper)?;
            self.value(item, deeper)?;
        }
        if !list.items.is_empty() {
            self.line(depth)?;
        }
        self.raw("]")
    }

    fn map(&mut self, items: &BTreeMap<Text, Value>, depth: usize) -> Result<(), Stop> {
        let deeper = depth.saturating_add(1);
        self.raw("{")?;
        for (index, (key, value)) in items.iter().enumerate() {
            if index > 0 {
                self.raw(",")?;
            }
            self.line(deeper)?;
            self.text(key)?;
            self.raw(if self.form == Form::Pretty { ": " } else { ":" })?;
            self.value(value, deeper)?;
        }
        if !items.is_empty() {
            self.line(depth)?;
        }
        self.raw("}")
    }

    fn text(&mut self, text: &[u8]) -> Result<(), Stop> {
        self.limits.grow(text.len().saturating_add(2))?;
        let before = self.out.len();
        self.out.push(b'"');
        let plain = |byte: &u8| match byte {
            b'"' | b'\\' | 0..=0x1F | 0x80.. => false,
            b'<' | b'>' | b'&' => self.form == Form::Raw,
            _ => true,
        };
        if text.iter().all(plain) {
            self.out.extend_from_slice(text);
        } else {
            runes(text).for_each(|(c, bytes)| self.escaped(c, bytes));
        }
        self.out.push(b'"');
        // Escapes are longer than what they stand for.
        let made = self.out.len().saturating_sub(before);
        Ok(self.limits.grow(made.saturating_sub(text.len()))?)
    }

    fn escaped(&mut self, c: char, bytes: &[u8]) {
        let short = match c {
            '"' => b'"',
            '\\' => b'\\',
            '\n' => b'n',
            '\r' => b'r',
            '\t' => b't',
            '\u{8}' => b'b',
            '\u{C}' => b'f',
            '<' | '>' | '&' if self.form == Form::Raw => 0,
            '\0'..='\u{1F}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => return self.code(c),
            // A byte that is not UTF-8.
            '\u{FFFD}' if bytes.len() == 1 => return self.code(c),
            _ => 0,
        };
        if short == 0 {
            self.out.extend_from_slice(bytes);
        } else {
            self.out.extend_from_slice(&[b'\\', short]);
        }
    }

    fn code(&mut self, c: char) {
        self.out
            .extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
    }
}

/// The shortest digits, with an exponent for very small and large numbers.
fn float(number: f64) -> String {
    let size = number.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{number:e}");
        return if text.contains("e-") {
            text
        } else {
            text.replace('e', "e+")
        };
    }
    number.to_string()
}

/// Gives nil for what is no JSON, and leaves out numbers that are too large.
fn from_json(limits: &mut Limits, list: &[Value]) -> Answer {
    Ok(json_read::document(limits, args::text(list, 0))?.map_or(Value::Nil, |(value, _)| value))
}

fn must_from_json(limits: &mut Limits, list: &[Value]) -> Answer {
    match json_read::document(limits, args::text(list, 0))? {
        Ok((value, true)) => Ok(value),
        Ok((_, false)) => Err("json: a number is too large for float64".into()),
        Err(offset) => Err(format!("the text is no JSON: wrong at byte {offset}").into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(value: Value) -> Value {
        hard(&mut Limits::default(), &[value], Form::Compact).unwrap()
    }

    fn read(text: Value) -> Answer {
        must_from_json(&mut Limits::default(), &[text])
    }

    #[test]
    fn what_go_can_nest_deeper_is_a_clear_error_here() {
        let deep = [b"[".repeat(10_000), b"]".repeat(10_000)].concat();
        assert!(read(Value::text(deep)).is_err());
    }

    #[test]
    fn too_large_numbers_are_left_out_by_the_soft_function_only() {
        let text = [Value::text("[1e400,2]")];
        let soft = from_json(&mut Limits::default(), &text).unwrap();
        assert_eq!(super::super::bytes(&write(soft)), b"[null,2]");
        assert!(must_from_json(&mut Limits::default(), &text).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_written_and_read_back(text in any::<String>()) {
            let back = read(write(Value::text(&text))).unwrap();
            prop_assert_eq!(super::super::bytes(&back), text.as_bytes());
        }

        #[test]
        fn any_finite_number_is_written_and_read_back(number in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
            let Value::Float(back) = read(write(Value::Float(number))).unwrap() else {
                return Err(TestCaseError::fail("no number"));
            };
            prop_assert_eq!(back.to_bits(), number.to_bits());
        }

        #[test]
        fn no_bytes_make_the_reader_panic(text in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = from_json(&mut Limits::default(), &[Value::text(text)]);
        }

        #[test]
        fn no_json_like_text_makes_the_reader_panic(text in r#"[\[\]{}:,"\\u0-9a-fA-F.eE+\- tnl]{0,40}"#) {
            let _ = from_json(&mut Limits::default(), &[Value::text(text)]);
        }
    }
}
