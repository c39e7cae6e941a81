//! The durable events of one attempt, numbered and kept until the coordinator has them.

use std::collections::VecDeque;

use sortinghat_proto::{limits, v1};
use v1::{AttemptEvent, LogLine, Notice, NoticeLevel, attempt_event::Event};

/// Events in one message, so that it stays below the limit of a message.
const EVENTS_PER_MESSAGE: usize = 256;
/// How many lines of the log are recorded as they come. The coordinator keeps a quarter of an attempt's events for lines, and a part
/// of this quarter is left for the last lines.
const MAX_LINES_AS_THEY_COME: u64 = limits::MAX_EVENTS_PER_ATTEMPT / 4 - limits::MAX_LOG_TAIL_LINES as u64;

/// Events that were not acknowledged yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    /// The number of the newest event.
    sequence: u64,
    /// Events that count against the limit of an attempt: all but checkpoints, which replace each other.
    recorded: u64,
    log_lines: u64,
    dropped: u64,
    tail: LogTail,
    pending: VecDeque<AttemptEvent>,
}

/// The last lines of a log that is longer than what is recorded as it comes: the last lines explain a crash.
#[derive(Debug, Default)]
struct LogTail {
    lines: VecDeque<LogLine>,
    bytes: usize,
}

impl LogTail {
    /// Adds a line; returns how many of the oldest lines were dropped for it.
    fn push(&mut self, line: LogLine) -> u64 {
        self.bytes += line.text.len();
        self.lines.push_back(line);
        let mut dropped = 0;
        while self.lines.len() > limits::MAX_LOG_TAIL_LINES || self.bytes > limits::MAX_LOG_TAIL_BYTES {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.text.len());
            dropped += 1;
        }
        dropped
    }
}

impl EventLog {
    pub(super) fn push(&mut self, event: Event) {
        match event {
            Event::Log(line) if self.log_lines >= MAX_LINES_AS_THEY_COME => self.dropped += self.tail.push(line),
            Event::Log(line) => {
                self.log_lines += 1;
                self.append_counted(Event::Log(line));
            }
            Event::Checkpoint(object) => self.append(Event::Checkpoint(object)),
            event => self.append_counted(event),
        }
    }

    /// Is called when no event follows: appends the last lines, and a notice if lines before them were dropped.
    pub(super) fn close(&mut self) {
        if self.dropped > 0 {
            let message = format!("{} lines of the log before the last ones were not kept", self.dropped);
            self.append(Event::Notice(Notice { level: NoticeLevel::Info.into(), message }));
        }
        for line in std::mem::take(&mut self.tail).lines {
            self.append(Event::Log(line));
        }
    }

    /// Appends an event, or drops it at the limit of an attempt. Room is left for the last lines and for the notice about dropped ones.
    fn append_counted(&mut self, event: Event) {
        if self.recorded + limits::MAX_LOG_TAIL_LINES as u64 + 1 >= limits::MAX_EVENTS_PER_ATTEMPT {
            self.dropped += 1;
            return;
        }
        self.recorded += 1;
        self.append(event);
    }

    fn append(&mut self, event: Event) {
        self.sequence += 1;
        self.pending.push_back(AttemptEvent { sequence: self.sequence, event: Some(event) });
    }

    /// Events up to this sequence are durable.
    pub(super) fn acknowledge(&mut self, sequence: u64) {
        while self.pending.front().is_some_and(|event| event.sequence <= sequence) {
            self.pending.pop_front();
        }
    }

    /// The next events to report, and whether they are all that there are.
    pub(super) fn next(&self) -> (Vec<AttemptEvent>, bool) {
        let next = self.pending.iter().take(EVENTS_PER_MESSAGE).cloned().collect();
        (next, self.pending.len() <= EVENTS_PER_MESSAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sortinghat_proto::v1::{EpochMetrics, ObjectRef};

    fn line() -> Event {
        Event::Log(LogLine { text: "line".into() })
    }

    #[test]
    fn of_a_flood_of_lines_the_first_and_the_last_are_kept_and_the_rest_is_counted() {
        let mut log = EventLog::default();
        (0..20_000).for_each(|number| log.push(Event::Log(LogLine { text: format!("line {number}") })));
        log.push(Event::EpochFinished(EpochMetrics::default()));
        log.close();
        let [.., epoch, notice, tail] = [102, 101, 100].map(|from_end| log.pending.len() - from_end);
        assert!(matches!(log.pending[epoch].event, Some(Event::EpochFinished(_))), "the table has its place");
        let text = |index: usize| match &log.pending[index].event {
            Some(Event::Log(line)) => line.text.clone(),
            Some(Event::Notice(notice)) => notice.message.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(text(MAX_LINES_AS_THEY_COME as usize - 1), "line 2399");
        assert!(text(notice).starts_with("17500 lines"), "{}", text(notice));
        assert_eq!((text(tail), text(log.pending.len() - 1)), ("line 19900".into(), "line 19999".into()));
    }

    #[test]
    fn long_lines_shorten_the_tail() {
        let mut tail = LogTail::default();
        let dropped: u64 = (0..100).map(|_| tail.push(LogLine { text: "x".repeat(4096) })).sum();
        assert_eq!((tail.lines.len() as u64, dropped), (8, 92));
    }

    #[test]
    fn checkpoints_of_a_long_training_do_not_count_against_the_limit() {
        let mut log = EventLog::default();
        for _ in 0..limits::MAX_EVENTS_PER_ATTEMPT * 2 {
            log.push(Event::Checkpoint(ObjectRef::default()));
        }
        assert_eq!((log.pending.len() as u64, log.dropped), (limits::MAX_EVENTS_PER_ATTEMPT * 2, 0));
    }

    #[test]
    fn events_are_reported_in_order_until_they_are_acknowledged() {
        let mut log = EventLog::default();
        (0..300).for_each(|_| log.push(line()));
        let (first, complete) = log.next();
        assert_eq!((first[0].sequence, first.len(), complete), (1, 256, false));
        log.acknowledge(256);
        let (rest, complete) = log.next();
        assert_eq!((rest[0].sequence, rest.len(), complete), (257, 44, true));
        log.acknowledge(7);
        assert_eq!(log.next().0.len(), 44, "an old acknowledgement changes nothing");
    }
}
