//! Go's `time.Time` and the text of `time.Duration`, as far as templates can reach them.
//!
//! jiff gives the time zones. Its own points in time end in the year 9999 and begin in the year -9999,
//! and its zones cannot carry the names that Go makes up while it reads a date.

use jiff::tz::TimeZone;

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
    /// One of the bundled zones, by its name.
    Named(String, TimeZone),
}
