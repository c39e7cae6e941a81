//! Numbers for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sortinghat_proto::manifest::Interval;

/// Two-sided 95% quantile of the normal distribution.
const Z_95: f64 = 1.959_963_984_540_054;

/// 0.852 as "85.2%".
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// "78.4 to 90.1%".
pub(crate) fn interval(interval: Interval) -> String {
    format!("{:.1} to {:.1}%", interval.low * 100.0, interval.high * 100.0)
}

/// The 95% Wilson score interval of `correct` of `photos` (Wilson 1927).
pub(crate) fn wilson(correct: u64, photos: u64) -> Interval {
    if photos == 0 {
        return Interval { low: 0.0, high: 1.0 };
    }
    let n = photos as f64;
    let share = correct as f64 / n;
    let centre = share + Z_95 * Z_95 / (2.0 * n);
    let spread = Z_95 * (share * (1.0 - share) / n + Z_95 * Z_95 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z_95 * Z_95 / n;
    Interval { low: ((centre - spread) / scale).max(0.0), high: ((centre + spread) / scale).min(1.0) }
}

/// 12345 as "12,345".
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// "1 photo", "2 photos", "1,000 classes".
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
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
    let since = Duration::from_secs(u64::try_from(unix_ms).unwrap_or_default() / 1000);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string().replace('T', " ")
}

/// How long ago a time was: "4.2 s ago".
pub(crate) fn ago(unix_ms: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let then = u128::try_from(unix_ms).unwrap_or_default();
    format!("{} ago", duration(u64::try_from(now.saturating_sub(then)).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_gives_the_published_interval_and_stays_within_0_and_1() {
        // 81 of 263, the example of Newcombe 1998, table I: 0.2553 to 0.3662.
        let example = wilson(81, 263);
        assert!((example.low - 0.2553).abs() < 5e-5 && (example.high - 0.3662).abs() < 5e-5, "{example:?}");
        assert_eq!((wilson(0, 20).low, wilson(20, 20).high), (0.0, 1.0));
        assert_eq!(interval(wilson(121, 142)), "78.4 to 90.1%");
    }

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!([count(7), count(999), count(1000), count(1_234_567)], ["7", "999", "1,000", "1,234,567"]);
        assert_eq!([counted(1, "photo", "photos"), counted(2000, "photo", "photos")], ["1 photo", "2,000 photos"]);
        assert_eq!([p_value(0.0312), p_value(1e-9)], ["p = 0.031", "p < 0.001"]);
        assert_eq!([bytes(12), bytes(1536), bytes(3 << 29)], ["12 bytes", "1.5 KiB", "1.5 GiB"]);
        assert_eq!([duration(4_200), duration(185_000), duration(7_800_000)], ["4.2 s", "3 min 5 s", "2 h 10 min"]);
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
    }
}
