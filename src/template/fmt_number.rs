//! Numbers under the verbs of `printf`.

use super::fmt::Printer;
use super::fmt_quote::{is_printable, quote_rune};
use super::fmt_value::bad_verb;
use super::funcs::Fault;
use super::value::Value;

type Outcome = Result<(), Fault>;

/// Writes an integer or a duration.
pub(super) fn integer(printer: &mut Printer, value: &Value, verb: char) -> Outcome {
    let (number, unsigned) = match value {
        Value::Int(kind, number) => (*number, kind.unsigned()),
        Value::Duration(number) => (*number, false),
        _ => return bad_verb(printer, value, verb),
    };
    let negative = !unsigned && number < 0;
    let bits = u64::from_ne_bytes(number.to_ne_bytes());
    let size = if negative { number.unsigned_abs() } else { bits };
    match verb {
        'v' if printer.flags.sharp_v && unsigned => {
            printer.flags.sharp = true;
            let done = digits(printer, negative, &format!("{size:x}"), "0x");
            printer.flags.sharp = false;
            done
        }
        'v' | 'd' => digits(printer, negative, &size.to_string(), ""),
        'b' => digits(printer, negative, &format!("{size:b}"), "0b"),
        'o' | 'O' => octal(printer, negative, size, verb),
        'x' => digits(printer, negative, &format!("{size:x}"), "0x"),
        'X' => digits(printer, negative, &format!("{size:X}"), "0X"),
        'c' => printer.pad(rune(bits).encode_utf8(&mut [0; 4]).as_bytes()),
        'q' => printer.pad(quote_rune(rune(bits), printer.flags.plus).as_bytes()),
        'U' => code_point(printer, bits),
        _ => bad_verb(printer, value, verb),
    }
}

/// The rune of this number, or U+FFFD.
fn rune(number: u64) -> char {
    u32::try_from(number)
        .ok()
        .and_then(char::from_u32)
        .unwrap_or('\u{FFFD}')
}

fn octal(printer: &mut Printer, negative: bool, size: u64, verb: char) -> Outcome {
    let number = format!("{size:o}");
    if verb == 'o' {
        return digits(printer, negative, &number, "0");
    }
    let (sharp, plain) = (printer.flags.sharp, number);
    // %O always has a prefix; with # Go puts the one of %o behind it.
    printer.flags.sharp = true;
    let prefix = if sharp && !plain.starts_with('0') {
        "0o0"
    } else {
        "0o"
    };
    let done = digits(printer, negative, &plain, prefix);
    printer.flags.sharp = sharp;
    done
}

/// Writes the digits of an integer with its sign, its prefix and leading zeros.
fn digits(printer: &mut Printer, negative: bool, number: &str, prefix: &str) -> Outcome {
    let flags = printer.flags;
    let mut least = 0;
    if let Some(precision) = flags.precision {
        if precision == 0 && number == "0" {
            return printer.pad_with_spaces(b"");
        }
        least = precision;
    } else if let Some(width) = flags.width
        && flags.zero
        && !flags.minus
    {
        let sign = usize::from(negative || flags.plus || flags.space);
        least = width.saturating_sub(sign);
    }
    let zeros = least.saturating_sub(number.len());
    printer.limits.grow(zeros)?;
    let mut made = String::with_capacity(zeros + number.len() + 3);
    match (negative, flags.plus, flags.space) {
        (true, ..) => made.push('-'),
        (_, true, _) => made.push('+'),
        (_, _, true) => made.push(' '),
        _ => {}
    }
    let leading_zero = zeros > 0 || number.starts_with('0');
    if flags.sharp && !(prefix == "0" && leading_zero) {
        made.push_str(prefix);
    }
    made.extend(std::iter::repeat_n('0', zeros));
    made.push_str(number);
    printer.pad_with_spaces(made.as_bytes())
}

fn code_point(printer: &mut Printer, number: u64) -> Outcome {
    let precision = printer.flags.precision.unwrap_or(4).max(4);
    printer.limits.grow(precision)?;
    let mut made = format!("U+{number:0precision$X}");
    if printer.flags.sharp
        && let Some(c) = u32::try_from(number).ok().and_then(char::from_u32)
        && is_printable(c)
    {
        made.push_str(&format!(" '{c}'"));
    }
    printer.pad_with_spaces(made.as_bytes())
}

/// Writes a complex number.
pub(super) fn complex(
    printer: &mut Printer,
    real: f64,
    imaginary: f64,
    verb: char,
    value: &Value,
) -> Outcome {
    if !matches!(verb, 'v' | 'b' | 'g' | 'G' | 'x' | 'X' | 'f' | 'F' | 'e' | 'E') {
        return bad_verb(printer, value, verb);
    }
    printer.write(b"(")?;
    float(printer, real, verb, value)?;
    let plus = std::mem::replace(&mut printer.flags.plus, true);
    let done = float(printer, imaginary, verb, value);
    printer.flags.plus = plus;
    done?;
    printer.write(b"i)")
}

/// Writes a float.
pub(super) fn float(printer: &mut Printer, number: f64, verb: char, value: &Value) -> Outcome {
    let (format, default) = match verb {
        'v' => ('g', None),
        'b' | 'g' | 'G' | 'x' | 'X' => (verb, None),
        'f' | 'e' | 'E' => (verb, Some(6)),
        'F' => ('f', Some(6)),
        _ => return bad_verb(printer, value, verb),
    };
    let precision = printer.flags.precision.or(default);
    // A float has at most 1,100 digits; Go writes zeros behind them.
    printer.limits.grow(precision.unwrap_or(0).saturating_add(400))?;
    let unsigned = format_float(number.abs(), format, precision);
    let sign = match (
        number.is_sign_negative() && !number.is_nan(),
        printer.flags.plus,
        printer.flags.space,
    ) {
        (true, ..) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    };
    if !number.is_finite() {
        let sign = if number.is_infinite() && sign.is_empty() {
            "+"
        } else {
            sign
        };
        return printer.pad_with_spaces(format!("{sign}{unsigned}").as_bytes());
    }
    let unsigned = if printer.flags.sharp && verb != 'b' {
        keep_zeros(unsigned, verb, precision)
    } else {
        unsigned
    };
    let flags = printer.flags;
    if flags.zero && !flags.minus && !sign.is_empty() {
        // The sign stands before the zeros.
        printer.write(sign.as_bytes())?;
        printer.flags.width = flags.width.map(|width| width.saturating_sub(1));
        let done = printer.pad(unsigned.as_bytes());
        printer.flags.width = flags.width;
        return done;
    }
    printer.pad(format!("{sign}{unsigned}").as_bytes())
}

/// What the flag `#` does: a point, and the zeros that `%g` leaves out.
fn keep_zeros(number: String, verb: char, precision: Option<usize>) -> String {
    let wanted = if matches!(verb, 'v' | 'g' | 'G' | 'x') {
        precision.unwrap_or(6)
    } else {
        0
    };
    let is_hex = matches!(verb, 'x' | 'X');
    let exponent = number.find(|c| matches!(c, 'p' | 'P') || (!is_hex && matches!(c, 'e' | 'E')));
    let (digits, tail) = number.split_at(exponent.unwrap_or(number.len()));
    let significant = digits
        .chars()
        .filter(|c| *c != '.')
        .skip_while(|c| *c == '0')
        .count();
    let mut made = digits.to_owned();
    let mut counted = significant;
    if !digits.contains('.') {
        counted += usize::from(digits == "0");
        made.push('.');
    }
    made.extend(std::iter::repeat_n('0', wanted.saturating_sub(counted)));
    made + tail
}

/// Go's `strconv.FormatFloat` of a number that is not negative; without a precision, as few digits as tell it
/// from all others.
pub(super) fn format_float(number: f64, format: char, precision: Option<usize>) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return "Inf".into();
    }
    match format {
        'f' => match precision {
            Some(precision) => fixed(number, precision),
            None => format!("{number}"),
        },
        'e' => scientific(number, precision),
        'E' => scientific(number, precision).to_uppercase(),
        'g' => general(number, precision),
        'G' => general(number, precision).to_uppercase(),
        'b' => binary(number),
        'X' => hexadecimal(number, precision).to_uppercase(),
        _ => hexadecimal(number, precision),
    }
}

/// Digits after the point beyond these are zeros, and Rust allows no more than 65,535.
const MOST_DIGITS: usize = 1100;

fn fixed(number: f64, precision: usize) -> String {
    let exact = precision.min(MOST_DIGITS);
    let mut made = format!("{number:.exact$}");
    made.extend(std::iter::repeat_n('0', precision - exact));
    made
}

/// Digits without the point, and the exponent of the first one.
fn decompose(number: f64, digits: Option<usize>) -> (String, i32) {
    let made = match digits {
        Some(digits) => {
            let exact = digits.saturating_sub(1).min(MOST_DIGITS);
            format!("{number:.exact$e}")
        }
        None => format!("{number:e}"),
    };
    let (mantissa, exponent) = made.split_once('e').unwrap_or((&made, "0"));
    (mantissa.replace('.', ""), exponent.parse().unwrap_or(0))
}

fn scientific(number: f64, precision: Option<usize>) -> String {
    let (mut digits, exponent) = decompose(number, precision.map(|precision| precision.saturating_add(1)));
    if let Some(precision) = precision {
        let missing = (precision + 1).saturating_sub(digits.len());
        digits.extend(std::iter::repeat_n('0', missing));
    }
    with_exponent(&digits, exponent)
}

fn with_exponent(digits: &str, exponent: i32) -> String {
    let (first, rest) = digits.split_at_checked(1).unwrap_or((digits, ""));
    let point = if rest.is_empty() { "" } else { "." };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{first}{point}{rest}e{sign}{:02}", exponent.unsigned_abs())
}

fn general(number: f64, precision: Option<usize>) -> String {
    let wanted = precision.map(|precision| precision.max(1));
    let (digits, exponent) = decompose(number, wanted);
    let digits = match digits.trim_end_matches('0') {
        "" => "0",
        trimmed => trimmed,
    };
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let point = if number == 0.0 { 0 } else { exponent + 1 };
    let limit = match wanted.map(|wanted| i32::try_from(wanted).unwrap_or(i32::MAX)) {
        None => 6,
        Some(wanted) if wanted > count && count >= point => count,
        Some(wanted) => wanted,
    };
    if point - 1 < -4 || point > limit {
        return with_exponent(digits, exponent);
    }
    plain(digits, point)
}

/// Digits with the point behind so many of them.
fn plain(digits: &str, point: i32) -> String {
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    if point <= 0 {
        return if digits == "0" {
            "0".into()
        } else {
            format!("0.{}{digits}", zeros(-point))
        };
    }
    if point >= count {
        return format!("{digits}{}", zeros(point - count));
    }
    let (whole, fraction) = usize::try_from(point)
        .ok()
        .and_then(|point| digits.split_at_checked(point))
        .unwrap_or_default();
    format!("{whole}.{fraction}")
}

/// Mantissa and exponent of two, as they are stored.
fn parts(number: f64) -> (u64, i32) {
    let bits = number.to_bits();
    let mantissa = bits & ((1 << 52) - 1);
    match i32::try_from(bits >> 52 & 0x7FF).unwrap_or(0) {
        0 => (mantissa, -1022),
        exponent => (mantissa | 1 << 52, exponent - 1023),
    }
}

fn binary(number: f64) -> String {
    let (mantissa, exponent) = parts(number);
    format!("{mantissa}p{:+}", exponent - 52)
}

fn hexadecimal(number: f64, precision: Option<usize>) -> String {
    let (mantissa, mut exponent) = parts(number);
    // The bit before the point is bit 60.
    let mut mantissa = mantissa << 8;
    if mantissa == 0 {
        exponent = 0;
    }
    while mantissa != 0 && mantissa >> 60 == 0 {
        mantissa <<= 1;
        exponent -= 1;
    }
    if let Some(precision) = precision.filter(|precision| *precision < 15) {
        let shift = precision * 4;
        let lost = (mantissa << shift) & ((1 << 60) - 1);
        mantissa >>= 60 - shift;
        if lost | (mantissa & 1) > 1 << 59 {
            mantissa += 1;
        }
        mantissa <<= 60 - shift;
        if mantissa >> 61 != 0 {
            mantissa >>= 1;
            exponent += 1;
        }
    }
    let first = mantissa >> 60;
    let all = format!("{:015x}", mantissa & ((1 << 60) - 1));
    let digits = match precision {
        None => all.trim_end_matches('0').to_owned(),
        Some(precision) => {
            let mut digits: String = all.chars().take(precision).collect();
            digits.extend(std::iter::repeat_n('0', precision.saturating_sub(all.len())));
            digits
        }
    };
    let point = if digits.is_empty() { "" } else { "." };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("0x{first}{point}{digits}p{sign}{:02}", exponent.unsigned_abs())
}
