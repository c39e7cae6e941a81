//! A job's record and history after a change.

use bytes::Bytes;
use metrics::Counter;
use prost::Message as _;
use sortinghat_proto::{
    time::UnixMs,
    v1::{self, JobState, job_event},
};

use super::history;
use crate::{
    engine::records::{self, EventRecord, HistoryPage, JobRecord, Versioned, keys},
    store::{Batch, Expectation},
};

/// How many events a job's own record holds. These are all events of a job in which nothing unusual happens.
const MAX_RECENT_EVENTS: usize = 8;
/// How many bytes these events may have.
const MAX_RECENT_BYTES: usize = 4096;

/// A job with changes that are not committed yet.
pub(super) struct Ledger<'a> {
    before: &'a Versioned<JobRecord>,
    now: UnixMs,
    pub(crate) job: Box<JobRecord>,
    /// Counters to increment once the change is applied.
    counters: Vec<Counter>,
}

/// A job as a batch writes it.
pub(crate) struct Written {
    pub(crate) job: Box<JobRecord>,
    pub(crate) bytes: Bytes,
    /// Counters to increment once the change is applied.
    pub(crate) counters: Vec<Counter>,
}

impl<'a> Ledger<'a> {
    /// Begins with the job as it was read.
    pub(crate) fn new(before: &'a Versioned<JobRecord>, now: UnixMs) -> Self {
        Self { before, now, job: before.value.clone(), counters: Vec::new() }
    }

    /// Whether the job is still as it was read.
    pub(super) fn is_unchanged(&self) -> bool {
        self.job == self.before.value
    }

    /// Appends an event that happens now.
    pub(crate) fn record(&mut self, event: job_event::Event) {
        self.record_at(self.now.to_wire(), event);
    }

    /// Appends an event that happened at this time, in milliseconds since 1970 UTC.
    pub(super) fn record_at(&mut self, time_unix_ms: i64, event: job_event::Event) {
        history::enter(&mut self.job, &event);
        self.job.progress.last_event += 1;
        let event = v1::JobEvent { sequence: self.job.progress.last_event, time_unix_ms, event: Some(event) };
        self.job.progress.recent_events.push(EventRecord(event));
    }

    /// Appends the change of the job's state to the history, if the state differs from `was`. To be called after a change of anything that
    /// the state is derived from.
    pub(super) fn enter_state(&mut self, was: JobState) {
        let state = self.job.state();
        if state == was {
            return;
        }
        let (failure, output) = match state {
            JobState::Failed | JobState::Cancelled => (self.job.progress.failure.clone(), None),
            JobState::Succeeded => (None, self.job.progress.output.clone()),
            JobState::Unspecified | JobState::Blocked | JobState::Queued | JobState::Running => (None, None),
        };
        self.record(job_event::Event::StateChanged(v1::StateChanged { state: state.into(), failure, output }));
        if self.job.has_ended() {
            self.job.progress.finished = Some(self.now);
            let kind = self.job.kind.as_str();
            let counter =
                metrics::counter!("sortinghat_jobs_ended_total", "kind" => kind, "state" => state.as_str_name());
            self.counters.push(counter);
        }
    }

    /// Adds the job, its history and its index entries to a batch. The batch then applies only if the job is still as it was read.
    pub(super) fn write_to(mut self, batch: &mut Batch) -> Written {
        let key = keys::job(&self.job.id);
        batch.checks.push((key.clone(), Expectation::Version(self.before.version)));
        self.turn_page(batch);
        self.move_entries(batch);
        if self.job.has_ended() && !self.before.value.has_ended() && self.job.links.has_children {
            batch.insertions.push((keys::ENDED_PARENTS.to_owned(), self.job.id.to_string()));
        }
        batch.topics.push(key.as_str().into());
        let bytes = records::encode(&self.job);
        batch.writes.push((key, bytes.clone()));
        Written { job: self.job, bytes, counters: self.counters }
    }

    /// Moves the newest events into a history page, if they are too many for the job's record.
    fn turn_page(&mut self, batch: &mut Batch) {
        let recent = &mut self.job.progress.recent_events;
        let bytes: usize = recent.iter().map(|event| event.0.encoded_len()).sum();
        if recent.len() <= MAX_RECENT_EVENTS && bytes <= MAX_RECENT_BYTES {
            return;
        }
        let (key, page) =
            (keys::history(&self.job.id, self.job.progress.last_event), HistoryPage(std::mem::take(recent)));
        batch.checks.push((key.clone(), Expectation::Absent));
        batch.writes.push((key, records::encode(&page)));
    }

    /// Moves the job's index entries, and counts the job in its new state.
    fn move_entries(&self, batch: &mut Batch) {
        let (was, is) = (&self.before.value, &self.job);
        let (old, new) = (keys::job_entries(was), keys::job_entries(is));
        batch.removals.extend(old.iter().filter(|entry| !new.contains(entry)).cloned());
        batch.insertions.extend(new.into_iter().filter(|entry| !old.contains(entry)));
        if was.state() != is.state() {
            batch.increments.push((keys::jobs_in(&is.tenant, was.state()), -1));
            batch.increments.push((keys::jobs_in(&is.tenant, is.state()), 1));
        }
    }
}
