//! Watching the predictions of a classify: each part as soon as it is committed, and what is left when the job has ended.
//!
//! A part is what one shard has made. Parts are told by reference, so that the coordinator opens no file that a worker has written. Once the
//! job has succeeded, its output replaces the parts, whose objects nothing refers to any more; a stream that was opened before goes on with
//! the parts, which are kept for at least half of the grace of objects.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::stream::{self, BoxStream, StreamExt as _};
use sortinghat_proto::{
    JobId, JobKind, Refusal, TaskId, Tenant,
    v1::{self, JobState, watch_predictions_response::Update},
};
use tokio::time::Instant;

use super::Jobs;
use crate::{
    engine::{
        error::EngineError,
        records::{JobRecord, TaskRecord, keys},
    },
    queue::{Output, State},
    store::Listener,
};

/// The parts of a classify, keepalives, and the end of the job.
pub type PredictionsStream = BoxStream<'static, Result<v1::WatchPredictionsResponse, EngineError>>;

/// How many shards are read at a time.
const SHARDS_PER_READ: usize = 256;

struct Watcher {
    jobs: Arc<Jobs>,
    tenant: Tenant,
    job: JobId,
    first_row: u64,
    is_in_order: bool,
    /// The shards whose predictions were queued, by their number.
    told: BTreeSet<u32>,
    /// How many shards had succeeded when they were looked at last.
    succeeded: u32,
    queue: VecDeque<Update>,
    hints: Listener,
    keepalive_at: Instant,
    /// The watcher has received everything that was predicted before it came.
    is_up_to_date: bool,
    is_over: bool,
}

impl Jobs {
    /// Follows the predictions of a classify. The stream ends with an error if the store fails a read.
    pub(crate) async fn watch_predictions(
        self: &Arc<Self>,
        tenant: &Tenant,
        request: &v1::WatchPredictionsRequest,
    ) -> Result<PredictionsStream, EngineError> {
        let job: JobId = request.job_id.parse()?;
        let kind = self.records.job(tenant, &job).await?.value.kind;
        if kind != JobKind::Classify {
            let message = format!("job {job} is of the kind {kind}, which predicts nothing: name a classify");
            return Err(Refusal::invalid("job_id", message).into());
        }
        let watcher = Watcher {
            hints: self.records.store.hints().listen([keys::job(&job).as_str()]),
            jobs: self.clone(),
            tenant: tenant.clone(),
            job,
            first_row: request.first_row,
            is_in_order: request.in_order,
            told: BTreeSet::new(),
            succeeded: 0,
            queue: VecDeque::new(),
            keepalive_at: Instant::now(),
            is_up_to_date: false,
            is_over: false,
        };
        Ok(stream::unfold(watcher, Watcher::next).boxed())
    }
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<v1::WatchPredictionsResponse, EngineError>, Self)> {
        loop {
            if let Some(update) = self.queue.pop_front() {
                let silence = Duration::from_millis(self.jobs.context.settings.keepalive_ms);
                self.keepalive_at = Instant::now() + silence;
                return Some((Ok(v1::WatchPredictionsResponse { update: Some(update) }), self));
            }
            if self.is_over || self.jobs.context.draining.is_cancelled() {
                return None;
            }
            if let Err(error) = self.fill().await {
                self.is_over = true;
                return Some((Err(error), self));
            }
            if self.queue.is_empty() {
                self.wait().await;
            }
        }
    }

    /// Queues everything that is new.
    async fn fill(&mut self) -> Result<(), EngineError> {
        let job = self.jobs.records.job(&self.tenant, &self.job).await?.value;
        match &job.progress.output {
            Some(output) if self.told.is_empty() => self.queue_part(0, output.manifest.clone()),
            Some(_) | None => self.queue_shards(&job).await?,
        }
        if job.has_ended() {
            self.is_over = true;
            self.queue.push_back(Update::Ended(v1::StateChanged {
                state: job.state().into(),
                failure: job.progress.failure.clone().filter(|_| job.state() != JobState::Succeeded),
                output: job.progress.output.clone(),
            }));
            return Ok(());
        }
        // What has been queued is received before this.
        let caught_up = !std::mem::replace(&mut self.is_up_to_date, true);
        let is_silent = self.queue.is_empty() && Instant::now() >= self.keepalive_at;
        if caught_up || is_silent {
            self.queue.push_back(Update::Keepalive(v1::Keepalive {}));
        }
        Ok(())
    }

    /// Queues the shards that have succeeded since the last look.
    async fn queue_shards(&mut self, job: &JobRecord) -> Result<(), EngineError> {
        let Some(stage) = &job.progress.shards else { return Ok(()) };
        let succeeded = std::mem::replace(&mut self.succeeded, stage.tally.succeeded);
        if succeeded == stage.tally.succeeded && !job.has_ended() {
            return Ok(());
        }
        let division = stage.division;
        let is_wanted = |shard: &u32| division.range(*shard).end > self.first_row && !self.told.contains(shard);
        let wanted: Vec<u32> = (0..stage.created).filter(is_wanted).collect();
        for some in wanted.chunks(SHARDS_PER_READ) {
            let tasks = some.iter().map(|shard| TaskId::new(job.id.clone(), division.shard_index(*shard)));
            let keys: Vec<String> = tasks.map(|task| keys::shard(&task)).collect();
            let records = self.jobs.records.read_all::<TaskRecord>(&keys).await?;
            for (shard, record) in some.iter().zip(records) {
                match record.map(|record| record.value.task.state) {
                    Some(State::Succeeded { output: Output::Made { manifest, .. }, .. }) => {
                        self.told.insert(*shard);
                        self.queue_part(division.range(*shard).start, Some(manifest.into()));
                        if self.told.len() == stage.tally.succeeded as usize {
                            return Ok(());
                        }
                    }
                    // A shard that has not succeeded when the job ends never will, so that the order is kept without it.
                    _ if self.is_in_order && !job.has_ended() => return Ok(()),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn queue_part(&mut self, first_row: u64, predictions: Option<v1::ObjectRef>) {
        self.queue.push_back(Update::Part(v1::PredictionsPart { first_row, predictions }));
    }

    async fn wait(&mut self) {
        let poll = Instant::now() + Duration::from_millis(self.jobs.context.settings.poll_ms);
        tokio::select! {
            () = self.hints.heard() => {}
            () = self.jobs.context.draining.cancelled() => {}
            () = tokio::time::sleep_until(self.keepalive_at.min(poll)) => {}
        }
    }
}
