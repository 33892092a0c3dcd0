//! Go's layouts of dates: the reference time `Mon Jan 2 15:04:05 MST 2006`, written and read.

mod read;

pub use read::parse;

use super::time::{Civil, MONTHS, Time, WEEKDAYS};

/// How an offset is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offset {
    /// `Z` stands for UTC.
    z: bool,
    colon: bool,
    minutes: bool,
    seconds: bool,
}

/// A part of a layout that stands for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Month {
        long: bool,
    },
    MonthNumber {
        zero: bool,
    },
    Weekday {
        long: bool,
    },
    Day {
        pad: Pad,
    },
    YearDay {
        zero: bool,
    },
    Hour,
    Hour12 {
        zero: bool,
    },
    Minute {
        zero: bool,
    },
    Second {
        zero: bool,
    },
    Year,
    LongYear,
    Half {
        upper: bool,
    },
    ZoneName,
    Offset(Offset),
    /// Digits of the second; without `zeros` those at its end are left out.
    Fraction {
        digits: usize,
        separator: u8,
        zeros: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pad {
    None,
    Blank,
    Zero,
}

const OFFSETS: [(&[u8], Offset); 10] = [
    (b"-070000", offset(false, false, true, true)),
    (b"-07:00:00", offset(false, true, true, true)),
    (b"-0700", offset(false, false, true, false)),
    (b"-07:00", offset(false, true, true, false)),
    (b"-07", offset(false, false, false, false)),
    (b"Z070000", offset(true, false, true, true)),
    (b"Z07:00:00", offset(true, true, true, true)),
    (b"Z0700", offset(true, false, true, false)),
    (b"Z07:00", offset(true, true, true, false)),
    (b"Z07", offset(true, false, false, false)),
];

const fn offset(z: bool, colon: bool, minutes: bool, seconds: bool) -> Offset {
    Offset {
        z,
        colon,
        minutes,
        seconds,
    }
}

fn get(text: &[u8], at: usize) -> Option<u8> {
    text.get(at).copied()
}

fn from(text: &[u8], at: usize) -> &[u8] {
    text.get(at..).unwrap_or_default()
}

/// Whether a name goes on as a word, so that it is none: `Janet`.
fn goes_on(rest: &[u8]) -> bool {
    rest.first().is_some_and(u8::is_ascii_lowercase)
}

/// The part that a text begins with, and its length.
fn part(text: &[u8]) -> Option<(Part, usize)> {
    let found = match (get(text, 0)?, get(text, 1)) {
        (b'J', _) if text.starts_with(b"January") => (Part::Month { long: true }, 7),
        (b'J', _) if text.starts_with(b"Jan") && !goes_on(from(text, 3)) => (Part::Month { long: false }, 3),
        (b'M', _) if text.starts_with(b"Monday") => (Part::Weekday { long: true }, 6),
        (b'M', _) if text.starts_with(b"Mon") && !goes_on(from(text, 3)) => {
            (Part::Weekday { long: false }, 3)
        }
        (b'M', _) if text.starts_with(b"MST") => (Part::ZoneName, 3),
        (b'0', Some(b'1')) => (Part::MonthNumber { zero: true }, 2),
        (b'0', Some(b'2')) => (Part::Day { pad: Pad::Zero }, 2),
        (b'0', Some(b'3')) => (Part::Hour12 { zero: true }, 2),
        (b'0', Some(b'4')) => (Part::Minute { zero: true }, 2),
        (b'0', Some(b'5')) => (Part::Second { zero: true }, 2),
        (b'0', Some(b'6')) => (Part::Year, 2),
        (b'0', _) if text.starts_with(b"002") => (Part::YearDay { zero: true }, 3),
        (b'1', Some(b'5')) => (Part::Hour, 2),
        (b'1', _) => (Part::MonthNumber { zero: false }, 1),
        (b'2', _) if text.starts_with(b"2006") => (Part::LongYear, 4),
        (b'2', _) => (Part::Day { pad: Pad::None }, 1),
        (b'_', Some(b'2')) if !text.starts_with(b"_2006") => (Part::Day { pad: Pad::Blank }, 2),
        (b'_', _) if text.starts_with(b"__2") => (Part::YearDay { zero: false }, 3),
        (b'3', _) => (Part::Hour12 { zero: false }, 1),
        (b'4', _) => (Part::Minute { zero: false }, 1),
        (b'5', _) => (Part::Second { zero: false }, 1),
        (b'P', Some(b'M')) => (Part::Half { upper: true }, 2),
        (b'p', Some(b'm')) => (Part::Half { upper: false }, 2),
        (b'-' | b'Z', _) => {
            let (name, offset) = OFFSETS.iter().find(|(name, _)| text.starts_with(name))?;
            (Part::Offset(*offset), name.len())
        }
        (separator @ (b'.' | b','), Some(digit @ (b'0' | b'9'))) => {
            let digits = from(text, 1).iter().take_while(|byte| **byte == digit).count();
            if get(text, digits + 1).is_some_and(|byte| byte.is_ascii_digit()) {
                return None;
            }
            let zeros = digit == b'0';
            (
                Part::Fraction {
                    digits,
                    separator,
                    zeros,
                },
                digits + 1,
            )
        }
        _ => return None,
    };
    Some(found)
}

/// What stands before the next part, the part, and what follows. Without a part all of it stands before.
fn next(layout: &[u8]) -> (&[u8], Option<Part>, &[u8]) {
    for at in 0..layout.len() {
        let (before, text) = layout.split_at(at);
        // `_2006` is an underscore and a year.
        if let Some((part, length)) = part(text) {
            return (before, Some(part), from(text, length));
        }
    }
    (layout, None, &[])
}

/// Go's `Time.Format`.
#[must_use]
pub fn format(time: &Time, mut layout: &[u8]) -> Vec<u8> {
    let (offset, name) = time.offset();
    let civil = time.civil();
    let mut out = Vec::with_capacity(layout.len() + 10);
    while !layout.is_empty() {
        let (before, part, rest) = next(layout);
        out.extend_from_slice(before);
        if let Some(part) = part {
            write(&mut out, part, &civil, time.nanos, offset, &name);
        }
        layout = rest;
    }
    out
}

/// Go's `Time.String`.
#[must_use]
pub fn text(time: &Time) -> Vec<u8> {
    format(time, b"2006-01-02 15:04:05.999999999 -0700 MST")
}

fn number(out: &mut Vec<u8>, number: i64, width: usize) {
    let sign = if number < 0 { "-" } else { "" };
    out.extend(format!("{sign}{:0width$}", number.unsigned_abs()).bytes());
}

fn name(of: &'static [&'static str], index: usize, long: bool) -> &'static str {
    let name = of.get(index).copied().unwrap_or_default();
    if long { name } else { name.get(..3).unwrap_or(name) }
}

fn write(out: &mut Vec<u8>, part: Part, civil: &Civil, nanos: u32, offset: i64, zone: &str) {
    let width = |zero: bool| if zero { 2 } else { 0 };
    match part {
        Part::Month { long } => {
            out.extend(
                name(
                    &MONTHS,
                    usize::try_from(civil.month - 1).unwrap_or_default(),
                    long,
                )
                .bytes(),
            );
        }
        Part::Weekday { long } => out.extend(name(&WEEKDAYS, civil.weekday(), long).bytes()),
        Part::MonthNumber { zero } => number(out, civil.month, width(zero)),
        Part::Day { pad } => {
            if pad == Pad::Blank && civil.day < 10 {
                out.push(b' ');
            }
            number(out, civil.day, width(pad == Pad::Zero));
        }
        Part::YearDay { zero: true } => number(out, civil.year_day(), 3),
        Part::YearDay { zero: false } => out.extend(format!("{:3}", civil.year_day()).bytes()),
        Part::Hour => number(out, civil.hour, 2),
        Part::Hour12 { zero } => number(out, (civil.hour + 11) % 12 + 1, width(zero)),
        Part::Minute { zero } => number(out, civil.minute, width(zero)),
        Part::Second { zero } => number(out, civil.second, width(zero)),
        Part::Year => number(out, civil.year.abs() % 100, 2),
        Part::LongYear => number(out, civil.year, 4),
        Part::Half { upper } => out.extend_from_slice(match (upper, civil.hour >= 12) {
            (true, true) => b"PM",
            (true, false) => b"AM",
            (false, true) => b"pm",
            (false, false) => b"am",
        }),
        Part::ZoneName if zone.is_empty() => {
            write_offset(out, self::offset(false, false, true, false), offset)
        }
        Part::ZoneName => out.extend(zone.bytes()),
        Part::Offset(how) if how.z && offset == 0 => out.push(b'Z'),
        Part::Offset(how) => write_offset(out, how, offset),
        Part::Fraction {
            digits,
            separator,
            zeros,
        } => write_fraction(out, nanos, digits, separator, zeros),
    }
}

fn write_offset(out: &mut Vec<u8>, how: Offset, offset: i64) {
    // Like Go, an offset of less than a minute has no minus.
    out.push(if offset / 60 < 0 { b'-' } else { b'+' });
    let size = if offset / 60 < 0 { -offset } else { offset };
    number(out, size / 3600, 2);
    for (wanted, value) in [(how.minutes, size / 60 % 60), (how.seconds, size % 60)] {
        if wanted {
            if how.colon {
                out.push(b':');
            }
            number(out, value, 2);
        }
    }
}

fn write_fraction(out: &mut Vec<u8>, nanos: u32, digits: usize, separator: u8, zeros: bool) {
    if !zeros && nanos == 0 {
        return;
    }
    let text = format!("{nanos:09}");
    let mut text = text.get(..digits.min(9)).unwrap_or_default();
    if !zeros {
        text = text.trim_end_matches('0');
        if text.is_empty() {
            return;
        }
    }
    out.push(separator);
    out.extend(text.bytes());
}
