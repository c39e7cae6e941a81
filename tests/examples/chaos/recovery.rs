//! How long recoveries took.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// Samples in milliseconds, by measurement.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Recovery {
    /// From a worker's death to a new attempt at the task that it ran.
    pub(crate) worker_death_to_running: Samples,
    /// From SIGTERM to the end of a worker that may run a task.
    pub(crate) busy_worker_sigterm_to_end: Samples,
    /// From SIGTERM to the end of a worker that runs nothing.
    pub(crate) idle_worker_sigterm_to_end: Samples,
    /// From a coordinator's start to its first answer.
    pub(crate) coordinator_start_to_serving: Samples,
    /// From a coordinator's start to its first answer, while a backlog waits.
    pub(crate) coordinator_start_beside_backlog: Samples,
    /// From Redis's start to the next start of a task.
    pub(crate) redis_start_to_dispatching: Samples,
    /// From the end of an outage to the last event at a client that was watching all the time.
    pub(crate) outage_end_to_watch_resumed: Samples,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:40} samples   p50 ms   p99 ms   max ms", "recovery (promised p99)")?;
        let measured = [
            ("worker death to running again (4000)", &self.worker_death_to_running),
            ("SIGTERM to end, worker under load", &self.busy_worker_sigterm_to_end),
            ("SIGTERM to end, idle worker (1000)", &self.idle_worker_sigterm_to_end),
            ("coordinator start to serving (2000)", &self.coordinator_start_to_serving),
            ("the same beside the backlog (2000)", &self.coordinator_start_beside_backlog),
            ("Redis start to dispatching (3000)", &self.redis_start_to_dispatching),
            ("outage end to watch resumed (5000)", &self.outage_end_to_watch_resumed),
        ];
        let mut measured = measured.into_iter().filter(|(_, samples)| !samples.0.is_empty());
        measured.try_for_each(|(what, samples)| write!(f, "\n{what:40} {samples}"))
    }
}

/// Durations in milliseconds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Samples(Vec<u64>);

impl Samples {
    pub(crate) fn add(&mut self, duration: Duration) {
        self.add_ms(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    }

    pub(crate) fn add_ms(&mut self, ms: u64) {
        self.0.push(ms);
    }

    /// The smallest sample that `percent` of all samples do not exceed. There is at least one sample.
    fn quantile(&self, percent: usize) -> u64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, max] = [50, 99, 100].map(|percent| self.quantile(percent));
        write!(f, "{:7} {p50:8} {p99:8} {max:8}", self.0.len())
    }
}
