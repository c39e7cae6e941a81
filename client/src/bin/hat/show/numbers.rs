//! Numbers for people.

use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use sortinghat_proto::words::{count, counted, percent};
use sortinghat_proto::{manifest::Interval, time::UnixMs};

/// "78.4 to 90.1%".
pub(crate) fn interval(interval: Interval) -> String {
    format!("{:.1} to {:.1}%", interval.low * 100.0, interval.high * 100.0)
}

/// A p-value as "p = 0.031" or "p < 0.001".
pub(crate) fn p_value(p: f64) -> String {
    if p < 0.001 { "p < 0.001".to_owned() } else { format!("p = {p:.3}") }
}

/// Bytes as "1.5 GiB".
pub(crate) fn bytes(number: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| number >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", number as f64 / unit as f64),
        None => format!("{number} bytes"),
    }
}

/// Milliseconds as "4.2 s", "3 min 5 s", "2 h 10 min".
pub(crate) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..=9 => format!("{:.1} s", ms as f64 / 1000.0),
        10..=59 => format!("{seconds} s"),
        60..=3599 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A time as "2026-11-23 23:14:05Z".
pub(crate) fn time(unix_ms: i64) -> String {
    sortinghat_proto::words::time(UnixMs(u64::try_from(unix_ms).unwrap_or_default()))
}

/// The time now, in milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "a time is shown beside the clock of the machine on which it is read")]
pub(crate) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    i64::try_from(now).unwrap_or(i64::MAX)
}

/// How long ago a time was, in one unit: "4.2 s ago", "3 min ago", "2 h ago", "5 days ago".
pub(crate) fn ago(unix_ms: i64, now_unix_ms: i64) -> String {
    let ms = u64::try_from(now_unix_ms.saturating_sub(unix_ms)).unwrap_or_default();
    let minutes = ms / 60_000;
    match minutes {
        0 => format!("{} ago", duration(ms)),
        1..=119 => format!("{minutes} min ago"),
        120..=2_879 => format!("{} h ago", minutes / 60),
        _ => format!("{} days ago", minutes / 1_440),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(interval(Interval::wilson(121, 142)), "78.4 to 90.1%");
        assert_eq!([p_value(0.0312), p_value(1e-9)], ["p = 0.031", "p < 0.001"]);
        assert_eq!([bytes(12), bytes(1536), bytes(3 << 29)], ["12 bytes", "1.5 KiB", "1.5 GiB"]);
        assert_eq!([duration(4_200), duration(185_000), duration(7_800_000)], ["4.2 s", "3 min 5 s", "2 h 10 min"]);
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
        assert_eq!([ago(1_000, 12_000), ago(2_000, 1_000)], ["11 s ago", "0.0 s ago"], "clocks may differ");
        let long = [185_000, 7_190_000, 7_800_000, 200_000_000].map(|ms| ago(0, ms));
        assert_eq!(long, ["3 min ago", "119 min ago", "2 h ago", "2 days ago"]);
    }
}
