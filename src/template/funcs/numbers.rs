//! Numbers as Go's `strconv` reads them, and the conversions of sprig's `cast` library.

use crate::template::value::{IntKind, Value};

/// Why a text is not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotInt {
    /// It has another form.
    Syntax,
    /// It does not fit; this is the nearest number that does.
    Range(i64),
}

/// Go's `strconv.ParseInt` for 64 bits. A base of 0 reads it off the prefix and allows underscores.
///
/// # Errors
/// If the text is not such a number.
pub fn parse_int(text: &[u8], base: u32) -> Result<i64, NotInt> {
    let (minus, digits) = sign(text);
    let prefixes = base == 0;
    let (base, digits) = match (base, digits) {
        (0, [b'0', b'x' | b'X', rest @ ..]) => (16, rest),
        (0, [b'0', b'o' | b'O', rest @ ..]) => (8, rest),
        (0, [b'0', b'b' | b'B', rest @ ..]) => (2, rest),
        (0, [b'0', rest @ ..]) if !rest.is_empty() => (8, rest),
        (0, digits) => (10, digits),
        (base, digits) => (base, digits),
    };
    let underscores = digits.contains(&b'_');
    if digits.is_empty() || underscores && !(prefixes && underscores_fit(text)) {
        return Err(NotInt::Syntax);
    }
    let mut number: u128 = 0;
    for byte in digits.iter().filter(|byte| **byte != b'_') {
        let digit = char::from(*byte).to_digit(base).ok_or(NotInt::Syntax)?;
        number = number
            .saturating_mul(u128::from(base))
            .saturating_add(u128::from(digit));
    }
    let number = i128::try_from(number).unwrap_or(i128::MAX);
    let number = if minus { number.saturating_neg() } else { number };
    let nearest = if minus { i64::MIN } else { i64::MAX };
    i64::try_from(number).map_err(|_| NotInt::Range(nearest))
}

fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

/// Whether underscores stand only between digits, or between a prefix and a digit.
fn underscores_fit(text: &[u8]) -> bool {
    let (_, digits) = sign(text);
    let (prefixed, hex, digits) = match digits {
        [b'0', b'x' | b'X', rest @ ..] => (true, true, rest),
        [b'0', b'o' | b'O' | b'b' | b'B', rest @ ..] => (true, false, rest),
        _ => (false, false, digits),
    };
    let mut before = if prefixed { b'0' } else { b'.' };
    for byte in digits {
        let digit = if hex {
            byte.is_ascii_hexdigit()
        } else {
            byte.is_ascii_digit()
        };
        let class = match byte {
            _ if digit => b'0',
            b'_' if before != b'0' => return false,
            b'_' => b'_',
            _ if before == b'_' => return false,
            _ => b'.',
        };
        before = class;
    }
    before != b'_'
}

/// Go's `strconv.ParseFloat` for 64 bits; `None` for what it refuses, which includes numbers that are too large.
#[must_use]
pub fn parse_float(text: &[u8]) -> Option<f64> {
    let (minus, unsigned) = sign(text);
    let signed = |number: f64| if minus { -number } else { number };
    if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
        return Some(signed(f64::INFINITY));
    }
    if text.eq_ignore_ascii_case(b"nan") {
        return Some(f64::NAN);
    }
    if text.contains(&b'_') && !underscores_fit(text) {
        return None;
    }
    let plain: String = unsigned
        .iter()
        .filter(|byte| **byte != b'_')
        .map(|byte| char::from(*byte))
        .collect();
    let number = match plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")) {
        Some(hex) => hex_float(hex)?,
        None => {
            let numeric =
                |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
            if !plain.bytes().all(numeric) || plain.starts_with(['+', '-']) {
                return None;
            }
            plain.parse().ok()?
        }
    };
    number.is_finite().then(|| signed(number))
}

/// Digits and the exponent that must follow, which is one of 2.
fn hex_float(text: &str) -> Option<f64> {
    let (digits, exponent) = text.split_once(['p', 'P'])?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if whole.len().saturating_add(fraction.len()) == 0 || unsigned.is_empty() {
        return None;
    }
    if !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // What is this large over- or underflows in any case.
    let limit = 1 << 24;
    let mut power = exponent
        .parse::<i64>()
        .map_or(if exponent.starts_with('-') { -limit } else { limit }, |power| {
            power.clamp(-limit, limit)
        });
    power = power.saturating_sub(i64::try_from(fraction.len()).ok()?.saturating_mul(4));
    let mut number: u64 = 0;
    for c in whole.chars().chain(fraction.chars()) {
        let digit = u64::from(c.to_digit(16)?);
        if number >> 58 == 0 {
            number = number << 4 | digit;
        } else {
            // Digits beyond the precision only decide which way it is rounded.
            number |= u64::from(digit != 0);
            power = power.saturating_add(4);
        }
    }
    Some(scale(number as f64, power))
}

fn scale(mut number: f64, mut power: i64) -> f64 {
    while power != 0 && number != 0.0 && number.is_finite() {
        let step = power.clamp(-1000, 1000);
        number *= 2.0_f64.powi(i32::try_from(step).unwrap_or(0));
        power = power.saturating_sub(step);
    }
    number
}

/// Go's conversion of a float to an integer on amd64: what does not fit becomes the smallest number.
#[must_use]
pub fn float_to_int(number: f64) -> i64 {
    let limit = 9_223_372_036_854_775_808.0;
    if number >= -limit && number < limit {
        number as i64
    } else {
        i64::MIN
    }
}

/// The fewest digits that tell a number from all others, and the exponent of the first one. The sign is left
/// out. Of two that are equally near the even one is taken, as Go does; the standard library takes the larger.
#[must_use]
pub fn shortest(number: f64) -> (String, i32) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format(number.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_start_matches('0');
    if digits.is_empty() {
        return ("0".into(), 0);
    }
    let zeros = all.len().saturating_sub(digits.len());
    let before = i32::try_from(whole.len()).unwrap_or(0) - i32::try_from(zeros).unwrap_or(0) - 1;
    let exponent = exponent.parse::<i32>().unwrap_or(0).saturating_add(before);
    (digits.trim_end_matches('0').to_owned(), exponent)
}

/// Leaves out the fraction of a decimal number, as `cast` does.
fn without_fraction(text: &[u8]) -> &[u8] {
    let Some(point) = text.iter().position(|byte| *byte == b'.') else {
        return text;
    };
    let (whole, fraction) = text.split_at_checked(point).unwrap_or((text, b""));
    let (_, digits) = sign(whole);
    let plain = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
    if !plain(digits) || !plain(fraction.get(1..).unwrap_or_default()) {
        return text;
    }
    if digits.is_empty() { b"0" } else { whole }
}

/// `cast.ToInt64`: what is no number is 0.
#[must_use]
pub fn to_int(value: &Value) -> i64 {
    match value {
        Value::Int(_, number) | Value::Duration(number) => *number,
        Value::Float(number) => float_to_int(*number),
        Value::Bool(is) => i64::from(*is),
        Value::Text(text) if !text.is_empty() => parse_int(without_fraction(text), 0).unwrap_or(0),
        _ => 0,
    }
}

/// `cast.ToFloat64`: what is no number is 0.
#[must_use]
pub fn to_float(value: &Value) -> f64 {
    match value {
        Value::Int(IntKind::Uint64, number) => number.cast_unsigned() as f64,
        Value::Int(_, number) | Value::Duration(number) => *number as f64,
        Value::Float(number) => *number,
        Value::Bool(is) => f64::from(u8::from(*is)),
        Value::Text(text) => parse_float(text).unwrap_or(0.0),
        _ => 0.0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_are_read_with_go_s_prefixes_and_underscores() {
        let read = |text: &str| parse_int(text.as_bytes(), 0);
        assert_eq!(read("-0x1F"), Ok(-31));
        assert_eq!(read("0o17"), Ok(15));
        assert_eq!(read("0b101"), Ok(5));
        assert_eq!(read("010"), Ok(8));
        assert_eq!(read("0x_1_F"), Ok(31));
        assert_eq!(read("0_7"), Ok(7));
        assert_eq!(read("1_000"), Ok(1000));
        for text in [
            "", "-", "08", "0x", "0_", "_1", "1_", "1__0", "0_x1", " 1", "1e3", "+-1", "0x_",
        ] {
            assert_eq!(read(text), Err(NotInt::Syntax), "{text}");
        }
        assert_eq!(parse_int(b"1_0", 10), Err(NotInt::Syntax));
        assert_eq!(
            parse_int(b"-9223372036854775809", 10),
            Err(NotInt::Range(i64::MIN))
        );
        assert_eq!(parse_int(b"-9223372036854775808", 10), Ok(i64::MIN));
    }

    #[test]
    fn floats_are_read_as_go_reads_them() {
        let read = |text: &str| parse_float(text.as_bytes());
        assert_eq!(read("0x1p-2"), Some(0.25));
        assert_eq!(read("0x1.8p1"), Some(3.0));
        assert_eq!(read("0x1_0p0"), Some(16.0));
        assert_eq!(read("0x1.fffffffffffff8p0"), Some(2.0));
        assert_eq!(read("1_0.5"), Some(10.5));
        assert_eq!(read("-Infinity"), Some(f64::NEG_INFINITY));
        assert!(read("nan").unwrap().is_nan());
        for text in [
            "",
            "+nan",
            "0x10",
            "1e400",
            "0x1p99999",
            "1e",
            ".",
            "--1",
            "1_",
            "infin",
            "0x1p",
            "é",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn of_two_shortest_texts_the_even_one_is_taken() {
        assert_eq!(
            shortest("196267985912769.125".parse().unwrap()),
            ("19626798591276912".into(), 14)
        );
        assert_eq!(shortest(-0.0), ("0".into(), 0));
        assert_eq!(shortest(1200.0), ("12".into(), 3));
        assert_eq!(shortest(0.00012), ("12".into(), -4));
        assert_eq!(shortest(5e-324), ("5".into(), -324));
    }

    proptest! {
        #[test]
        fn the_shortest_digits_are_read_back(number in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
            let (digits, exponent) = shortest(number);
            let power = exponent + 1 - i32::try_from(digits.len()).unwrap();
            prop_assert_eq!(format!("{digits}e{power}").parse::<f64>().unwrap(), number.abs());
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in prop::collection::vec(any::<u8>(), 0..40), base in 0_u32..=36) {
            let base = if base == 1 { 10 } else { base };
            let _ = parse_int(&text, base);
            let _ = parse_float(&text);
        }

        #[test]
        fn integers_are_read_back(number in any::<i64>()) {
            prop_assert_eq!(parse_int(number.to_string().as_bytes(), 0), Ok(number));
        }
    }
}
