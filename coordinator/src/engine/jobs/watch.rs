//! Watching a job: every durable event in order, progress in between, and keepalives.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::stream::{self, BoxStream, StreamExt as _};
use sortinghat_proto::{
    JobId, Tenant,
    v1::{self, watch_job_response::Update},
};
use tokio::{sync::watch, time::Instant};

use super::Jobs;
use crate::{
    engine::{
        error::EngineError,
        records::{EventRecord, HistoryPage, JobRecord, keys},
    },
    store::Listener,
};

/// A job's events, progress and keepalives. Ends after the event that ended the job.
pub type WatchStream = BoxStream<'static, Result<v1::WatchJobResponse, EngineError>>;

/// How many events of history pages are looked for at a time.
const EVENTS_PER_READ: u64 = 256;

struct Watcher {
    jobs: Arc<Jobs>,
    tenant: Tenant,
    job: JobId,
    /// The sequence of the last event that was queued.
    seen: u64,
    queue: VecDeque<Update>,
    hints: Listener,
    progress_changes: watch::Receiver<u64>,
    last_progress: Option<v1::Progress>,
    keepalive_at: Instant,
    /// The watcher has caught up with everything that was recorded before it came.
    is_up_to_date: bool,
    is_over: bool,
}

impl Jobs {
    /// Follows a job, beginning with the event after `after_sequence`. The stream ends with an error if the store fails a read. The watcher
    /// then calls again with the last sequence that it has seen.
    pub(crate) async fn watch(
        self: &Arc<Self>,
        tenant: &Tenant,
        job: &JobId,
        after_sequence: u64,
    ) -> Result<WatchStream, EngineError> {
        let watcher = Watcher {
            hints: self.records.store.hints().listen([keys::job(job).as_str()]),
            progress_changes: self.workers.progress.changes(),
            jobs: self.clone(),
            tenant: tenant.clone(),
            job: job.clone(),
            seen: after_sequence,
            queue: VecDeque::new(),
            last_progress: None,
            keepalive_at: Instant::now(),
            is_up_to_date: false,
            is_over: false,
        };
        self.records.job(tenant, job).await?;
        Ok(stream::unfold(watcher, Watcher::next).boxed())
    }
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<v1::WatchJobResponse, EngineError>, Self)> {
        loop {
            if let Some(update) = self.queue.pop_front() {
                let silence = Duration::from_millis(self.jobs.context.settings.keepalive_ms);
                self.keepalive_at = Instant::now() + silence;
                return Some((Ok(v1::WatchJobResponse { update: Some(update) }), self));
            }
            if self.is_over || self.jobs.context.draining.is_cancelled() {
                return None;
            }
            if let Err(error) = self.fill().await {
                self.is_over = true;
                return Some((Err(error), self));
            }
            if self.queue.is_empty() && !self.is_over {
                self.wait().await;
            }
        }
    }

    /// Queues everything that is new.
    async fn fill(&mut self) -> Result<(), EngineError> {
        self.progress_changes.mark_unchanged();
        let job = self.jobs.records.job(&self.tenant, &self.job).await?.value;
        if self.seen < job.last_paged_event() {
            self.read_pages(job.last_paged_event()).await?;
        }
        if self.seen >= job.last_paged_event() {
            self.queue_events(&job.progress.recent_events);
        }
        self.is_over = job.has_ended() && self.seen >= job.progress.last_event;
        self.queue_progress(&job);
        let caught_up = !self.is_up_to_date && self.seen >= job.progress.last_event;
        self.is_up_to_date |= caught_up;
        let is_silent = self.queue.is_empty() && Instant::now() >= self.keepalive_at;
        if !self.is_over && (caught_up || is_silent) {
            self.queue.push_back(Update::Keepalive(v1::Keepalive {}));
        }
        Ok(())
    }

    /// Queues the events of the next history pages.
    async fn read_pages(&mut self, last_paged: u64) -> Result<(), EngineError> {
        // The key of a page is the sequence of its last event, so every sequence is tried. No page is longer than this range.
        let until = last_paged.min(self.seen.saturating_add(EVENTS_PER_READ));
        let keys: Vec<String> = (self.seen + 1..=until).map(|last| keys::history(&self.job, last)).collect();
        let pages = self.jobs.records.read_all::<HistoryPage>(&keys).await?;
        let seen = self.seen;
        pages.iter().flatten().for_each(|page| self.queue_events(&page.value.0));
        if self.seen == seen {
            tracing::error!(job = %self.job, after = seen, "a page of a job's history is missing");
            self.seen = until;
        }
        Ok(())
    }

    fn queue_events(&mut self, events: &[EventRecord]) {
        let new = events.iter().map(|event| &event.0).filter(|event| event.sequence > self.seen);
        self.queue.extend(new.cloned().map(Update::Event));
        self.seen = events.last().map_or(self.seen, |last| last.0.sequence.max(self.seen));
    }

    fn queue_progress(&mut self, job: &JobRecord) {
        let progress = self.jobs.view(job).progress;
        if progress != self.last_progress {
            self.queue.extend(progress.clone().map(Update::Progress));
            self.last_progress = progress;
        }
    }

    async fn wait(&mut self) {
        let poll = Instant::now() + Duration::from_millis(self.jobs.context.settings.poll_ms);
        tokio::select! {
            () = self.hints.heard() => {}
            // The sender lives as long as this watcher's `jobs`, so this wakes only for a change.
            _ = self.progress_changes.changed() => {}
            () = self.jobs.context.draining.cancelled() => {}
            () = tokio::time::sleep_until(self.keepalive_at.min(poll)) => {}
        }
    }
}
