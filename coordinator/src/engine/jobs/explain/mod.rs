//! Explaining why a job is in its state: a typed reason for programs, and one sentence for people.

mod sentence;

use std::collections::HashMap;

use sortinghat_proto::{
    JobId, TaskId, Tenant,
    time::UnixMs,
    v1::{self, AttemptOutcome, JobState, explain_job_response::Reason},
};

use super::Jobs;
use crate::{
    auth::Sight,
    engine::{
        error::EngineError,
        records::{JobRecord, QueueName, TaskRecord, keys},
        workers::Standing,
    },
    queue::{Lease, State, Task},
    store::Range,
};

/// Up to which place in a queue tasks are counted.
const MAX_COUNTED_PLACES: usize = 1_000;
/// How many of the tasks ahead are read for their kind. Tasks further ahead are assumed to be like these.
const MAX_KINDS_READ: usize = 200;
/// How many workers are listed with their shortfalls.
const MAX_TOLD_WORKERS: usize = 20;

impl Jobs {
    /// Says why a job waits, where it runs or how it ended, as far as `sight` goes. A job of another tenant counts as missing.
    pub(crate) async fn explain(
        &self,
        tenant: &Tenant,
        job: &JobId,
        sight: Sight,
    ) -> Result<v1::ExplainJobResponse, EngineError> {
        let now = self.records.store.now().await?;
        let job = self.records.job(tenant, job).await?.value;
        let mut reason = self.reason(&job, now).await?;
        if sight == Sight::OwnTenant {
            hide_others(&mut reason);
        }
        Ok(v1::ExplainJobResponse {
            state: job.state().into(),
            sentence: sentence::of(&reason, &job, now),
            reason: Some(reason),
        })
    }
}

impl Jobs {
    async fn reason(&self, job: &JobRecord, now: UnixMs) -> Result<Reason, EngineError> {
        match job.state() {
            JobState::Blocked => Ok(Reason::Parents(self.parents_waited_for(job).await?)),
            JobState::Queued | JobState::Running => self.reason_of_task(job, now).await,
            JobState::Succeeded | JobState::Failed | JobState::Cancelled | JobState::Unspecified => {
                Ok(Reason::Ended(v1::JobEnded {
                    finished_unix_ms: job.progress.finished.map_or(0, UnixMs::to_wire),
                    failure: job.progress.failure.clone(),
                }))
            }
        }
    }

    async fn parents_waited_for(&self, job: &JobRecord) -> Result<v1::WaitsForParents, EngineError> {
        let keys: Vec<String> = job.links.parents.iter().map(keys::job).collect();
        let parents = self.records.read_all::<JobRecord>(&keys).await?.into_iter().flatten();
        let waited_for = parents.filter(|parent| parent.value.state() != JobState::Succeeded);
        let parents = waited_for
            .map(|parent| v1::WaitedForJob { job_id: parent.value.id.to_string(), state: parent.value.state().into() });
        Ok(v1::WaitsForParents { parents: parents.collect() })
    }

    /// The task that explains the job best. For a job that is not in shards it is the job's own task. Otherwise it is the running shard
    /// that was started last, or the first shard that has not ended. `None` while the job is between two of its tasks.
    async fn telling_task(&self, job: &JobRecord) -> Result<Option<Task>, EngineError> {
        let running = job.progress.attempts.iter().rfind(|attempt| attempt.0.outcome() == AttemptOutcome::Unspecified);
        let indexes = match (job.open_shards(), running) {
            (None, _) => return Ok(Some(job.progress.task.task.clone()).filter(|task| !task.state.is_terminal())),
            (Some(_), Some(attempt)) => vec![attempt.0.task],
            (Some(stage), None) => (0..stage.created).map(|shard| stage.division.shard_index(shard)).collect(),
        };
        let keys = indexes.into_iter().map(|index| keys::shard(&TaskId::new(job.id.clone(), index)));
        let keys: Vec<String> = keys.collect();
        let mut records = self.records.read_all::<TaskRecord>(&keys).await?.into_iter().flatten();
        Ok(records.find(|task| !task.value.task.state.is_terminal()).map(|task| task.value.task))
    }

    async fn reason_of_task(&self, job: &JobRecord, now: UnixMs) -> Result<Reason, EngineError> {
        let Some(task) = self.telling_task(job).await? else {
            let message = format!("job {} is between two of its tasks at this moment; ask again", job.id);
            return Err(EngineError::Busy(message));
        };
        match &task.state {
            State::Leased(lease) => {
                let trouble = self.workers.sessions.trouble(&lease.token.worker).unwrap_or_default();
                Ok(Reason::Runs(v1::JobRuns { trouble, ..runs(job, &task.id, lease) }))
            }
            State::Ready { not_before: Some(at) } => Ok(match last_attempt(job, &task.id) {
                Some(last) => {
                    Reason::Backoff(v1::WaitsAfterFailure { until_unix_ms: at.to_wire(), last_attempt: Some(last) })
                }
                None => Reason::NotBefore(v1::WaitsForTime { not_before_unix_ms: at.to_wire() }),
            }),
            State::Ready { not_before: None } => self.reason_of_waiting(job, &task, now).await,
            State::Blocked => Ok(Reason::Parents(self.parents_waited_for(job).await?)),
            State::Succeeded { .. } | State::Failed { .. } | State::Cancelled { .. } => {
                Ok(Reason::Ended(v1::JobEnded {
                    finished_unix_ms: now.to_wire(),
                    failure: job.progress.failure.clone(),
                }))
            }
        }
    }

    async fn reason_of_waiting(&self, job: &JobRecord, task: &Task, now: UnixMs) -> Result<Reason, EngineError> {
        if let Some(since) = self.queues.queue(&job.tenant).await?.paused {
            return Ok(Reason::Paused(v1::QueuePaused { since_unix_ms: since.to_wire() }));
        }
        let standings = self.workers.sessions.standings(job.demand(), now, self.context.rules.lease_ttl_ms);
        if standings.is_empty() {
            return Ok(Reason::NoWorker(v1::WaitsForAnyWorker {}));
        }
        let (able, short): (Vec<_>, Vec<_>) = standings.into_iter().partition(|worker| worker.shortfalls.is_empty());
        if able.is_empty() {
            return Ok(Reason::NoCapableWorker(no_capable_worker(short)));
        }
        let (unable, able): (Vec<_>, Vec<_>) = able.into_iter().partition(|worker| worker.trouble.is_some());
        if able.is_empty() {
            return Ok(Reason::NoAbleWorker(no_able_worker(unable)));
        }
        let slots = able.iter().map(|worker| worker.slots).sum();
        let rank = job.rank();
        let own = keys::placement(task, &rank).into_iter().next().map(|(_, entry)| entry).unwrap_or_default();
        let before = Range::first(rank.queue.index(), MAX_COUNTED_PLACES).until(own);
        let before = self.records.store.range(before).await?;
        let share = self.share_of_lane(&rank.queue).await?;
        Ok(Reason::Turn(v1::WaitsForTurn {
            place: u32::try_from(before.len() + 1).unwrap_or(u32::MAX),
            place_is_a_bound: before.len() >= MAX_COUNTED_PLACES,
            tenants: share.tenants,
            slots,
            estimated_wait_ms: self.estimated_wait_ms(job, &before, share.part, slots).await?,
        }))
    }

    /// How many tenants wait in the lane of this queue, and which part of the slots the queue's tenant gets.
    async fn share_of_lane(&self, queue: &QueueName) -> Result<LaneShare, EngineError> {
        let mut open = self.queues.unpaused_queues().await?;
        open.retain(|open| open.lane == queue.lane);
        let first =
            self.records.store.ranges(open.iter().map(|queue| Range::first(queue.index(), 1)).collect()).await?;
        let waiting = open.iter().zip(first).filter(|(_, first)| !first.is_empty()).map(|(queue, _)| &queue.tenant);
        let mut weights: HashMap<&Tenant, u32> = waiting.map(|tenant| (tenant, self.queues.weight(tenant))).collect();
        weights.insert(&queue.tenant, self.queues.weight(&queue.tenant));
        let all: u32 = weights.values().sum();
        Ok(LaneShare {
            tenants: u32::try_from(weights.len()).unwrap_or(u32::MAX),
            part: f64::from(self.queues.weight(&queue.tenant)) / f64::from(all),
        })
    }

    /// Estimates the wait: until a running task ends, and then until the tasks ahead have run on this part of the slots. `None` if the
    /// duration of one of the kinds was never measured.
    async fn estimated_wait_ms(
        &self,
        job: &JobRecord,
        before: &[String],
        part: f64,
        slots: u32,
    ) -> Result<Option<u64>, EngineError> {
        let looked_at = &before[before.len().saturating_sub(MAX_KINDS_READ)..];
        let tasks = looked_at.iter().filter_map(|entry| keys::task_of_entry(entry));
        let keys: Vec<String> = tasks.map(|task| keys::job(task.job())).collect();
        let jobs = self.records.read_all::<JobRecord>(&keys).await?;
        let durations = jobs.iter().flatten().map(|before| self.workers.durations.of(before.value.kind));
        let Some(durations) = durations.collect::<Option<Vec<f64>>>() else { return Ok(None) };
        let Some(own) = self.workers.durations.of(job.kind) else { return Ok(None) };
        let slots = f64::from(slots);
        let average = if durations.is_empty() { own } else { durations.iter().sum::<f64>() / durations.len() as f64 };
        let first_free = average / (slots + 1.0);
        Ok(Some((first_free + average * before.len() as f64 / (slots * part)) as u64))
    }
}

/// Takes out of a reason what tells about other tenants: their number, an estimate that depends on it, and the names of workers that serve
/// them as well.
fn hide_others(reason: &mut Reason) {
    match reason {
        Reason::Turn(turn) => {
            if turn.tenants > 1 {
                turn.estimated_wait_ms = None;
            }
            turn.tenants = 0;
        }
        Reason::NoCapableWorker(waits) => {
            for worker in waits.workers.iter_mut().filter(|worker| worker.is_shared) {
                (worker.worker_id, worker.host) = (String::new(), String::new());
            }
        }
        Reason::NoAbleWorker(waits) => {
            for worker in waits.workers.iter_mut().filter(|worker| worker.is_shared) {
                (worker.worker_id, worker.host) = (String::new(), String::new());
            }
        }
        Reason::Ended(_) | Reason::Runs(_) | Reason::Parents(_) | Reason::Backoff(_) => {}
        Reason::NoWorker(_) | Reason::Paused(_) | Reason::NotBefore(_) => {}
    }
}

/// The sharing of a lane.
struct LaneShare {
    /// How many tenants have waiting tasks, including the asking tenant.
    tenants: u32,
    /// The asking tenant's part of the slots, more than 0 and at most 1.
    part: f64,
}

fn no_capable_worker(mut workers: Vec<Standing>) -> v1::WaitsForCapableWorker {
    workers.sort_by_key(|worker| (worker.shortfalls.len(), worker.host.clone()));
    workers.truncate(MAX_TOLD_WORKERS);
    let told = workers.into_iter().map(|worker| v1::WorkerShortfalls {
        worker_id: worker.worker.to_string(),
        host: worker.host,
        shortfalls: worker.shortfalls,
        is_shared: worker.is_shared,
    });
    v1::WaitsForCapableWorker { workers: told.collect() }
}

fn no_able_worker(mut workers: Vec<Standing>) -> v1::WaitsForAbleWorker {
    workers.sort_by(|one, other| one.host.cmp(&other.host));
    workers.truncate(MAX_TOLD_WORKERS);
    let told = workers.into_iter().map(|worker| v1::UnableWorker {
        worker_id: worker.worker.to_string(),
        host: worker.host,
        reason: worker.trouble.unwrap_or_default(),
        is_shared: worker.is_shared,
    });
    v1::WaitsForAbleWorker { workers: told.collect() }
}

fn last_attempt(job: &JobRecord, task: &TaskId) -> Option<v1::Attempt> {
    job.progress.attempts.iter().rfind(|attempt| attempt.0.task == task.index()).map(|attempt| attempt.0.clone())
}

fn runs(job: &JobRecord, task: &TaskId, lease: &Lease) -> v1::JobRuns {
    let its = (task.index(), lease.token.epoch);
    let attempt = job.progress.attempts.iter().rfind(|attempt| (attempt.0.task, attempt.0.epoch) == its);
    let attempt = attempt.map(|attempt| attempt.0.clone());
    v1::JobRuns { attempt, gives_way: lease.preempted.is_some(), trouble: String::new() }
}
