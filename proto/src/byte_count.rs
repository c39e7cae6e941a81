//! Numbers of bytes as people write them.

use std::{fmt, str::FromStr};

use crate::words;

/// A number of bytes, written plainly or with B, KiB, MiB, GiB, TiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteCount(pub u64);

/// Units, the largest first.
const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl FromStr for ByteCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = UNITS
            .into_iter()
            .find_map(|(suffix, bytes)| Some((text.strip_suffix(suffix)?, bytes)))
            .unwrap_or((text, 1));
        let count = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        count
            .map(Self)
            .ok_or_else(|| format!("{} is not a size: write 500MiB, 20GiB or a number of bytes", words::quoted(text)))
    }
}

/// Shows the number in the largest unit that gives a whole number. Nothing is rounded, so that the text reads back as the same number.
impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.into_iter().find(|(_, bytes)| self.0 > 0 && self.0.is_multiple_of(*bytes));
        let (unit, bytes) = whole.unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units_and_nonsense_is_refused() {
        for (text, bytes) in [("0", 0), ("512", 512), ("512B", 512), ("1KiB", 1024), ("20 GiB", 20 << 30)] {
            assert_eq!(text.parse(), Ok(ByteCount(bytes)), "{text}");
        }
        for text in ["", "GiB", "-1", "1.5GiB", "20GB", "99999999999TiB"] {
            assert!(text.parse::<ByteCount>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same_number() {
        for (bytes, shown) in [(0, "0B"), (1023, "1023B"), (20 << 30, "20GiB"), (3 << 19, "1536KiB"), (1 << 40, "1TiB")]
        {
            assert_eq!(ByteCount(bytes).to_string(), shown);
            assert_eq!(shown.parse(), Ok(ByteCount(bytes)));
        }
    }
}
