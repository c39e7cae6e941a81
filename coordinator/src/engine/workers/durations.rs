//! How long tasks take, as this process has measured it: for estimates, and lost with it.

use std::collections::HashMap;

use parking_lot::Mutex;
use sortinghat_proto::JobKind;

/// Share of the newest duration in the moving average.
const NEWEST: f64 = 0.2;

/// Exponential moving averages of the durations of attempts that succeeded, in milliseconds, by kind.
#[derive(Debug, Default)]
pub(crate) struct Durations(Mutex<HashMap<JobKind, f64>>);

impl Durations {
    /// An attempt succeeded after `ms`.
    pub(crate) fn note(&self, kind: JobKind, ms: u64) {
        let mut durations = self.0.lock();
        let average = durations.entry(kind).or_insert(ms as f64);
        *average += NEWEST * (ms as f64 - *average);
    }

    /// About how long a task of this kind takes, in milliseconds; `None` before the first one was measured.
    pub(crate) fn of(&self, kind: JobKind) -> Option<f64> {
        self.0.lock().get(&kind).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_follows_what_is_measured_and_kinds_are_apart() {
        let durations = Durations::default();
        assert_eq!(durations.of(JobKind::Ingest), None);
        durations.note(JobKind::Ingest, 1_000);
        assert_eq!(durations.of(JobKind::Ingest), Some(1_000.0));
        (0..50).for_each(|_| durations.note(JobKind::Ingest, 2_000));
        let average = durations.of(JobKind::Ingest).expect("measured");
        assert!((1_990.0..=2_000.0).contains(&average), "{average}");
        assert_eq!(durations.of(JobKind::Finetune), None);
    }
}
