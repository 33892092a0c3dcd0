//! Go's `time.Time` and `time.Duration`, as far as templates can reach them.
//!
//! jiff gives the time zones. Its own points in time end with the year 9999, and its zones cannot carry the
//! names that Go makes up while it reads a date. What Go calls the local zone is UTC here, as in ESO's image.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

/// Seconds of a day.
const DAY: i64 = 86_400;
/// Seconds of 400 years.
const ERA: i64 = 146_097 * DAY;
/// 0001-01-01 00:00:00 UTC, which is Go's zero time.
const ZERO: i64 = -62_135_596_800;

/// The names of the months.
pub const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// The names of the days of the week.
pub const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// A point in time and the zone in which it is shown.
#[derive(Clone)]
pub struct Time {
    /// Seconds since 1970.
    pub unix: i64,
    /// Nanoseconds of the second.
    pub nanos: u32,
    /// Where its date and hour are read.
    pub zone: Zone,
}

/// A time zone.
#[derive(Clone)]
pub enum Zone {
    /// UTC, which also is the local zone.
    Utc,
    /// An offset in seconds, and the name that came with it; it may be empty.
    Fixed(i32, String),
    /// One of the bundled zones.
    Named(TimeZone),
}

/// A date and an hour in some zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// The year; 0 is before 1.
    pub year: i64,
    /// From 1.
    pub month: i64,
    /// Of the month, from 1.
    pub day: i64,
    /// From 0 to 23.
    pub hour: i64,
    /// From 0 to 59.
    pub minute: i64,
    /// From 0 to 59.
    pub second: i64,
}

/// Days from 1970-01-01 to a date. The day may lie outside of its month.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // The year begins in March, so that the leap day is its last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Whether a year has a 29 February.
#[must_use]
pub fn leap(year: i64) -> bool {
    year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
}

/// The number of days of a month, which is counted from 1.
#[must_use]
pub fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl Civil {
    fn of(seconds: i64) -> Self {
        let (days, of_day) = (seconds.div_euclid(DAY) + 719_468, seconds.rem_euclid(DAY));
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: of_year - (153 * shifted + 2) / 5 + 1,
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
        }
    }

    /// Seconds from 1970 to this, if it is in UTC. A day or an hour outside of its range counts on.
    #[must_use]
    pub fn unix(&self) -> i64 {
        days(self.year, self.month, self.day) * DAY + self.hour * 3600 + self.minute * 60 + self.second
    }

    /// The day of the year, from 1.
    #[must_use]
    pub fn year_day(&self) -> i64 {
        days(self.year, self.month, self.day) - days(self.year, 1, 1) + 1
    }

    /// The day of the week; Sunday is 0.
    #[must_use]
    pub fn weekday(&self) -> usize {
        usize::try_from((days(self.year, self.month, self.day) + 4).rem_euclid(7)).unwrap_or_default()
    }
}

impl Zone {
    /// The zone of this name, as Go's `LoadLocation` finds it.
    #[must_use]
    pub fn load(name: &[u8]) -> Option<Self> {
        static BUNDLED: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);
        if matches!(name, b"" | b"UTC" | b"Local") {
            return Some(Self::Utc);
        }
        let zone = BUNDLED.get(str::from_utf8(name).ok()?).ok()?;
        // Go finds names as files: case matters.
        (zone.iana_name()?.as_bytes() == name).then_some(Self::Named(zone))
    }

    /// What `Location` prints.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Utc => "UTC",
            Self::Fixed(_, name) => name,
            Self::Named(zone) => zone.iana_name().unwrap_or_default(),
        }
    }

    /// The offset in seconds and the abbreviation at a time.
    fn at(&self, unix: i64) -> (i64, String) {
        match self {
            Self::Utc => (0, "UTC".into()),
            Self::Fixed(offset, name) => (i64::from(*offset), name.clone()),
            Self::Named(zone) => {
                // jiff's time ends with the year 9999; the rules of the calendar repeat every 400 years.
                let over = unix.saturating_sub(Timestamp::MAX.as_second()).max(0);
                let unix = unix - over.div_euclid(ERA) * ERA - if over > 0 { ERA } else { 0 };
                let unix = unix.max(Timestamp::MIN.as_second());
                let info = zone.to_offset_info(Timestamp::from_second(unix).unwrap_or_default());
                (i64::from(info.offset().seconds()), info.abbreviation().into())
            }
        }
    }
}

impl Time {
    /// The time now.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            unix: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: since.subsec_nanos(),
            zone: Zone::Utc,
        }
    }

    /// A number of seconds since 1970.
    #[must_use]
    pub fn from_unix(unix: i64) -> Self {
        Self {
            unix,
            nanos: 0,
            zone: Zone::Utc,
        }
    }

    /// Go's zero time.
    #[must_use]
    pub fn zero() -> Self {
        Self::from_unix(ZERO)
    }

    /// Whether it is Go's zero time.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.unix == ZERO && self.nanos == 0
    }

    /// The same time in another zone.
    #[must_use]
    pub fn in_zone(&self, zone: Zone) -> Self {
        Self { zone, ..self.clone() }
    }

    /// A time so many nanoseconds later.
    #[must_use]
    pub fn plus(&self, nanos: i64) -> Self {
        let sum = i64::from(self.nanos) + nanos % 1_000_000_000;
        Self {
            unix: self
                .unix
                .saturating_add(nanos / 1_000_000_000)
                .saturating_add(sum.div_euclid(1_000_000_000)),
            nanos: u32::try_from(sum.rem_euclid(1_000_000_000)).unwrap_or_default(),
            zone: self.zone.clone(),
        }
    }

    /// Nanoseconds from another time to this one, at most what an `int64` holds.
    #[must_use]
    pub fn since(&self, other: &Self) -> i64 {
        let seconds = i128::from(self.unix) - i128::from(other.unix);
        let nanos = seconds * 1_000_000_000 + i128::from(self.nanos) - i128::from(other.nanos);
        i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
    }

    /// The offset from UTC in seconds and the abbreviation of the zone.
    #[must_use]
    pub fn offset(&self) -> (i64, String) {
        self.zone.at(self.unix)
    }

    /// Its date and hour.
    #[must_use]
    pub fn civil(&self) -> Civil {
        Civil::of(self.unix.saturating_add(self.offset().0))
    }

    /// A later date at the same hour. As in Go, days that a month lacks run into the next.
    #[must_use]
    pub fn add_date(&self, years: i64, months: i64, days: i64) -> Self {
        // Nobody needs more; it keeps the sums below within an i64.
        let bound = |number: i64| number.clamp(-1_000_000_000, 1_000_000_000);
        let civil = self.civil();
        let month = civil.month - 1 + bound(months);
        let moved = Civil {
            year: civil.year + bound(years) + month.div_euclid(12),
            month: month.rem_euclid(12) + 1,
            day: civil.day + bound(days),
            ..civil
        };
        Self {
            unix: self.zone.unix(moved.unix()),
            ..self.clone()
        }
    }
}

impl Zone {
    /// Seconds since 1970 of a date and hour that was counted as if it were in UTC.
    fn unix(&self, local: i64) -> i64 {
        // The offset before a change of the clock is tried first, then the one that holds there.
        let guess = local.saturating_sub(self.at(local).0);
        local.saturating_sub(self.at(guess).0)
    }
}

/// What `%v` prints of a `time.Duration` of so many nanoseconds.
#[must_use]
pub fn duration_text(nanos: i64) -> String {
    let size = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    if size < 1_000_000_000 {
        return match size {
            0 => "0s".into(),
            1..1_000 => format!("{sign}{size}ns"),
            1_000..1_000_000 => format!("{sign}{}µs", fraction(size, 1_000)),
            _ => format!("{sign}{}ms", fraction(size, 1_000_000)),
        };
    }
    let minutes = size / 60_000_000_000;
    let seconds = fraction(size % 60_000_000_000, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
        (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

/// A number of units, of which one is so large, without zeros at its end.
fn fraction(size: u64, unit: u64) -> String {
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", size / unit, size % unit);
    text.trim_end_matches('0').trim_end_matches('.').into()
}

/// Go's `time.ParseDuration`, in nanoseconds.
#[must_use]
pub fn parse_duration(text: &[u8]) -> Option<i64> {
    const LIMIT: u64 = 1 << 63;
    let (negative, mut rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if rest == b"0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let whole = digits(rest);
        rest = rest.get(whole.len()..)?;
        let part = match rest.strip_prefix(b".") {
            Some(after) => digits(after),
            None => &[],
        };
        if whole.is_empty() && part.is_empty() {
            return None;
        }
        if rest.starts_with(b".") {
            rest = rest.get(part.len() + 1..)?;
        }
        let length = rest
            .iter()
            .take_while(|byte| !matches!(byte, b'.' | b'0'..=b'9'))
            .count();
        let (name, after) = rest.split_at_checked(length)?;
        rest = after;
        let unit = unit(name)?;
        let mut number = whole.iter().try_fold(0_u64, |sum, digit| {
            sum.checked_mul(10)?
                .checked_add(u64::from(digit - b'0'))
                .filter(|sum| *sum <= LIMIT)
        })?;
        if number > LIMIT / unit {
            return None;
        }
        number *= unit;
        number = number
            .checked_add(fraction_of(part, unit))
            .filter(|number| *number <= LIMIT)?;
        total = total.checked_add(number).filter(|total| *total <= LIMIT)?;
    }
    match (negative, i64::try_from(total)) {
        (true, Ok(total)) => Some(-total),
        (true, Err(_)) => Some(i64::MIN),
        (false, total) => total.ok(),
    }
}

fn digits(text: &[u8]) -> &[u8] {
    text.get(..text.iter().take_while(|byte| byte.is_ascii_digit()).count())
        .unwrap_or_default()
}

/// Decimals as Go reads them: those that an `int64` holds, in floating point.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
fn fraction_of(decimals: &[u8], unit: u64) -> u64 {
    let (mut number, mut scale) = (0_u64, 1.0_f64);
    for digit in decimals {
        let Some(next) = number
            .checked_mul(10)
            .and_then(|n| n.checked_add(u64::from(digit - b'0')))
            .filter(|n| *n <= 1 << 63)
        else {
            break;
        };
        number = next;
        scale *= 10.0;
    }
    (number as f64 * (unit as f64 / scale)) as u64
}

fn unit(name: &[u8]) -> Option<u64> {
    Some(match name {
        b"ns" => 1,
        // Both signs for micro: U+00B5 and U+03BC.
        b"us" | b"\xc2\xb5s" | b"\xce\xbcs" => 1_000,
        b"ms" => 1_000_000,
        b"s" => 1_000_000_000,
        b"m" => 60_000_000_000,
        b"h" => 3_600_000_000_000,
        _ => return None,
    })
}
