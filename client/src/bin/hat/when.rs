//! Points in time, as people write them.

use std::{
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sortinghat_proto::time::UnixMs;

/// A point in time, written as such or as a duration from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) UnixMs);

/// A point in time, written as such or as how long ago it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Past(pub(crate) UnixMs);

/// A duration of at least a millisecond, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) u64);

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let ms = humantime::parse_duration(text).ok().and_then(|span| u64::try_from(span.as_millis()).ok());
        ms.filter(|ms| *ms > 0).map(Self).ok_or_else(|| "write a duration: 12h, 7days".to_owned())
    }
}

impl FromStr for Moment {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, |duration| wall_clock().checked_add(duration)).map(Self)
    }
}

impl FromStr for Past {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, |duration| wall_clock().checked_sub(duration)).map(Self)
    }
}

#[expect(clippy::disallowed_methods, reason = "a user's durations begin at the time of the user's own clock")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Parses a time, or a duration, which `moved` turns into a time.
fn parse(text: &str, moved: impl FnOnce(Duration) -> Option<SystemTime>) -> Result<UnixMs, String> {
    let time = match humantime::parse_duration(text) {
        Ok(duration) => moved(duration),
        Err(_) => humantime::parse_rfc3339_weak(text).ok(),
    };
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let ms = since.and_then(|since| u64::try_from(since.as_millis()).ok());
    ms.map(UnixMs).ok_or_else(|| "write a time in UTC, 2026-11-30T08:00:00Z, or a duration, 2h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_such_or_as_how_far_it_is_from_now() {
        let noon = UNIX_EPOCH + Duration::from_secs(12 * 3_600);
        let later = |text: &str| parse(text, |duration| noon.checked_add(duration));
        let earlier = |text: &str| parse(text, |duration| noon.checked_sub(duration));
        assert_eq!(later("2026-11-30T08:00:00Z"), Ok(UnixMs(1_796_025_600_000)));
        assert_eq!(earlier("2026-11-30 08:00:00"), later("2026-11-30T08:00:00Z"));
        assert_eq!((later("2h"), earlier("2h")), (Ok(UnixMs(14 * 3_600_000)), Ok(UnixMs(10 * 3_600_000))));
        for nonsense in ["", "soon", "08:00", "-2h", "2026-13-01T00:00:00Z"] {
            assert!(later(nonsense).is_err_and(|message| message.contains("2h")), "{nonsense}");
        }
        assert!(earlier("13h").is_err(), "before 1970");
        assert_eq!("7d".parse(), Ok(Span(7 * 24 * 3_600_000)));
        assert!("0s".parse::<Span>().is_err() && "7".parse::<Span>().is_err());
    }
}
