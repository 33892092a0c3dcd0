//! Cron schedules as `robfig/cron` reads them, which ESO uses: five fields, names of months and weekdays, `@daily`
//! and its kin, `@every 1h`. Times are UTC.

use std::ops::RangeInclusive;

use k8s_openapi::jiff::{Span, Timestamp, civil::Date, tz::TimeZone};

use crate::api::duration::GoDuration;

/// `0 0 29 2 *` fires at most this seldom: there is no 29 February in 2100.
const DAYS_MAX: i64 = 366 * 9;
const MINUTES_A_DAY: i64 = 24 * 60;
const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// When something fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At every multiple of so many seconds since 1970. (In ESO such a schedule has no fixed times, and a window
    /// shorter than the delay is never open.)
    Every(i64),
    /// At these minutes.
    Fields(Fields),
}

/// The five fields, as sets of bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Day of month and day of week are both restricted: then one of them is enough.
    either_day: bool,
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is {schedule:?}, which is no cron schedule: {problem}; write five fields such as \"0 22 * * 1-5\" (UTC), @hourly, \
     @daily, @weekly, @monthly, @yearly or @every 12h"
)]
pub struct CronError {
    schedule: String,
    problem: String,
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        Self::read(text).map_err(|problem| CronError {
            schedule: text.into(),
            problem,
        })
    }

    fn read(text: &str) -> Result<Self, String> {
        if let Some(delay) = text.strip_prefix("@every ") {
            let delay = GoDuration::parse(delay.trim()).map_err(|error| error.to_string())?;
            let delay = delay.as_std().ok_or("the duration must be longer than zero")?;
            return Ok(Self::Every(
                i64::try_from(delay.as_secs().max(1)).unwrap_or(i64::MAX),
            ));
        }
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            fields => fields,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!("it has {} fields", fields.len()));
        };
        let (days, any_day) = field(days, 1..=31, &[])?;
        let (weekdays, any_weekday) = field(weekdays, 0..=6, WEEKDAYS)?;
        Ok(Self::Fields(Fields {
            minutes: field(minutes, 0..=59, &[])?.0,
            hours: field(hours, 0..=23, &[])?.0,
            days,
            months: field(months, 1..=12, MONTHS)?.0,
            weekdays,
            either_day: !any_day && !any_weekday,
        }))
    }

    /// The first time after this one.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(delay) => {
                let last = after.as_second().div_euclid(*delay).checked_mul(*delay)?;
                Timestamp::from_second(last.checked_add(*delay)?).ok()
            }
            Self::Fields(fields) => {
                let minute = after.as_second().div_euclid(60) + 1;
                let mut from = minute.rem_euclid(MINUTES_A_DAY);
                let mut date = date_of(minute)?;
                let last = date.checked_add(Span::new().days(DAYS_MAX)).ok()?;
                while date < last {
                    if fields.on(date)
                        && let Some(minute) = (from..MINUTES_A_DAY).find(|minute| fields.at(*minute))
                    {
                        return time_of(date, minute);
                    }
                    from = 0;
                    // Months that are not meant are passed over whole.
                    let end = if fields.in_month(date) {
                        date
                    } else {
                        date.last_of_month()
                    };
                    date = end.tomorrow().ok()?;
                }
                None
            }
        }
    }

    /// The last time that is not after this one.
    #[must_use]
    pub fn last(&self, until: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(delay) => {
                let last = until.as_second().div_euclid(*delay).checked_mul(*delay)?;
                Timestamp::from_second(last).ok()
            }
            Self::Fields(fields) => {
                let minute = until.as_second().div_euclid(60);
                let mut to = minute.rem_euclid(MINUTES_A_DAY);
                let mut date = date_of(minute)?;
                let first = date.checked_sub(Span::new().days(DAYS_MAX)).ok()?;
                while date > first {
                    if fields.on(date)
                        && let Some(minute) = (0..=to).rev().find(|minute| fields.at(*minute))
                    {
                        return time_of(date, minute);
                    }
                    to = MINUTES_A_DAY - 1;
                    let begin = if fields.in_month(date) {
                        date
                    } else {
                        date.first_of_month()
                    };
                    date = begin.yesterday().ok()?;
                }
                None
            }
        }
    }
}

fn date_of(minute: i64) -> Option<Date> {
    let time = Timestamp::from_second(minute.checked_mul(60)?).ok()?;
    Some(time.to_zoned(TimeZone::UTC).date())
}

fn time_of(date: Date, minute: i64) -> Option<Timestamp> {
    let midnight = date.to_zoned(TimeZone::UTC).ok()?.timestamp();
    Timestamp::from_second(midnight.as_second() + minute * 60).ok()
}

impl Fields {
    fn on(&self, date: Date) -> bool {
        let day = has(self.days, i64::from(date.day()));
        let weekday = has(self.weekdays, i64::from(date.weekday().to_sunday_zero_offset()));
        let right_day = if self.either_day {
            day || weekday
        } else {
            day && weekday
        };
        right_day && self.in_month(date)
    }

    fn in_month(&self, date: Date) -> bool {
        has(self.months, i64::from(date.month()))
    }

    fn at(&self, minute_of_day: i64) -> bool {
        has(self.hours, minute_of_day / 60) && has(self.minutes, minute_of_day % 60)
    }
}

fn has(set: u64, number: i64) -> bool {
    set >> number & 1 == 1
}

/// A field as a set, and whether it leaves everything open.
fn field(text: &str, bounds: RangeInclusive<u32>, names: &[&str]) -> Result<(u64, bool), String> {
    let (mut set, mut any) = (0, false);
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(number(step, names)?)),
            None => (part, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if matches!(range, "*" | "?") => (*bounds.start(), *bounds.end()),
            Some((first, last)) => (
                named(first, names, *bounds.start())?,
                named(last, names, *bounds.start())?,
            ),
            None => {
                let first = named(range, names, *bounds.start())?;
                // `5/15` means from 5 to the end.
                (first, if step.is_some() { *bounds.end() } else { first })
            }
        };
        any |= matches!(range, "*" | "?") && step.is_none_or(|step| step == 1);
        if !bounds.contains(&first) || !bounds.contains(&last) || first > last || step == Some(0) {
            return Err(format!(
                "{part:?} is no range with a step within {} to {}",
                bounds.start(),
                bounds.end()
            ));
        }
        let step = usize::try_from(step.unwrap_or(1)).unwrap_or(usize::MAX);
        for value in (first..=last).step_by(step) {
            set |= 1 << value;
        }
    }
    Ok((set, any))
}

/// A number, or one of the names.
fn named(text: &str, names: &[&str], first: u32) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    match names.iter().zip(first..).find(|(name, _)| **name == lower) {
        Some((_, value)) => Ok(value),
        None => number(text, names),
    }
}

fn number(text: &str, names: &[&str]) -> Result<u32, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.ok_or_else(|| {
        let or = if names.is_empty() {
            ""
        } else {
            " or a name such as "
        };
        format!("{text:?} is not a number{or}{}", names.first().unwrap_or(&""))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn around(schedule: &str, time: &str) -> (String, String) {
        let schedule = Schedule::parse(schedule).unwrap();
        let show = |time: Option<Timestamp>| time.unwrap().to_string();
        (show(schedule.last(at(time))), show(schedule.next(at(time))))
    }

    #[test]
    fn schedules_fire_when_cron_does() {
        // 1 June 2026 is a Monday.
        for (schedule, time, last, next) in [
            (
                "0 22 * * *",
                "2026-06-01T22:00:00Z",
                "2026-06-01T22:00:00Z",
                "2026-06-02T22:00:00Z",
            ),
            (
                "0 22 * * *",
                "2026-06-01T21:59:59Z",
                "2026-05-31T22:00:00Z",
                "2026-06-01T22:00:00Z",
            ),
            (
                "*/15 9-17 * * MON-FRI",
                "2026-06-06T12:00:00Z",
                "2026-06-05T17:45:00Z",
                "2026-06-08T09:00:00Z",
            ),
            (
                "5/20 * * * *",
                "2026-06-01T00:50:00Z",
                "2026-06-01T00:45:00Z",
                "2026-06-01T01:05:00Z",
            ),
            (
                "0 0 13 * 5",
                "2026-06-01T00:00:00Z",
                "2026-05-29T00:00:00Z",
                "2026-06-05T00:00:00Z",
            ),
            (
                "0 0 13 * */2",
                "2026-06-12T12:00:00Z",
                "2026-06-11T00:00:00Z",
                "2026-06-13T00:00:00Z",
            ),
            (
                "0 0 1 jan,JUL ?",
                "2026-06-01T00:00:00Z",
                "2026-01-01T00:00:00Z",
                "2026-07-01T00:00:00Z",
            ),
            (
                "0 0 29 2 *",
                "2026-06-01T00:00:00Z",
                "2024-02-29T00:00:00Z",
                "2028-02-29T00:00:00Z",
            ),
            (
                "@weekly",
                "2026-06-01T00:00:00Z",
                "2026-05-31T00:00:00Z",
                "2026-06-07T00:00:00Z",
            ),
            (
                "@midnight",
                "2026-06-01T00:00:00Z",
                "2026-06-01T00:00:00Z",
                "2026-06-02T00:00:00Z",
            ),
            (
                "@annually",
                "2026-06-01T00:00:00Z",
                "2026-01-01T00:00:00Z",
                "2027-01-01T00:00:00Z",
            ),
            (
                "@monthly",
                "2026-06-01T00:00:00Z",
                "2026-06-01T00:00:00Z",
                "2026-07-01T00:00:00Z",
            ),
            (
                "@hourly",
                "2026-06-01T00:00:01Z",
                "2026-06-01T00:00:00Z",
                "2026-06-01T01:00:00Z",
            ),
            (
                "@every 12h",
                "2026-06-01T13:00:00Z",
                "2026-06-01T12:00:00Z",
                "2026-06-02T00:00:00Z",
            ),
        ] {
            let (is_last, is_next) = around(schedule, time);
            assert_eq!(
                (is_last.as_str(), is_next.as_str()),
                (last, next),
                "{schedule} at {time}"
            );
        }
    }

    #[test]
    fn a_day_that_no_month_has_never_fires() {
        let schedule = Schedule::parse("0 0 30 2 *").unwrap();
        assert_eq!(schedule.next(at("2026-06-01T00:00:00Z")), None);
        assert_eq!(schedule.last(at("2026-06-01T00:00:00Z")), None);
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_the_part_that_is_wrong() {
        for (schedule, part) in [
            ("not-a-cron", "1 fields"),
            ("0 0 * * * *", "6 fields"),
            ("60 * * * *", "\"60\""),
            ("* * * * 7", "\"7\""),
            ("* * 0 * *", "\"0\""),
            ("5-1 * * * *", "\"5-1\""),
            ("*/0 * * * *", "\"*/0\""),
            ("a * * * *", "\"a\""),
            ("1,,2 * * * *", "\"\""),
            ("+1 * * * *", "\"+1\""),
            ("99999999999 * * * *", "not a number"),
            ("@noon", "1 fields"),
            ("@every soon", "not a duration"),
            ("@every -1h", "longer than zero"),
        ] {
            let error = Schedule::parse(schedule).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-*/?,@a-z0-9 ]{0,24}", second in -100_000_000_000i64..200_000_000_000) {
            let now = Timestamp::from_second(second).unwrap();
            if let Ok(schedule) = Schedule::parse(&text) {
                prop_assert!(schedule.last(now).is_none_or(|last| last <= now));
                prop_assert!(schedule.next(now).is_none_or(|next| next > now));
            }
        }

        #[test]
        fn the_last_time_before_the_next_is_the_last_until_now(minute in 0u32..60, step in 1u32..30, second in 0i64..4_000_000_000) {
            let schedule = Schedule::parse(&format!("{minute}-59/{step} */5 * * *")).unwrap();
            let now = Timestamp::from_second(second).unwrap();
            let next = schedule.next(now).unwrap();
            let before = Timestamp::from_second(next.as_second() - 1).unwrap();
            prop_assert_eq!(schedule.last(before), schedule.last(now));
        }
    }
}
