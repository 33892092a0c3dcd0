//! Dates and durations.

use super::super::layout;
use super::super::limits::Limits;
use super::super::time::{MONTHS, Time, WEEKDAYS, Zone, duration_text, parse_duration};
use super::super::value::{IntKind, Value};
use super::{Answer, Fault, Func, Ty, bytes, func};
use std::rc::Rc;

/// The functions of this file.
pub const TABLE: &[Func] = &[
    func("ago", &[Ty::Any], ago),
    func("date", &[Ty::Text, Ty::Any], |limits, args| {
        show(limits, bytes_at(args, 0), args.get(1), b"Local")
    }),
    func("dateInZone", &[Ty::Text, Ty::Any, Ty::Text], date_in_zone),
    func("dateModify", &[Ty::Text, Ty::Time], modify),
    func("date_in_zone", &[Ty::Text, Ty::Any, Ty::Text], date_in_zone),
    func("date_modify", &[Ty::Text, Ty::Time], modify),
    func("duration", &[Ty::Any], duration),
    func("durationRound", &[Ty::Any], duration_round),
    func("htmlDate", &[Ty::Any], |limits, args| {
        show(limits, HTML, args.first(), b"Local")
    }),
    func("htmlDateInZone", &[Ty::Any, Ty::Text], |limits, args| {
        show(limits, HTML, args.first(), bytes_at(args, 1))
    }),
    func("mustDateModify", &[Ty::Text, Ty::Time], must_modify),
    func("mustToDate", &[Ty::Text, Ty::Text], must_to_date),
    func("must_date_modify", &[Ty::Text, Ty::Time], must_modify),
    func("now", &[], |_, _| Ok(value(Time::now()))),
    func("toDate", &[Ty::Text, Ty::Text], to_date),
    func("unixEpoch", &[Ty::Time], |_, args| {
        Ok(Value::text(time_at(args, 0).unix.to_string()))
    }),
];

const HTML: &[u8] = b"2006-01-02";
/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;

fn value(time: Time) -> Value {
    Value::Time(Rc::new(time))
}

fn bytes_at(args: &[Value], index: usize) -> &[u8] {
    args.get(index).map_or(&[], bytes)
}

fn time_at(args: &[Value], index: usize) -> Time {
    match args.get(index) {
        Some(Value::Time(time)) => time.as_ref().clone(),
        _ => Time::zero(),
    }
}

/// What sprig takes for a time; anything else is now.
fn moment(date: Option<&Value>) -> Time {
    match date {
        Some(Value::Time(time)) => time.as_ref().clone(),
        Some(Value::Int(IntKind::Int | IntKind::Int64 | IntKind::Int32, seconds)) => {
            Time::from_unix(*seconds)
        }
        _ => Time::now(),
    }
}

/// An unknown zone is UTC.
fn show(limits: &mut Limits, layout: &[u8], date: Option<&Value>, zone: &[u8]) -> Answer {
    // The longest part that a layout's byte can become is a weekday or an offset's sign and digits.
    limits.grow(layout.len().saturating_mul(6))?;
    let zone = Zone::load(zone).unwrap_or(Zone::Utc);
    Ok(Value::text(layout::format(&moment(date).in_zone(zone), layout)))
}

fn date_in_zone(limits: &mut Limits, args: &[Value]) -> Answer {
    show(limits, bytes_at(args, 0), args.get(1), bytes_at(args, 2))
}

fn modify(_: &mut Limits, args: &[Value]) -> Answer {
    let time = time_at(args, 1);
    Ok(value(
        parse_duration(bytes_at(args, 0)).map_or_else(|| time.clone(), |by| time.plus(by)),
    ))
}

fn must_modify(_: &mut Limits, args: &[Value]) -> Answer {
    let by = parse_duration(bytes_at(args, 0)).ok_or("the text is no duration such as 1h30m")?;
    Ok(value(time_at(args, 1).plus(by)))
}

fn to_date(_: &mut Limits, args: &[Value]) -> Answer {
    Ok(value(
        layout::parse(bytes_at(args, 0), bytes_at(args, 1)).unwrap_or_else(Time::zero),
    ))
}

fn must_to_date(_: &mut Limits, args: &[Value]) -> Answer {
    layout::parse(bytes_at(args, 0), bytes_at(args, 1))
        .map(value)
        .ok_or_else(|| "the text is no date of this layout".into())
}

/// Rounded to whole seconds, away from zero at the half.
fn ago(_: &mut Limits, args: &[Value]) -> Answer {
    let since = match args.first() {
        // `ago` does not know this one.
        Some(Value::Int(IntKind::Int32, _)) => 0,
        date => Time::now().since(&moment(date)),
    };
    Ok(Value::text(duration_text(round(since, SECOND))))
}

/// Go's `Duration.Round`.
fn round(nanos: i64, to: i64) -> i64 {
    if to <= 0 {
        return nanos;
    }
    let over = nanos % to;
    let down = nanos - over;
    if over.abs() < to - over.abs() {
        return down;
    }
    down.checked_add(if nanos < 0 { -to } else { to })
        .unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
}

/// Go's `strconv.ParseInt`, whose result sprig takes even where it fails: the nearest number or 0.
fn whole(text: &[u8]) -> i64 {
    let Ok(text) = str::from_utf8(text) else {
        return 0;
    };
    text.parse()
        .unwrap_or_else(|error: std::num::ParseIntError| match error.kind() {
            std::num::IntErrorKind::PosOverflow => i64::MAX,
            std::num::IntErrorKind::NegOverflow => i64::MIN,
            _ => 0,
        })
}

fn duration(_: &mut Limits, args: &[Value]) -> Answer {
    let seconds = match args.first() {
        Some(Value::Text(text)) => whole(text),
        Some(Value::Int(IntKind::Int64, seconds)) => *seconds,
        _ => 0,
    };
    // Go's product wraps around.
    Ok(Value::text(duration_text(seconds.wrapping_mul(SECOND))))
}

fn duration_round(_: &mut Limits, args: &[Value]) -> Answer {
    const UNITS: [(u64, &str); 6] = [
        (31_536_000, "y"),
        (2_592_000, "mo"),
        (86_400, "d"),
        (3_600, "h"),
        (60, "m"),
        (1, "s"),
    ];
    let nanos = match args.first() {
        Some(Value::Text(text)) => parse_duration(text).unwrap_or_default(),
        Some(Value::Int(IntKind::Int64, nanos)) => *nanos,
        Some(Value::Time(time)) => Time::now().since(time),
        _ => 0,
    }
    .unsigned_abs();
    let text = UNITS
        .iter()
        .map(|(seconds, name)| (seconds * 1_000_000_000, name))
        .find(|(unit, _)| nanos > *unit)
        .map_or_else(|| "0s".into(), |(unit, name)| format!("{}{name}", nanos / unit));
    Ok(Value::text(text))
}

/// Calls a method of `time.Time`; `None` if it has none of this name.
///
/// `Month` and `Weekday` give text, where Go gives a number that prints as this text.
///
/// # Errors
/// If the arguments are none that the method takes.
pub fn time_method(limits: &mut Limits, time: &Time, name: &str, args: &[Value]) -> Option<Answer> {
    let civil = time.civil();
    Some(match (name, args) {
        ("Year", []) => Ok(Value::int(civil.year)),
        ("Month", []) => Ok(named(
            &MONTHS,
            usize::try_from(civil.month - 1).unwrap_or_default(),
        )),
        ("Weekday", []) => Ok(named(&WEEKDAYS, civil.weekday())),
        ("Day", []) => Ok(Value::int(civil.day)),
        ("YearDay", []) => Ok(Value::int(civil.year_day())),
        ("Hour", []) => Ok(Value::int(civil.hour)),
        ("Minute", []) => Ok(Value::int(civil.minute)),
        ("Second", []) => Ok(Value::int(civil.second)),
        ("Nanosecond", []) => Ok(Value::int(i64::from(time.nanos))),
        ("Unix", []) => Ok(Value::int64(time.unix)),
        ("UnixMilli", []) => Ok(Value::int64(scaled(time, 1_000))),
        ("UnixMicro", []) => Ok(Value::int64(scaled(time, 1_000_000))),
        ("UnixNano", []) => Ok(Value::int64(scaled(time, SECOND))),
        ("IsZero", []) => Ok(Value::Bool(time.is_zero())),
        ("UTC" | "Local", []) => Ok(value(time.in_zone(Zone::Utc))),
        ("Location", []) => Ok(Value::text(time.zone.name())),
        ("String", []) => Ok(Value::text(layout::text(time))),
        ("Format", [Value::Text(layout)]) => limits
            .grow(layout.len().saturating_mul(6))
            .map(|()| Value::text(layout::format(time, layout))),
        (
            "AddDate",
            [
                Value::Int(IntKind::Int, y),
                Value::Int(IntKind::Int, m),
                Value::Int(IntKind::Int, d),
            ],
        ) => Ok(value(time.add_date(*y, *m, *d))),
        ("Add", [Value::Duration(by)]) => Ok(value(time.plus(*by))),
        ("Sub", [Value::Time(other)]) => Ok(Value::Duration(time.since(other))),
        ("After", [Value::Time(other)]) => Ok(Value::Bool(order(time) > order(other))),
        ("Before", [Value::Time(other)]) => Ok(Value::Bool(order(time) < order(other))),
        ("Equal", [Value::Time(other)]) => Ok(Value::Bool(order(time) == order(other))),
        ("Compare", [Value::Time(other)]) => Ok(Value::int(order(time).cmp(&order(other)) as i64)),
        (
            "Year" | "Month" | "Weekday" | "Day" | "YearDay" | "Hour" | "Minute" | "Second" | "Nanosecond"
            | "Unix" | "UnixMilli" | "UnixMicro" | "UnixNano" | "IsZero" | "UTC" | "Local" | "Location"
            | "String" | "Format" | "AddDate" | "Add" | "Sub" | "After" | "Before" | "Equal" | "Compare",
            _,
        ) => Err(Fault::from(format!(
            "wrong number or types of arguments for {name}"
        ))),
        _ => return None,
    })
}

fn order(time: &Time) -> (i64, u32) {
    (time.unix, time.nanos)
}

fn named(names: &'static [&'static str], index: usize) -> Value {
    Value::text(names.get(index).copied().unwrap_or_default())
}

/// Go's products and sums wrap around.
fn scaled(time: &Time, per_second: i64) -> i64 {
    time.unix
        .wrapping_mul(per_second)
        .wrapping_add(i64::from(time.nanos) / (SECOND / per_second))
}
