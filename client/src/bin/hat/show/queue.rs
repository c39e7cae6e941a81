//! A tenant's queue in lines.

use sortinghat_proto::{v1::Queue, words::job_state};

use super::numbers::{ago, count, time};

/// Whether jobs start, how many there are in each state, and how long the oldest has waited. `resume` is the command that lets jobs start.
pub(crate) fn lines(queue: &Queue, resume: &str, now_unix_ms: i64) -> Vec<String> {
    let mut lines = vec![match queue.paused_since_unix_ms {
        0 => "open: jobs start as soon as workers are free".to_owned(),
        since => format!("paused since {}: no job starts until `{resume}`", time(since)),
    }];
    lines.extend(queue.counts.iter().map(|c| format!("{:<10} {}", job_state(c.state()), count(c.jobs))));
    if queue.oldest_queued_unix_ms != 0 {
        lines.push(format!("the oldest queued job was submitted {}", ago(queue.oldest_queued_unix_ms, now_unix_ms)));
    }
    if queue.cancellations > 0 {
        lines.push("jobs are being cancelled".to_owned());
    }
    lines
}
