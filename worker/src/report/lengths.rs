//! Lengths in styles and drawings.

/// A length with two digits, in whatever unit the style or drawing has.
pub(super) fn length(value: f64) -> String {
    format!("{value:.2}")
}
