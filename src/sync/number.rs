//! Numbers as Go prints them after a trip through `float64`.

/// A JSON number as `strconv.FormatFloat(x, 'f', -1, 64)` prints it: the shortest digits that name the same
/// float, no exponent (`1.0` → `1`, `1e3` → `1000`).
///
/// Integers keep the digits they were written with: ESO loses those beyond 2^53, and nobody can want that.
/// So does a number too large for a float, where Go would fail or print `+Inf`.
#[must_use]
pub fn plain(text: &str) -> String {
    match as_float(text) {
        Some(number) => format!("{number}"),
        None => text.to_owned(),
    }
}

/// A JSON number as Go's `encoding/json` writes a `float64`: like [`plain`], but very small and very large ones
/// with an exponent (`1e-7`, `1e+21`).
#[must_use]
pub fn in_json(text: &str) -> String {
    let Some(number) = as_float(text) else {
        return text.to_owned();
    };
    let size = number.abs();
    if number == 0.0 || (1e-6..1e21).contains(&size) {
        return format!("{number}");
    }
    let scientific = format!("{number:e}");
    match scientific.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
        _ => scientific,
    }
}

/// The float, unless the text is to be kept: an integer, or nothing that a float can hold.
fn as_float(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_numbers_have_no_exponent_and_no_needless_zeros() {
        for (text, expected) in [
            ("5432", "5432"),
            ("1.0", "1"),
            ("1.50", "1.5"),
            ("1e3", "1000"),
            ("1E+2", "100"),
            ("-2.5e-3", "-0.0025"),
            ("1e21", "1000000000000000000000"),
            ("1e-7", "0.0000001"),
            ("2.1234534153423423", "2.1234534153423423"),
            ("123.45", "123.45"),
            ("0.1", "0.1"),
            ("-0.0", "-0"),
        ] {
            assert_eq!(plain(text), expected, "{text}");
        }
    }

    #[test]
    fn integers_beyond_two_to_the_53_keep_their_digits() {
        assert_eq!(plain("9007199254740993"), "9007199254740993");
        assert_eq!(
            in_json("-12345678901234567890123456"),
            "-12345678901234567890123456"
        );
    }

    #[test]
    fn a_number_that_no_float_can_hold_stays_as_it_was_written() {
        assert_eq!(plain("1e400"), "1e400");
        assert_eq!(in_json("-1e400"), "-1e400");
    }

    #[test]
    fn inside_json_extreme_numbers_have_an_exponent_as_in_go() {
        for (text, expected) in [
            ("1.0", "1"),
            ("1e3", "1000"),
            ("1e20", "100000000000000000000"),
            ("1e21", "1e+21"),
            ("1.5e300", "1.5e+300"),
            ("0.000001", "0.000001"),
            ("0.0000001", "1e-7"),
            ("-2.50e-10", "-2.5e-10"),
            ("0.0", "0"),
        ] {
            assert_eq!(in_json(text), expected, "{text}");
        }
    }
}
