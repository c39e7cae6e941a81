//! The most probable class of a row, and a test of whether two models differ by more than chance.

/// Two-sided exact McNemar p-value from the photos that only one of two models got right.
///
/// Twice the binomial tail at the smaller count, at most 1; 1 when they never differ.
#[must_use]
pub fn mcnemar_exact(only_first: u64, only_second: u64) -> f64 {
    let (smaller, total) = (only_first.min(only_second), only_first + only_second);
    // Each term is binom(total, k) / 2^total; in logarithms, so that no photo count overflows.
    let mut log_term = -(total as f64) * std::f64::consts::LN_2;
    let mut tail = log_term.exp();
    for k in 0..smaller {
        log_term += ((total - k) as f64).ln() - ((k + 1) as f64).ln();
        tail += log_term.exp();
    }
    (2.0 * tail).min(1.0)
}

/// Index of the largest value, the first among equals; 0 for an empty row.
#[must_use]
pub fn argmax(row: &[f32]) -> usize {
    let best = row.iter().enumerate().fold(
        (0, f32::NEG_INFINITY),
        |best, (i, &value)| {
            if value > best.1 { (i, value) } else { best }
        },
    );
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() <= tolerance, "{found}, expected {expected}");
    }

    #[test]
    fn the_p_value_agrees_with_exact_binomial_tails() {
        near(mcnemar_exact(0, 8), 2.0 / 256.0, 1e-15);
        near(mcnemar_exact(3, 9), 2.0 * 299.0 / 4096.0, 1e-12);
        assert_eq!(mcnemar_exact(5, 5), 1.0);
        assert_eq!(mcnemar_exact(0, 0), 1.0);
        assert_eq!(mcnemar_exact(2, 9), mcnemar_exact(9, 2));
        assert!(mcnemar_exact(0, 5000) < 1e-300);
    }

    #[test]
    fn the_first_of_equal_probabilities_wins() {
        assert_eq!(argmax(&[0.2, 0.4, 0.4]), 1);
        assert_eq!(argmax(&[]), 0);
    }
}
