//! `toYaml` and `fromYaml` as ESO has them: through JSON, with YAML 1.1 as Go's library `yaml.v2` reads it.

#[path = "yaml_emit.rs"]
mod emit;
#[path = "yaml_parse.rs"]
mod parse;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::numbers::parse_float;
use super::words::runes;
use super::{Answer, Fault, Func, Ty, bytes, func, key, semver};
use crate::template::fmt_number::format_float;
use crate::template::layout;
use crate::template::limits::Limits;
use crate::template::value::{Elem, IntKind, List, NESTING, Text, Value};

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func("toYaml", &[Ty::Any], to_yaml),
    func("fromYaml", &[Ty::Text], from_yaml),
];

/// What JSON and YAML have in common.
#[derive(Clone)]
pub(super) enum Data {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(Vec<u8>),
    List(Vec<Data>),
    Map(BTreeMap<Vec<u8>, Data>),
}

/// What a scalar without a tag is read as.
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    /// As it is written; a timestamp that is not quoted as well.
    Time,
    Text,
}

/// The rules of YAML 1.1 as far as the library has them.
pub(super) fn resolve(text: &str) -> Scalar {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Scalar::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Scalar::Bool(false)
        }
        "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
        ".nan" | ".NaN" | ".NAN" => Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Scalar::Float(f64::NEG_INFINITY),
        _ => resolve_number(text),
    }
}

fn resolve_number(text: &str) -> Scalar {
    if text.starts_with('.') {
        return parse_float(text.as_bytes()).map_or(Scalar::Text, Scalar::Float);
    }
    if !text.starts_with(|c: char| matches!(c, '+' | '-' | '0'..='9')) {
        return Scalar::Text;
    }
    if timestamp(text) {
        return Scalar::Time;
    }
    let plain = text.replace('_', "");
    if let Some(number) = integer(&plain) {
        return match (i64::try_from(number), u64::try_from(number)) {
            (Ok(number), _) => Scalar::Int(number),
            (_, Ok(number)) if !plain.starts_with('+') => Scalar::Uint(number),
            _ => float(&plain).map_or(Scalar::Text, Scalar::Float),
        };
    }
    if let Some(number) = float(&plain) {
        return Scalar::Float(number);
    }
    // A sign after the prefix is taken as well.
    let binary = match plain.strip_prefix("-0b") {
        Some(digits) => digits
            .starts_with(|c: char| c.is_ascii_digit())
            .then(|| format!("-{digits}")),
        None => plain.strip_prefix("0b").map(String::from),
    };
    let number = binary.and_then(|digits| i64::from_str_radix(&digits, 2).ok());
    number.map_or(Scalar::Text, Scalar::Int)
}

/// An integer as Go writes one: `0x`, `0o`, `0b` and the `0` of octal numbers.
fn integer(text: &str) -> Option<i128> {
    let (minus, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, text.get(1..)?),
        Some(b'+') => (false, text.get(1..)?),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (lower.get(2..)?, 16),
        [b'0', b'o', ..] => (lower.get(2..)?, 8),
        [b'0', b'b', ..] => (lower.get(2..)?, 2),
        [b'0', _, ..] => (lower.get(1..)?, 8),
        _ => (lower.as_str(), 10),
    };
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let number = i128::from_str_radix(digits, radix).ok()?;
    Some(if minus { number.checked_neg()? } else { number })
}

/// A decimal number with digits before or after the point; not one that is too large.
fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (number, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (unsigned.get(..at)?, unsigned.get(at.checked_add(1)?..)),
        None => (unsigned, None),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let exponent_ok = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) || !exponent_ok {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn timestamp(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits != 4 || text.as_bytes().get(4) != Some(&b'-') {
        return false;
    }
    [
        "2006-1-2T15:4:5.999999999Z07:00",
        "2006-1-2t15:4:5.999999999Z07:00",
        "2006-1-2 15:4:5.999999999",
        "2006-1-2",
    ]
    .iter()
    .any(|layout| layout::parse(layout.as_bytes(), text.as_bytes()).is_some())
}

/// What Go's `strconv.FormatFloat` gives for `g` and the shortest text, of 32 or 64 bits.
pub(super) fn go_float(number: f64, short: bool) -> String {
    // The few digits of 32 bits stand for themselves among the 64.
    let number = if short {
        (number as f32).to_string().parse().unwrap_or(number)
    } else {
        number
    };
    let sign = if number.is_sign_negative() && !number.is_nan() {
        "-"
    } else {
        ""
    };
    let text = format_float(number.abs(), 'g', None);
    if sign.is_empty() {
        text
    } else {
        format!("-{}", text.trim_start_matches('+'))
    }
}

/// Gives an empty text where Go's encoders fail.
fn to_yaml(limits: &mut Limits, args: &[Value]) -> Answer {
    let value = args.first().unwrap_or(&Value::Nil);
    let Some(data) = to_json(limits, value, 0)? else {
        return Ok(Value::text(""));
    };
    limits.grow(size(&data, 2))?;
    let text = emit::document(&data);
    Ok(Value::text(text.strip_suffix(b"\n").unwrap_or(&text)))
}

/// About how many bytes will be written.
fn size(data: &Data, indent: usize) -> usize {
    let text = |text: &[u8]| {
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        text.len()
            .saturating_add(lines.saturating_mul(indent))
            .saturating_add(indent)
    };
    let deeper = indent.saturating_add(2);
    match data {
        Data::Text(all) => text(all),
        Data::List(items) => items
            .iter()
            .fold(4, |sum, item| sum.saturating_add(size(item, deeper))),
        Data::Map(items) => items.iter().fold(4, |sum, (key, value)| {
            sum.saturating_add(text(key)).saturating_add(size(value, deeper))
        }),
        _ => indent.saturating_add(24),
    }
}

/// Encodes as JSON and reads that as YAML. `None` where either fails in Go.
fn to_json(limits: &mut Limits, value: &Value, depth: usize) -> Result<Option<Data>, Fault> {
    limits.step(1)?;
    limits.grow(size_of::<Data>())?;
    if depth > NESTING {
        return Err("the value is nested too deeply".into());
    }
    Ok(Some(match value {
        Value::Nil => Data::Null,
        Value::Bool(is) => Data::Bool(*is),
        Value::Int(kind, number) if kind.unsigned() => unsigned(*kind, *number),
        Value::Int(_, number) | Value::Duration(number) => Data::Int(*number),
        Value::Float(number) => return Ok(json_float(*number)),
        Value::Text(text) => return json_text(limits, text),
        Value::Time(time) => {
            if !(0..=9999).contains(&time.civil().year) {
                return Ok(None);
            }
            Data::Text(layout::format(time, b"2006-01-02T15:04:05.999999999Z07:00"))
        }
        Value::Version(version) => return json_text(limits, semver::text(version).as_bytes()),
        Value::Certificate(certificate) => {
            let (cert, key) = (
                json_text(limits, &certificate.cert)?,
                json_text(limits, &certificate.key)?,
            );
            let (Some(cert), Some(key)) = (cert, key) else {
                return Ok(None);
            };
            Data::Map(BTreeMap::from([(b"Cert".to_vec(), cert), (b"Key".to_vec(), key)]))
        }
        Value::Complex(..) => return Ok(None),
        Value::List(list) => return json_list(limits, list, depth),
        Value::Map(map) => {
            let mut made = BTreeMap::new();
            for (key, value) in map.items.borrow().iter() {
                // A key cannot have a line break.
                if memchr::memmem::find(key, "\u{85}".as_bytes()).is_some() {
                    return Ok(None);
                }
                let key = json_text(limits, key)?;
                let value = to_json(limits, value, depth.saturating_add(1))?;
                let (Some(Data::Text(key)), Some(value)) = (key, value) else {
                    return Ok(None);
                };
                made.insert(key, value);
            }
            Data::Map(made)
        }
    }))
}

fn unsigned(kind: IntKind, number: i64) -> Data {
    match kind {
        IntKind::Uint64 => Data::Uint(number.cast_unsigned()),
        _ => Data::Int(number),
    }
}

fn json_list(limits: &mut Limits, list: &List, depth: usize) -> Result<Option<Data>, Fault> {
    if list.nil {
        return Ok(Some(Data::Null));
    }
    if list.elem == Elem::Byte {
        let raw: Vec<u8> = list
            .items
            .iter()
            .filter_map(|item| match item {
                Value::Int(_, number) => u8::try_from(*number).ok(),
                _ => None,
            })
            .collect();
        limits.grow(raw.len().saturating_mul(2))?;
        return Ok(Some(Data::Text(STANDARD.encode(raw).into_bytes())));
    }
    let mut made = Vec::with_capacity(list.items.len());
    for item in &list.items {
        match to_json(limits, item, depth.saturating_add(1))? {
            Some(item) => made.push(item),
            None => return Ok(None),
        }
    }
    Ok(Some(Data::List(made)))
}

/// JSON writes a whole number below 10²¹ without a point, so that it is read as an integer.
fn json_float(number: f64) -> Option<Data> {
    if !number.is_finite() {
        return None;
    }
    if number.fract() == 0.0 && number.abs() < 1e21 {
        let sign = if number < 0.0 { "-" } else { "" };
        match resolve_number(&format!("{sign}{}", format_float(number.abs(), 'f', None))) {
            Scalar::Int(number) => return Some(Data::Int(number)),
            Scalar::Uint(number) => return Some(Data::Uint(number)),
            _ => {}
        }
    }
    Some(Data::Float(number))
}

/// What is not UTF-8 becomes U+FFFD, and what YAML does not take fails. A line break of U+0085 is folded.
fn json_text(limits: &mut Limits, text: &[u8]) -> Result<Option<Data>, Fault> {
    limits.grow(text.len())?;
    let mut made = String::with_capacity(text.len());
    let mut folds = 0_usize;
    for (c, _) in runes(text) {
        match c {
            '\u{7F}'..='\u{84}' | '\u{86}'..='\u{9F}' | '\u{FFFE}' | '\u{FFFF}' => return Ok(None),
            '\u{85}' => {
                if folds == 0 {
                    made.truncate(made.trim_end_matches(' ').len());
                }
                folds = folds.saturating_add(1);
            }
            ' ' if folds > 0 => {}
            c => {
                push_folds(&mut made, &mut folds);
                made.push(c);
            }
        }
    }
    push_folds(&mut made, &mut folds);
    Ok(Some(Data::Text(made.into_bytes())))
}

fn push_folds(made: &mut String, folds: &mut usize) {
    match std::mem::take(folds) {
        0 => {}
        1 => made.push(' '),
        more => made.extend(std::iter::repeat_n('\n', more.saturating_sub(1))),
    }
}

/// Gives a dict with the key `Error` where the text cannot be read.
fn from_yaml(limits: &mut Limits, args: &[Value]) -> Answer {
    let text = args.first().map(bytes).unwrap_or_default();
    limits.grow(text.len().saturating_mul(2))?;
    let problem = match parse::document(limits, text)? {
        Ok(data) => match to_value(&data) {
            Some(map @ Value::Map(_)) => return Ok(map),
            Some(Value::Nil) => return Ok(Value::dict(BTreeMap::new())),
            Some(other) => {
                let kind = match other {
                    Value::List(_) => "array",
                    Value::Float(_) => "number",
                    Value::Bool(_) => "bool",
                    _ => "string",
                };
                format!(
                    "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {kind} into Go value \
                     of type map[string]interface {{}}"
                )
            }
            None => "error converting YAML to JSON: json: unsupported value: not a finite number".into(),
        },
        Err(problem) => format!("error converting YAML to JSON: {}", problem.text),
    };
    let error = (key("Error"), Value::text(problem));
    Ok(Value::dict(BTreeMap::from([error])))
}

/// What JSON gives back: all numbers are `float64`. `None` for a number that JSON has not.
fn to_value(data: &Data) -> Option<Value> {
    Some(match data {
        Data::Null => Value::Nil,
        Data::Bool(is) => Value::Bool(*is),
        Data::Int(number) => Value::Float(*number as f64),
        Data::Uint(number) => Value::Float(*number as f64),
        Data::Float(number) if number.is_finite() => Value::Float(*number),
        Data::Float(_) => return None,
        Data::Text(text) => Value::text(lossy(text)),
        Data::List(items) => Value::list(items.iter().map(to_value).collect::<Option<_>>()?),
        Data::Map(items) => {
            let entry = |(key, value): (&Vec<u8>, &Data)| Some((Text::from(lossy(key)), to_value(value)?));
            Value::dict(items.iter().map(entry).collect::<Option<_>>()?)
        }
    })
}

fn lossy(text: &[u8]) -> Vec<u8> {
    runes(text).map(|(c, _)| c).collect::<String>().into_bytes()
}

/// ESO's reading of a rendered template with `templateAs: KeysAndValues`: a map of texts, where numbers and
/// booleans become texts and null becomes an empty one.
///
/// # Errors
/// If it is no map, or one of its values is a list or a map.
pub fn string_map(text: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Fault> {
    let map = match parse::document(&mut Limits::default(), text)? {
        Ok(Data::Map(map)) => map,
        Ok(Data::Null) => return Ok(BTreeMap::new()),
        Ok(_) => return Err("could not unmarshal template to 'map[string][]byte': expected a map".into()),
        Err(problem) => {
            let text = if problem.shows {
                "a value does not fit its tag, or a key is null"
            } else {
                &problem.text
            };
            return Err(format!("could not unmarshal template to 'map[string][]byte': {text}").into());
        }
    };
    let entry = |(key, value): (Vec<u8>, Data)| {
        let text = match value {
            Data::Null => Vec::new(),
            Data::Bool(is) => is.to_string().into_bytes(),
            Data::Int(number) => number.to_string().into_bytes(),
            Data::Uint(number) => number.to_string().into_bytes(),
            Data::Float(number) => go_float(number, false).into_bytes(),
            Data::Text(text) => lossy(&text),
            Data::List(_) | Data::Map(_) => {
                return Err(Fault::from(
                    "could not unmarshal template to 'map[string][]byte': expected a text for each key, \
                     not a list or a map",
                ));
            }
        };
        Ok((lossy(&key), text))
    };
    map.into_iter().map(entry).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(text: &str) -> Result<Vec<(String, String)>, Fault> {
        let owned = |text: Vec<u8>| String::from_utf8(text).unwrap();
        Ok(string_map(text.as_bytes())?
            .into_iter()
            .map(|(key, text)| (owned(key), owned(text)))
            .collect())
    }

    #[test]
    fn keys_and_values_become_texts() {
        let map = texts("a: 1\nb: yes\nc:\nd: 1.50\n5: x\ne: '07'\nf: 2024-01-02").unwrap();
        let expected = [
            ("5", "x"),
            ("a", "1"),
            ("b", "true"),
            ("c", ""),
            ("d", "1.5"),
            ("e", "07"),
            ("f", "2024-01-02"),
        ];
        assert_eq!(map, expected.map(|(key, text)| (key.to_owned(), text.to_owned())));
        assert_eq!(texts("").unwrap(), []);
    }

    #[test]
    fn what_is_no_map_of_texts_is_an_error_that_shows_nothing_of_it() {
        for text in [
            "- secret",
            "a: {secret: 1}",
            "a: [secret]",
            "secret",
            "a: !!int secret",
            "~: secret",
            "a: 'secret",
        ] {
            let fault = texts(text).unwrap_err();
            assert!(!fault.0.contains("secret"), "{}", fault.0);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in r"([a-c:\-?\[\]{}&*!|>'#%@,.0-9 \n\t]|: |- |\n  |<<: ){0,40}") {
            let _ = string_map(text.as_bytes());
        }

        #[test]
        fn a_text_is_written_and_read_back(text in r"[a-c:\-?\[\]{}&*!|>'#%@,.0-9 \n\tyesno~é世]{0,40}") {
            let map = Value::text_map([(key("k"), Text::from(text.as_bytes()))]);
            let written = to_yaml(&mut Limits::default(), &[map]).unwrap();
            // The function takes off one line break at the end.
            let read = string_map(&[bytes(&written), b"\n"].concat()).unwrap();
            prop_assert_eq!(read.get(&b"k"[..]).map(Vec::as_slice), Some(text.as_bytes()));
        }
    }
}
