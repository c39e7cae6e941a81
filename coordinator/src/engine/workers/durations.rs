//! How long tasks take, as this process has measured it. Estimates use it. It is lost when the process ends.

use std::collections::HashMap;

use parking_lot::Mutex;
use sortinghat_proto::JobKind;

/// The weight of the newest duration in the moving average.
const NEWEST: f64 = 0.2;

/// The exponential moving average of the durations of successful attempts for each kind, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Durations(Mutex<HashMap<JobKind, f64>>);

impl Durations {
    /// Notes that an attempt has succeeded after `ms` milliseconds.
    pub(crate) fn note(&self, kind: JobKind, ms: u64) {
        let mut durations = self.0.lock();
        let average = durations.entry(kind).or_insert(ms as f64);
        *average += NEWEST * (ms as f64 - *average);
    }

    /// The average duration of tasks of this kind, in milliseconds; `None` if none was measured yet.
    pub(crate) fn of(&self, kind: JobKind) -> Option<f64> {
        self.0.lock().get(&kind).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_the_measurements_and_each_kind_has_its_own() {
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
