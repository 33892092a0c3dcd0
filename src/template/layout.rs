//! Go's layouts of dates: the reference time `Mon Jan 2 15:04:05 MST 2006`, written and read.

use super::time::{Civil, MONTHS, Time, WEEKDAYS, Zone, leap, month_days};

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
        Part::Year => number(out, civil.year.max(0) % 100, 2),
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
    /// Whether the half of the day was given, and is the second.
    half: Option<bool>,
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
                self.half = Some(match (half, upper) {
                    (b"PM", true) | (b"pm", false) => true,
                    (b"AM", true) | (b"am", false) => false,
                    _ => return None,
                });
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
        match self.half {
            Some(true) if self.hour < 12 => self.hour += 12,
            Some(false) if self.hour == 12 => self.hour = 0,
            _ => {}
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
