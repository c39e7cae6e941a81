//! Points in time as they travel and are stored: whole milliseconds.

use serde::{Deserialize, Serialize};

use crate::Refusal;

/// A point in time: milliseconds since 1970 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// The time that the wire's number means; `None` for 0, which stands for no time.
    ///
    /// # Errors
    /// A [`Refusal`] that names `field` if the number is negative.
    pub fn from_wire(unix_ms: i64, field: &str) -> Result<Option<Self>, Refusal> {
        match u64::try_from(unix_ms) {
            Ok(0) => Ok(None),
            Ok(unix_ms) => Ok(Some(Self(unix_ms))),
            Err(_) => Err(Refusal::invalid(field, format!("{field} is in milliseconds since 1970 UTC, not {unix_ms}"))),
        }
    }

    /// The wire's number; the largest one for a time that is too late for the wire.
    pub fn to_wire(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// The time that is `ms` milliseconds later.
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this time; 0 if `earlier` is in fact later.
    pub fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_travels_as_a_number_of_which_0_means_none_and_a_negative_one_is_refused() {
        assert_eq!(UnixMs::from_wire(0, "deadline_unix_ms"), Ok(None));
        assert_eq!(UnixMs::from_wire(7, "deadline_unix_ms"), Ok(Some(UnixMs(7))));
        let refusal = UnixMs::from_wire(-1, "deadline_unix_ms").expect_err("before 1970");
        assert_eq!(refusal.field, "deadline_unix_ms");
        assert_eq!(refusal.message, "deadline_unix_ms is in milliseconds since 1970 UTC, not -1");
        assert_eq!(UnixMs(u64::MAX).to_wire(), i64::MAX);
    }

    #[test]
    fn sums_and_differences_stop_at_their_bounds() {
        assert_eq!(UnixMs(5).plus_ms(3), UnixMs(8));
        assert_eq!(UnixMs(5).plus_ms(u64::MAX), UnixMs(u64::MAX));
        assert_eq!((UnixMs(8).ms_since(UnixMs(5)), UnixMs(5).ms_since(UnixMs(8))), (3, 0));
    }
}
