//! Reads a date by its layout.

use super::super::time::{Civil, MONTHS, Time, WEEKDAYS, Zone, leap, month_days};
use super::{Offset, Pad, Part, from, get, name, next};

/// What has been read so far.
#[derive(Default)]
struct Read {
    year: i64,
    month: Option<i64>,
    day: Option<i64>,
    year_day: Option<i64>,
    hour: i64,
    minute: i64,
    second: i64,
    nanos: u32,
    /// Whether the first half of the day was given.
    am: bool,
    /// Whether the second half was given, which comes before the first.
    pm: bool,
    utc: bool,
    offset: Option<i64>,
    zone: Vec<u8>,
}

/// Go's `time.ParseInLocation` with UTC for the local zone.
#[must_use]
pub fn parse(mut layout: &[u8], mut text: &[u8]) -> Option<Time> {
    let mut read = Read::default();
    loop {
        let (before, part, rest) = next(layout);
        text = skip(text, before)?;
        let Some(part) = part else {
            return if text.is_empty() { read.finish() } else { None };
        };
        layout = rest;
        text = read.part(part, layout, text)?;
    }
}

/// Passes over what has to stand there; a run of blanks matches any run of blanks.
fn skip<'a>(mut text: &'a [u8], mut wanted: &[u8]) -> Option<&'a [u8]> {
    let blanks = |text: &[u8]| text.iter().take_while(|byte| **byte == b' ').count();
    while let Some(first) = wanted.first() {
        if *first == b' ' {
            if text.first().is_some_and(|byte| *byte != b' ') {
                return None;
            }
            wanted = from(wanted, blanks(wanted));
            text = from(text, blanks(text));
        } else {
            text = text.strip_prefix(&[*first])?;
            wanted = from(wanted, 1);
        }
    }
    Some(text)
}

/// A number of one or two digits.
fn two(text: &[u8], fixed: bool) -> Option<(i64, &[u8])> {
    let digit = |at| {
        get(text, at)
            .filter(u8::is_ascii_digit)
            .map(|byte| i64::from(byte - b'0'))
    };
    match (digit(0)?, digit(1)) {
        (first, Some(second)) => Some((first * 10 + second, from(text, 2))),
        (_, None) if fixed => None,
        (first, None) => Some((first, from(text, 1))),
    }
}

fn within(range: std::ops::Range<i64>, (number, rest): (i64, &[u8])) -> Option<(i64, &[u8])> {
    range.contains(&number).then_some((number, rest))
}

/// A number of so many bytes, of which the first may be a sign.
fn signed(text: &[u8]) -> Option<i64> {
    str::from_utf8(text).ok()?.parse().ok()
}

fn lookup<'a>(names: &'static [&'static str], long: bool, text: &'a [u8]) -> Option<(i64, &'a [u8])> {
    (0_i64..).zip(0..names.len()).find_map(|(number, index)| {
        let name = name(names, index, long);
        let (head, rest) = text.split_at_checked(name.len())?;
        head.eq_ignore_ascii_case(name.as_bytes())
            .then_some((number, rest))
    })
}

impl Read {
    /// Reads a part; what follows it in the layout decides whether a second may have a fraction.
    fn part<'a>(&mut self, part: Part, layout: &[u8], text: &'a [u8]) -> Option<&'a [u8]> {
        let rest;
        match part {
            Part::Year => {
                let (digits, after) = text.split_at_checked(2)?;
                let year = signed(digits)?;
                self.year = year + if year >= 69 { 1900 } else { 2000 };
                rest = after;
            }
            Part::LongYear => {
                let (digits, after) = text.split_at_checked(4)?;
                self.year = signed(digits).filter(|_| digits.first().is_some_and(u8::is_ascii_digit))?;
                rest = after;
            }
            Part::Month { long } => {
                let (index, after) = lookup(&MONTHS, long, text)?;
                (self.month, rest) = (Some(index + 1), after);
            }
            Part::MonthNumber { zero } => {
                let (month, after) = within(1..13, two(text, zero)?)?;
                (self.month, rest) = (Some(month), after);
            }
            Part::Weekday { long } => rest = lookup(&WEEKDAYS, long, text)?.1,
            Part::Day { pad } => {
                let text = if pad == Pad::Blank {
                    text.strip_prefix(b" ").unwrap_or(text)
                } else {
                    text
                };
                let (day, after) = two(text, pad == Pad::Zero)?;
                (self.day, rest) = (Some(day), after);
            }
            Part::YearDay { zero } => {
                let (day, after) = three(text, zero)?;
                (self.year_day, rest) = (Some(day), after);
            }
            Part::Hour => (self.hour, rest) = within(0..24, two(text, false)?)?,
            Part::Hour12 { zero } => (self.hour, rest) = within(0..13, two(text, zero)?)?,
            Part::Minute { zero } => (self.minute, rest) = within(0..60, two(text, zero)?)?,
            Part::Second { zero } => {
                let after;
                (self.second, after) = within(0..60, two(text, zero)?)?;
                rest = self.unasked_fraction(layout, after)?;
            }
            Part::Half { upper } => {
                let (half, after) = text.split_at_checked(2)?;
                match (half, upper) {
                    (b"PM", true) | (b"pm", false) => self.pm = true,
                    (b"AM", true) | (b"am", false) => self.am = true,
                    _ => return None,
                }
                rest = after;
            }
            Part::ZoneName => rest = self.zone_name(text)?,
            Part::Offset(how) => rest = self.offset(how, text)?,
            Part::Fraction { digits, zeros, .. } => rest = self.fraction(digits, zeros, text)?,
        }
        Some(rest)
    }

    /// A fraction of the second is read even where the layout has none.
    fn unasked_fraction<'a>(&mut self, layout: &[u8], text: &'a [u8]) -> Option<&'a [u8]> {
        let asked = matches!(next(layout).1, Some(Part::Fraction { .. }));
        if asked || !matches!(text, [b'.' | b',', b'0'..=b'9', ..]) {
            return Some(text);
        }
        self.fraction(0, false, text)
    }

    fn fraction<'a>(&mut self, digits: usize, zeros: bool, text: &'a [u8]) -> Option<&'a [u8]> {
        let length = if zeros {
            digits
        } else if matches!(text, [b'.' | b',', b'0'..=b'9', ..]) {
            from(text, 1)
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count()
        } else {
            return Some(text);
        };
        let (separator, after) = text.split_first()?;
        let (decimals, rest) = after.split_at_checked(length)?;
        if !matches!(separator, b'.' | b',') || !decimals.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let nine = decimals.iter().copied().chain(std::iter::repeat(b'0')).take(9);
        self.nanos = nine.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
        Some(rest)
    }

    fn offset<'a>(&mut self, how: Offset, text: &'a [u8]) -> Option<&'a [u8]> {
        if how.z
            && let Some(rest) = text.strip_prefix(b"Z")
        {
            self.utc = true;
            return Some(rest);
        }
        let (sign, mut rest) = text.split_first()?;
        let mut total = 0;
        // Go lets 24 hours and 60 minutes or seconds pass.
        for (wanted, first, unit, most) in [
            (true, true, 3600, 25),
            (how.minutes, false, 60, 61),
            (how.seconds, false, 1, 61),
        ] {
            if wanted {
                if how.colon && !first {
                    rest = rest.strip_prefix(b":")?;
                }
                let (number, after) = within(0..most, two(rest, true)?)?;
                total += number * unit;
                rest = after;
            }
        }
        self.offset = Some(match sign {
            b'+' => total,
            b'-' => -total,
            _ => return None,
        });
        Some(rest)
    }

    fn zone_name<'a>(&mut self, text: &'a [u8]) -> Option<&'a [u8]> {
        if let Some(rest) = text.strip_prefix(b"UTC") {
            self.utc = true;
            return Some(rest);
        }
        let (name, rest) = text.split_at_checked(zone_length(text)?)?;
        self.zone = name.to_vec();
        Some(rest)
    }

    fn finish(mut self) -> Option<Time> {
        if self.pm && self.hour < 12 {
            self.hour += 12;
        } else if self.am && self.hour == 12 {
            self.hour = 0;
        }
        if let Some(day) = self.year_day {
            let (month, day) = of_year_day(self.year, day)?;
            if self.month.is_some_and(|seen| seen != month) || self.day.is_some_and(|seen| seen != day) {
                return None;
            }
            (self.month, self.day) = (Some(month), Some(day));
        }
        let (month, day) = (self.month.unwrap_or(1), self.day.unwrap_or(1));
        if !(1..=month_days(self.year, month)).contains(&day) {
            return None;
        }
        let civil = Civil {
            year: self.year,
            month,
            day,
            hour: self.hour,
            minute: self.minute,
            second: self.second,
        };
        let name = String::from_utf8_lossy(&self.zone).into_owned();
        let (unix, zone) = match self.offset {
            _ if self.utc => (civil.unix(), Zone::Utc),
            Some(0) if name.is_empty() => (civil.unix(), Zone::Utc),
            Some(offset) => (
                civil.unix() - offset,
                Zone::Fixed(i32::try_from(offset).unwrap_or_default(), name),
            ),
            None if name.is_empty() => (civil.unix(), Zone::Utc),
            // Go knows the offset of no name but GMT with a number, and does not apply even that one.
            None => (civil.unix(), Zone::Fixed(gmt_offset(&self.zone), name)),
        };
        Some(Time {
            unix,
            nanos: self.nanos,
            zone,
        })
    }
}

fn gmt_offset(zone: &[u8]) -> i32 {
    let hours = zone.strip_prefix(b"GMT").and_then(signed).unwrap_or_default();
    i32::try_from(hours * 3600).unwrap_or_default()
}

fn three(text: &[u8], fixed: bool) -> Option<(i64, &[u8])> {
    let text = if fixed {
        text
    } else {
        let text = text.strip_prefix(b" ").unwrap_or(text);
        text.strip_prefix(b" ").unwrap_or(text)
    };
    let length = text
        .iter()
        .take(3)
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (digits, rest) = text.split_at_checked(length)?;
    if digits.is_empty() || (fixed && length != 3) {
        return None;
    }
    Some((signed(digits)?, rest))
}

fn of_year_day(year: i64, mut day: i64) -> Option<(i64, i64)> {
    if !(1..=if leap(year) { 366 } else { 365 }).contains(&day) {
        return None;
    }
    for month in 1..=12 {
        let length = month_days(year, month);
        if day <= length {
            return Some((month, day));
        }
        day -= length;
    }
    None
}

/// The length of the zone's name that a text begins with.
fn zone_length(text: &[u8]) -> Option<usize> {
    if text.len() < 3 {
        return None;
    }
    if text.starts_with(b"ChST") || text.starts_with(b"MeST") {
        return Some(4);
    }
    if let Some(rest) = text.strip_prefix(b"GMT") {
        return Some(3 + hours_length(rest));
    }
    if matches!(text, [b'+' | b'-', ..]) {
        return Some(hours_length(text)).filter(|length| *length > 0);
    }
    match text
        .iter()
        .take(6)
        .take_while(|byte| byte.is_ascii_uppercase())
        .count()
    {
        5 if get(text, 4) == Some(b'T') => Some(5),
        4 if get(text, 3) == Some(b'T') || text.starts_with(b"WITA") => Some(4),
        3 => Some(3),
        _ => None,
    }
}

/// The length of a sign and up to 23 hours; 0 if there are none.
fn hours_length(text: &[u8]) -> usize {
    let [b'+' | b'-', rest @ ..] = text else {
        return 0;
    };
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match rest.get(..length).and_then(signed) {
        Some(0..=23) => length + 1,
        _ => 0,
    }
}
