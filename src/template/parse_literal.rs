//! Constants: strings, characters and numbers, by Go's rules (`strconv`).

use super::tree::{Ideal, Number};

type Outcome<T> = Result<T, String>;

/// The bytes of a string constant, which is written with its quotes.
pub(super) fn unquote(word: &str) -> Outcome<Vec<u8>> {
    if let Some(raw) = word.strip_prefix('`') {
        let raw = raw.strip_suffix('`').unwrap_or(raw);
        return Ok(raw.bytes().filter(|byte| *byte != b'\r').collect());
    }
    let inner = word
        .strip_prefix('"')
        .and_then(|word| word.strip_suffix('"'))
        .ok_or("invalid syntax")?;
    if !inner.contains('\\') {
        return Ok(inner.into());
    }
    let mut made = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((unit, after)) = unquote_one(rest, '"')? {
        match unit {
            Unit::Byte(byte) => made.push(byte),
            Unit::Rune(c) => made.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        rest = after;
    }
    Ok(made)
}

/// The number of a character constant, which is written with its quotes.
pub(super) fn char_constant(word: &str) -> Outcome<Number> {
    let inner = word
        .strip_prefix('\'')
        .and_then(|word| word.strip_suffix('\''))
        .unwrap_or_default();
    let value = match unquote_one(inner, '\'')? {
        Some((Unit::Byte(byte), "")) => i64::from(byte),
        Some((Unit::Rune(c), "")) => i64::from(u32::from(c)),
        _ => return Err(format!("malformed character constant: {word}")),
    };
    Ok(Number {
        int: Some(value),
        float: Some(value as f64),
        ideal: Ideal::Int(value),
    })
}

enum Unit {
    /// `\x41` and `\101`.
    Byte(u8),
    Rune(char),
}

/// The first character of a quoted text, and what follows it.
fn unquote_one(text: &str, quote: char) -> Outcome<Option<(Unit, &str)>> {
    let mut chars = text.chars();
    let Some(c) = chars.next() else {
        return Ok(None);
    };
    if c == quote {
        return Err("invalid syntax".into());
    }
    if c != '\\' {
        return Ok(Some((Unit::Rune(c), chars.as_str())));
    }
    let escape = chars
        .next()
        .ok_or("invalid syntax: nothing follows the backslash")?;
    let rest = chars.as_str();
    let simple = |c| Ok(Some((Unit::Rune(c), rest)));
    match escape {
        'a' => simple('\x07'),
        'b' => simple('\x08'),
        'f' => simple('\x0C'),
        'n' => simple('\n'),
        'r' => simple('\r'),
        't' => simple('\t'),
        'v' => simple('\x0B'),
        '\\' => simple('\\'),
        '\'' | '"' if escape == quote => simple(escape),
        'x' => code(rest, 2, 16),
        'u' => code(rest, 4, 16),
        'U' => code(rest, 8, 16),
        '0'..='7' => code(text.get(1..).unwrap_or_default(), 3, 8),
        _ => Err(format!("invalid syntax: unknown escape \\{escape}")),
    }
}

/// A character by its number, which has so many digits.
fn code(text: &str, digits: usize, radix: u32) -> Outcome<Option<(Unit, &str)>> {
    let invalid = || "invalid syntax: bad number of a character".to_owned();
    let (number, rest) = text.split_at_checked(digits).ok_or_else(invalid)?;
    if !number.chars().all(|c| c.is_digit(radix)) {
        return Err(invalid());
    }
    let number = u32::from_str_radix(number, radix).map_err(|_| invalid())?;
    let unit = if digits < 4 {
        Unit::Byte(u8::try_from(number).map_err(|_| invalid())?)
    } else {
        Unit::Rune(char::from_u32(number).ok_or_else(invalid)?)
    };
    Ok(Some((unit, rest)))
}

/// A number. A complex one has a sign in the middle and an `i` at the end.
pub(super) fn number(word: &str, complex: bool) -> Outcome<Number> {
    let illegal = || format!("illegal number syntax: {word:?}");
    if let Some(number) = word.strip_suffix('i') {
        let middle = number
            .char_indices()
            .skip(1)
            .filter(|(at, c)| {
                matches!(c, '+' | '-') && !exponent_ends(number.get(..*at).unwrap_or_default(), number)
            })
            .last()
            .filter(|_| complex);
        let (real, imaginary) = match middle {
            Some((at, _)) => number.split_at(at),
            None => ("0", number),
        };
        let real = float(real).ok_or_else(illegal)?;
        let imaginary = float(imaginary).ok_or_else(illegal)?;
        let whole = (imaginary == 0.0).then_some(real);
        return Ok(Number {
            int: whole.and_then(integral),
            float: whole,
            ideal: Ideal::Complex(real, imaginary),
        });
    }
    let (negative, unsigned) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    if let Some(size) = integer(unsigned) {
        let int = if negative {
            0_i64.checked_sub_unsigned(size)
        } else {
            i64::try_from(size).ok()
        };
        return match int {
            Some(int) => Ok(Number {
                int: Some(int),
                float: Some(int as f64),
                ideal: Ideal::Int(int),
            }),
            None if negative || word.starts_with('+') => Err(format!("integer overflow: {word:?}")),
            None => Ok(Number {
                int: None,
                float: Some(size as f64),
                ideal: Ideal::Overflow,
            }),
        };
    }
    let value = float(word).ok_or_else(illegal)?;
    if !word.contains(['.', 'e', 'E', 'p', 'P']) {
        return Err(format!("integer overflow: {word:?}"));
    }
    Ok(Number {
        int: integral(value),
        float: Some(value),
        ideal: Ideal::Float(value),
    })
}

/// Whether a sign that follows this text is the sign of an exponent.
fn exponent_ends(before: &str, number: &str) -> bool {
    let hex = number.trim_start_matches(['+', '-']).starts_with(['0']) && number.contains(['x', 'X']);
    before.ends_with(if hex { ['p', 'P'] } else { ['e', 'E'] })
}

/// The integer that a float is.
fn integral(value: f64) -> Option<i64> {
    const END: f64 = 9_223_372_036_854_775_808.0;
    (value.trunc() == value && (-END..END).contains(&value)).then_some(value as i64)
}

/// An integer without sign; the prefix tells its base.
fn integer(word: &str) -> Option<u64> {
    if !underscores_are_good(word) {
        return None;
    }
    let (digits, radix) = match word.as_bytes() {
        [b'0', b'x' | b'X', ..] => (word.get(2..)?, 16),
        [b'0', b'o' | b'O', ..] => (word.get(2..)?, 8),
        [b'0', b'b' | b'B', ..] => (word.get(2..)?, 2),
        [b'0', _, ..] => (word.get(1..)?, 8),
        _ => (word, 10),
    };
    let digits = digits.replace('_', "");
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(&digits, radix).ok()
}

/// A float, which may be hexadecimal.
fn float(word: &str) -> Option<f64> {
    let (negative, unsigned) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    if !underscores_are_good(unsigned) {
        return None;
    }
    let plain = unsigned.replace('_', "");
    let hex = plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X"));
    let value = match hex {
        Some(hex) => hex_float(hex)?,
        None if plain.starts_with(|c: char| c.is_ascii_digit() || c == '.') => plain.parse().ok()?,
        None => return None,
    };
    value.is_finite().then_some(if negative { -value } else { value })
}

/// The part of a hexadecimal float after `0x`; the exponent is not optional.
fn hex_float(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let exponent: i32 = exponent.parse::<i32>().ok()?.clamp(-100_000, 100_000);
    let mut bits: u64 = 0;
    let mut shift: i32 = 0;
    for (index, c) in whole.chars().chain(fraction.chars()).enumerate() {
        let digit = u64::from(c.to_digit(16)?);
        let behind = index >= whole.len();
        if bits >> 60 == 0 {
            bits = bits << 4 | digit;
            shift -= if behind { 4 } else { 0 };
        } else {
            // What no longer fits matters only for rounding.
            bits |= u64::from(digit != 0);
            shift += if behind { 0 } else { 4 };
        }
    }
    Some(scale(bits, exponent.saturating_add(shift)))
}

/// `bits * 2^exponent`, rounded once.
fn scale(bits: u64, exponent: i32) -> f64 {
    let mut bits = bits;
    let mut exponent = exponent;
    // What is too small for a normal float loses its last bits here, so that it is not rounded twice.
    let length = 64 - bits.leading_zeros() as i32;
    let drop = (-1074 - exponent).max(length - 53).clamp(0, 65);
    if drop > 0 {
        let half = if drop > 64 { u64::MAX } else { 1 << (drop - 1) };
        let kept = bits.checked_shr(drop as u32).unwrap_or(0);
        let lost = if drop >= 64 {
            bits
        } else {
            bits & ((1 << drop) - 1)
        };
        bits = kept + u64::from(lost > half || (lost == half && kept & 1 == 1));
        exponent = exponent.saturating_add(drop);
    }
    let mut value = bits as f64;
    while exponent > 0 && value.is_finite() && value != 0.0 {
        let step = exponent.min(1000);
        value *= 2_f64.powi(step);
        exponent -= step;
    }
    while exponent < 0 && value != 0.0 {
        let step = (-exponent).min(1000);
        value /= 2_f64.powi(step);
        exponent += step;
    }
    value
}

/// Whether each underscore stands between digits, or after the prefix of a base.
fn underscores_are_good(word: &str) -> bool {
    if !word.contains('_') {
        return true;
    }
    let prefixed = matches!(
        word.as_bytes(),
        [b'0', b'b' | b'B' | b'o' | b'O' | b'x' | b'X', ..]
    );
    let hex = matches!(word.as_bytes(), [b'0', b'x' | b'X', ..]);
    let digits = if prefixed {
        word.get(2..).unwrap_or_default()
    } else {
        word
    };
    let mut before = if prefixed { '0' } else { '^' };
    for c in digits.chars() {
        let class = if c.is_ascii_digit() || (hex && c.is_ascii_hexdigit()) {
            '0'
        } else if c == '_' {
            '_'
        } else {
            '!'
        };
        if (class == '_' && before != '0') || (class == '!' && before == '_') {
            return false;
        }
        before = class;
    }
    before != '_'
}
