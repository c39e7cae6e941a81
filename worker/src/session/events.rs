//! The durable events of one attempt, numbered and kept until the coordinator has them.

use std::collections::VecDeque;

use sortinghat_proto::{limits, v1};
use v1::{AttemptEvent, Notice, NoticeLevel, attempt_event::Event};

/// Events in one message, so that it stays below the limit of a message.
const EVENTS_PER_MESSAGE: usize = 256;
/// Lines of the log that one attempt may record.
const MAX_LOG_LINES: u64 = limits::MAX_EVENTS_PER_ATTEMPT / 4;

/// Events that were not acknowledged yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    recorded: u64,
    log_lines: u64,
    dropped: u64,
    pending: VecDeque<AttemptEvent>,
}

impl EventLog {
    pub(super) fn push(&mut self, event: Event) {
        let is_line = matches!(event, Event::Log(_));
        // One place is kept for saying that something was dropped.
        if self.recorded + 1 >= limits::MAX_EVENTS_PER_ATTEMPT || is_line && self.log_lines >= MAX_LOG_LINES {
            self.dropped += 1;
            return;
        }
        self.log_lines += u64::from(is_line);
        self.append(event);
    }

    /// No event follows; says so if some were dropped.
    pub(super) fn close(&mut self) {
        if self.dropped > 0 {
            let message = format!("{} further lines of the log were not kept", self.dropped);
            self.append(Event::Notice(Notice { level: NoticeLevel::Info.into(), message }));
        }
    }

    fn append(&mut self, event: Event) {
        self.recorded += 1;
        self.pending.push_back(AttemptEvent { sequence: self.recorded, event: Some(event) });
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
    use sortinghat_proto::v1::{EpochMetrics, LogLine};

    fn line() -> Event {
        Event::Log(LogLine { text: "line".into() })
    }

    #[test]
    fn a_flood_of_log_lines_leaves_room_for_the_training_table_and_is_counted() {
        let mut log = EventLog::default();
        (0..limits::MAX_EVENTS_PER_ATTEMPT * 2).for_each(|_| log.push(line()));
        log.push(Event::EpochFinished(EpochMetrics::default()));
        log.close();
        assert_eq!(log.recorded, MAX_LOG_LINES + 2);
        let last = log.pending.back().unwrap().event.clone();
        assert!(matches!(last, Some(Event::Notice(notice)) if notice.message.starts_with("17500 ")));
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
