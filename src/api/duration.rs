//! Durations in Go's grammar. kube's own type panics on input such as `1h-5m`.

use std::fmt;
use std::time::Duration;

/// The shortest time between refreshes of an object and between checks of a store: one that asks for less must not keep
/// a processor and Vault busy.
pub const SHORTEST_REFRESH: Duration = Duration::from_secs(1);

/// A duration as Go writes it, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(i64);

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not of Go's grammar.
    #[error("'{0}' is not a duration; write for example 1h, 15m or 1h30m")]
    Grammar(String),
    /// Beyond what 63 bits of nanoseconds hold, about 292 years.
    #[error("'{0}' is too long; the longest duration is about 292 years")]
    Overflow(String),
}

const HOUR: i64 = 3_600_000_000_000;
const MINUTE: i64 = 60_000_000_000;
const SECOND: i64 = 1_000_000_000;

fn unit(name: &str) -> Option<i64> {
    Some(match name {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => return None,
    })
}

impl GoDuration {
    /// Whole seconds.
    #[must_use]
    pub fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(SECOND))
    }

    /// Parses `-?([0-9]*(\.[0-9]*)?unit)+` or `0`.
    ///
    /// # Errors
    /// If the text is of another form, or too long.
    pub fn parse(text: &str) -> Result<Self, DurationError> {
        let grammar = || DurationError::Grammar(text.into());
        let overflow = || DurationError::Overflow(text.into());
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(grammar());
        }
        let mut total: i64 = 0;
        while !rest.is_empty() {
            let number_end = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or_else(grammar)?;
            let (number, tail) = rest.split_at(number_end);
            let unit_end = tail
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(tail.len());
            let (name, tail) = tail.split_at(unit_end);
            let size = unit(name).ok_or_else(grammar)?;
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
                return Err(grammar());
            }
            let whole: i64 = if whole.is_empty() {
                0
            } else {
                whole.parse().map_err(|_| overflow())?
            };
            let part = whole
                .checked_mul(size)
                .and_then(|w| w.checked_add(fraction_of(fraction, size)));
            total = part
                .and_then(|part| total.checked_add(part))
                .ok_or_else(overflow)?;
            rest = tail;
        }
        Ok(Self(if negative { -total } else { total }))
    }

    /// As a positive duration; `None` for zero and less.
    #[must_use]
    pub fn as_std(self) -> Option<Duration> {
        u64::try_from(self.0)
            .ok()
            .filter(|nanos| *nanos > 0)
            .map(Duration::from_nanos)
    }

    /// Whether it is less than zero.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }
}

/// Digits after the point, as part of a unit; digits beyond a nanosecond's reach do not count.
fn fraction_of(digits: &str, size: i64) -> i64 {
    let mut scale = size as f64;
    let mut value = 0.0;
    for digit in digits.bytes().take(18) {
        scale /= 10.0;
        value += f64::from(digit - b'0') * scale;
    }
    // At most one unit, and so at most an hour: no overflow.
    value.round() as i64
}

impl fmt::Display for GoDuration {
    /// Go's form: `1h0m0s`, `1.5s`, `300ms`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if nanos == 0 {
            return f.write_str("0s");
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let decimal = |value: u64, unit: u64| {
            let text = format!(
                "{}.{:0width$}",
                value / unit,
                value % unit,
                width = unit.ilog10() as usize
            );
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        };
        match nanos {
            n if n < 1_000 => write!(f, "{n}ns"),
            n if n < 1_000_000 => write!(f, "{}µs", decimal(n, 1_000)),
            n if n < SECOND as u64 => write!(f, "{}ms", decimal(n, 1_000_000)),
            n => {
                let (hours, minutes) = (n / HOUR as u64, n % HOUR as u64 / MINUTE as u64);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if hours > 0 || minutes > 0 {
                    write!(f, "{minutes}m")?;
                }
                write!(f, "{}s", decimal(n % MINUTE as u64, SECOND as u64))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gos_examples_are_understood() {
        for (text, canonical) in [
            ("1h", "1h0m0s"),
            ("1h30m", "1h30m0s"),
            ("1.5h", "1h30m0s"),
            ("0", "0s"),
            ("-0", "0s"),
            ("0s", "0s"),
            (".5s", "500ms"),
            ("5.s", "5s"),
            ("1500us", "1.5ms"),
            ("-1m", "-1m0s"),
            ("+5s", "5s"),
            ("3000ns", "3µs"),
        ] {
            assert_eq!(GoDuration::parse(text).unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_and_never_panics() {
        for text in [
            "",
            "-",
            ".",
            "1",
            "h",
            "1h-5m",
            "1 h",
            "1x",
            "1.2.3s",
            ".s",
            "99999999999999999999h",
            "9999999h",
        ] {
            assert!(GoDuration::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = GoDuration::parse(&text);
        }

        #[test]
        fn no_near_miss_panics(text in "[-+]?([0-9]{0,22}(\\.[0-9]{0,22})?(ns|us|ms|s|m|h|)){0,4}") {
            let _ = GoDuration::parse(&text);
        }

        #[test]
        fn seconds_come_back_as_they_went(seconds in -1_000_000_000i64..1_000_000_000) {
            let duration = GoDuration::from_secs(seconds);
            prop_assert_eq!(GoDuration::parse(&duration.to_string()).unwrap(), duration);
        }
    }
}
