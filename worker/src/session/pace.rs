//! How many tasks a worker takes ahead of its free slots: as many as its slots end while two messages and their answers are under way.
//!
//! A slot that becomes free would wait for an exchange before it has another task. Where tasks are short, or the coordinator is far
//! away, that is much of the slot's time. Tasks that end during one exchange are replaced by the next exchange, so the worker needs
//! enough tasks for two. A worker asks for tasks ahead only in a message that reports ended tasks. A worker that waits for work asks
//! for none: another worker may have a free slot for a task that becomes ready meanwhile.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// How many of the last tasks are looked at; all of them must have been short.
const REMEMBERED: usize = 8;
/// The most tasks that are taken ahead.
const MAX_AHEAD: usize = 32;
/// The least part of its time that a slot must wait for the coordinator for a task to be taken ahead.
const MIN_IDLE: f64 = 1.0 / 16.0;
/// The longest time that an exchange counts as, so that no task is taken ahead while tasks take a second.
const LONGEST_EXCHANGE: Duration = Duration::from_millis(60);
/// A task that has waited for so long is given back: the tasks before it are no longer short.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What is known of the speed of tasks and of the coordinator.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The time from a message to its answer, of the last answer that the coordinator did not hold.
    exchange: Duration,
    /// How long the last tasks were in their slots, the newest last.
    tasks: VecDeque<Duration>,
}

impl Pace {
    /// An answer came that the coordinator had not held.
    pub(super) fn exchanged(&mut self, took: Duration) {
        self.exchange = took.min(LONGEST_EXCHANGE);
    }

    /// A task has succeeded.
    pub(super) fn succeeded(&mut self, took: Duration) {
        if self.tasks.len() == REMEMBERED {
            self.tasks.pop_front();
        }
        self.tasks.push_back(took);
    }

    /// Tasks took longer than they used to.
    pub(super) fn has_slowed(&mut self) {
        self.tasks.clear();
    }

    /// How many tasks a worker with so many slots takes ahead.
    pub(super) fn ahead(&self, slots: usize) -> usize {
        let longest = self.tasks.iter().max().filter(|_| self.tasks.len() == REMEMBERED);
        let Some(longest) = longest else { return 0 };
        // Tasks that one slot ends during an exchange.
        let ended = self.exchange.as_secs_f64() / longest.as_secs_f64().max(1e-9);
        if ended < MIN_IDLE {
            return 0;
        }
        ((2.0 * slots as f64 * ended).ceil() as usize).min(MAX_AHEAD)
    }
}

/// When a task that `began` to wait at this moment is given back.
pub(super) fn end_of_wait(began: Instant) -> Instant {
    began + LONGEST_WAIT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(exchange_ms: u64, task_ms: u64) -> Pace {
        let mut pace = Pace::default();
        pace.exchanged(Duration::from_millis(exchange_ms));
        for _ in 0..REMEMBERED {
            pace.succeeded(Duration::from_millis(task_ms));
        }
        pace
    }

    #[test]
    fn as_many_are_taken_ahead_as_end_during_two_exchanges() {
        for (slots, exchange_ms, task_ms, ahead) in [
            (1, 3, 60, 0),
            (1, 3, 40, 1),
            (1, 30, 20, 3),
            (2, 30, 20, 6),
            (4, 30, 60, 4),
            (4, 30, 0, MAX_AHEAD),
            (0, 30, 0, 0),
            (4, 60_000, 1_000, 0),
        ] {
            let case = format!("{slots} slots, an exchange of {exchange_ms} ms, tasks of {task_ms} ms");
            assert_eq!(pace(exchange_ms, task_ms).ahead(slots), ahead, "{case}");
        }
    }

    #[test]
    fn one_long_task_among_the_last_is_enough_to_take_none_ahead() {
        let mut pace = pace(30, 20);
        assert_eq!(pace.ahead(2), 6);
        pace.succeeded(Duration::from_secs(60));
        assert_eq!(pace.ahead(2), 0);
        for _ in 0..REMEMBERED {
            pace.succeeded(Duration::from_millis(20));
        }
        assert_eq!(pace.ahead(2), 6);
    }

    #[test]
    fn a_new_worker_and_one_that_has_slowed_take_none_ahead() {
        let mut pace = pace(30, 10);
        pace.has_slowed();
        pace.succeeded(Duration::from_millis(10));
        assert_eq!((pace.ahead(2), Pace::default().ahead(2)), (0, 0));
    }
}
