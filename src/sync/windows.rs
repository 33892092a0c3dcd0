//! `spec.syncWindows`: when a periodic refresh may happen. Pure: the clock is handed in.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::cron::Schedule;
use super::plan::Refusal;
use crate::api::duration::GoDuration;
use crate::api::external_secret::{SyncWindow, SyncWindowKind, SyncWindows};

/// The windows of an ExternalSecret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    kind: SyncWindowKind,
    windows: Vec<Window>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    schedule: Schedule,
    duration: Duration,
}

/// When a refresh may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Now.
    Now,
    /// Not before this time; then it has to be asked again.
    At(Timestamp),
    /// Not in the years that can be foreseen.
    Never,
}

impl Windows {
    /// Reads the windows. Unlike ESO, which takes a schedule that it cannot read for one that never fires.
    ///
    /// # Errors
    /// If a schedule or a duration cannot be read; the field is named.
    pub fn parse(windows: &SyncWindows) -> Result<Self, Refusal> {
        let read = |(position, window): (usize, &SyncWindow)| {
            let field = |name: &str| format!("spec.syncWindows.windows[{position}].{name}");
            let schedule = Schedule::parse(&window.schedule)
                .map_err(|error| Refusal::new(field("schedule"), error.to_string()))?;
            let duration = GoDuration::parse(&window.duration)
                .map_err(|error| Refusal::new(field("duration"), error.to_string()))?;
            let duration = duration.as_std().ok_or_else(|| {
                let problem = format!(
                    "is '{duration}', which opens nothing; write for example 2h",
                    duration = window.duration
                );
                Refusal::new(field("duration"), problem)
            })?;
            Ok(Window { schedule, duration })
        };
        Ok(Self {
            kind: windows.kind,
            windows: windows
                .windows
                .iter()
                .enumerate()
                .map(read)
                .collect::<Result<_, _>>()?,
        })
    }

    /// When a refresh that is due may happen. No windows at all forbid nothing, as in ESO.
    #[must_use]
    pub fn opening(&self, now: Timestamp) -> Opening {
        let open = self.windows.iter().filter_map(|window| window.open_until(now));
        match self.kind {
            SyncWindowKind::Allow if self.windows.is_empty() || open.clone().next().is_some() => Opening::Now,
            SyncWindowKind::Allow => {
                let next = self.windows.iter().filter_map(|window| window.schedule.next(now));
                next.min().map_or(Opening::Never, Opening::At)
            }
            // The end belongs to the window; another window may go on, so ask again then.
            SyncWindowKind::Deny => match open.max() {
                None => Opening::Now,
                Some(end) => end
                    .checked_add(Duration::from_secs(1))
                    .map_or(Opening::Never, Opening::At),
            },
        }
    }
}

impl Window {
    /// The end of the window, if it is open: both ends belong to it, as in ESO.
    fn open_until(&self, now: Timestamp) -> Option<Timestamp> {
        let begin = self.schedule.last(now)?;
        let end = begin.checked_add(self.duration).unwrap_or(Timestamp::MAX);
        (now <= end).then_some(end)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn windows(kind: SyncWindowKind, windows: &[(&str, &str)]) -> Result<Windows, Refusal> {
        Windows::parse(&SyncWindows {
            kind,
            windows: windows
                .iter()
                .map(|(schedule, duration)| SyncWindow {
                    schedule: (*schedule).into(),
                    duration: (*duration).into(),
                })
                .collect(),
        })
    }

    fn opening(kind: SyncWindowKind, of: &[(&str, &str)], now: &str) -> Opening {
        windows(kind, of).unwrap().opening(now.parse().unwrap())
    }

    fn at(time: &str) -> Opening {
        Opening::At(time.parse().unwrap())
    }

    const EVENING: (&str, &str) = ("0 22 * * *", "2h");

    #[test]
    fn both_ends_belong_to_a_window() {
        for (now, open) in [
            ("2026-06-01T21:00:00Z", false),
            ("2026-06-01T22:00:00Z", true),
            ("2026-06-01T22:30:00Z", true),
            ("2026-06-02T00:00:00Z", true),
            ("2026-06-02T00:00:01Z", false),
            ("2026-06-02T03:00:00Z", false),
            ("2026-06-02T22:30:00Z", true),
        ] {
            let allowed = opening(SyncWindowKind::Allow, &[EVENING], now);
            assert_eq!(allowed == Opening::Now, open, "{now}");
            let denied = opening(SyncWindowKind::Deny, &[EVENING], now);
            assert_eq!(denied == Opening::Now, !open, "{now}");
        }
    }

    #[test]
    fn what_is_kept_back_waits_for_the_edge_of_a_window() {
        let now = "2026-06-01T12:00:00Z";
        let earlier = ("30 13 * * *", "10m");
        assert_eq!(
            opening(SyncWindowKind::Allow, &[EVENING, earlier], now),
            at("2026-06-01T13:30:00Z")
        );
        let now = "2026-06-01T22:30:00Z";
        let longer = ("0 22 * * *", "3h");
        assert_eq!(
            opening(SyncWindowKind::Deny, &[longer, EVENING], now),
            at("2026-06-02T01:00:01Z")
        );
    }

    #[test]
    fn a_window_that_begins_again_before_it_ends_goes_on() {
        let now = "2026-06-01T12:00:30Z";
        assert_eq!(
            opening(SyncWindowKind::Deny, &[("* * * * *", "1h")], now),
            at("2026-06-01T13:00:01Z")
        );
    }

    #[test]
    fn one_open_window_is_enough() {
        let windows = [("0 3 * * *", "1h"), EVENING];
        assert_eq!(
            opening(SyncWindowKind::Allow, &windows, "2026-06-01T23:00:00Z"),
            Opening::Now
        );
        assert_eq!(
            opening(SyncWindowKind::Deny, &windows, "2026-06-01T23:00:00Z"),
            at("2026-06-02T00:00:01Z")
        );
    }

    #[test]
    fn no_windows_forbid_nothing_and_one_that_never_opens_allows_nothing() {
        let now = "2026-06-01T23:00:00Z";
        assert_eq!(opening(SyncWindowKind::Allow, &[], now), Opening::Now);
        assert_eq!(opening(SyncWindowKind::Deny, &[], now), Opening::Now);
        let never = [("0 0 30 2 *", "1h")];
        assert_eq!(opening(SyncWindowKind::Allow, &never, now), Opening::Never);
        assert_eq!(opening(SyncWindowKind::Deny, &never, now), Opening::Now);
        assert_eq!(
            opening(SyncWindowKind::Deny, &[("* * * * *", "2500000h")], now),
            at("2311-08-14T15:00:01Z")
        );
    }

    #[test]
    fn a_window_that_cannot_be_read_is_refused_by_name() {
        for (window, field) in [
            (("not-a-cron", "1h"), "spec.syncWindows.windows[1].schedule"),
            (("0 22 * * *", "soon"), "spec.syncWindows.windows[1].duration"),
            (("0 22 * * *", "0s"), "spec.syncWindows.windows[1].duration"),
            (("0 22 * * *", "-1h"), "spec.syncWindows.windows[1].duration"),
        ] {
            let refusal = windows(SyncWindowKind::Deny, &[EVENING, window]).unwrap_err();
            assert_eq!(refusal.field, field);
        }
    }
}
