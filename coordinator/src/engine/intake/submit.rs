//! Accepting submissions as jobs.

use std::collections::BTreeSet;

use futures::{StreamExt as _, stream};
use sortinghat_proto::{
    JobId, JobSpec, Labels, Lane, ObjectRef, Refusal, Requirements, Retention, TaskId, Tenant,
    limits::{MAX_JOBS_PER_CALL, MAX_PARENTS},
    time::UnixMs,
    v1::{self, ErrorCode, JobState, job_event, submit_verdict::Verdict},
    words,
};

use super::{
    Intake,
    resolve::{Lookups, Resolved},
    submission::{Acceptance, Submission},
};
use crate::{
    engine::{
        changes::{open_queue, reserve_queue},
        context::MAX_TRIES,
        error::EngineError,
        records::{
            self, AcceptedRecord, EventRecord, Input, JobLinks, JobProgress, JobRecord, JobRequest, TaskRecord,
            Versioned, keys,
        },
    },
    queue::{Phase, Task, TaskCounts},
    store::{self, Batch, Expectation},
};

/// How many jobs of one call are accepted concurrently.
const SUBMISSIONS_AT_A_TIME: usize = 64;

/// A submission that is being accepted.
struct Entry<'a> {
    tenant: &'a Tenant,
    submission: Submission,
    acceptance: Acceptance,
    /// The id of the job that the submission will become.
    id: JobId,
    now: UnixMs,
    /// The submission has passed the quota, which is checked only once.
    is_admitted: bool,
}

/// What was found out about a submission.
enum Known {
    /// It was accepted before, as this job.
    Accepted(Box<v1::SubmitJobResponse>),
    /// It is new: the job, and the batch that makes it durable.
    New(Box<JobRecord>, Batch),
}

impl Intake {
    /// Accepts a job. The job is durable when this returns. A second call with the same idempotency key and content returns the same job.
    ///
    /// Refuses names that do not exist, uploads that are missing, and a key that was used for another submission.
    pub(crate) async fn submit(
        &self,
        tenant: &Tenant,
        submission: Submission,
    ) -> Result<v1::SubmitJobResponse, EngineError> {
        let now = self.records.store.now().await?;
        self.submit_entry(self.entry(tenant, submission, now)).await
    }

    /// Accepts many jobs in one sync of the store. Each job has its own verdict, in the order of the request.
    pub(crate) async fn submit_many(
        &self,
        tenant: &Tenant,
        jobs: Vec<v1::SubmitJobRequest>,
    ) -> Result<v1::SubmitJobsResponse, EngineError> {
        if jobs.len() > MAX_JOBS_PER_CALL {
            let message = format!("{} jobs in one call are more than {MAX_JOBS_PER_CALL}", jobs.len());
            return Err(Refusal::invalid("jobs", message).into());
        }
        let now = self.records.store.now().await?;
        let lookups = &Lookups::default();
        let entries: Vec<_> = jobs
            .into_iter()
            .map(|job| async move { self.prepare(self.entry(tenant, Submission::try_from(job)?, now), lookups).await })
            .collect();
        let mut entries: Vec<Result<_, EngineError>> =
            stream::iter(entries).buffered(SUBMISSIONS_AT_A_TIME).collect().await;
        let batches = entries.iter_mut().filter_map(|entry| match entry {
            Ok((_, Known::New(_, batch))) => Some(std::mem::take(batch)),
            Ok((_, Known::Accepted(_))) | Err(_) => None,
        });
        let mut applied = self.records.store.apply(batches.collect()).await?.into_iter();
        let responses = entries.into_iter().map(|entry| {
            let is_applied =
                matches!(&entry, Ok((_, Known::New(..))) if matches!(applied.next(), Some(store::Verdict::Applied(_))));
            async move {
                match entry? {
                    (_, Known::Accepted(response)) => Ok(*response),
                    (_, Known::New(job, _)) if is_applied => Ok(self.accepted(&job)),
                    (entry, Known::New(..)) => {
                        self.collection.invalidate(entry.tenant);
                        self.submit_entry(entry).await
                    }
                }
            }
        });
        let responses: Vec<_> = responses.collect();
        let verdicts = stream::iter(responses).buffered(SUBMISSIONS_AT_A_TIME).map(|accepted| {
            let verdict = match accepted {
                Ok(accepted) => Verdict::Accepted(accepted),
                Err(error) => Verdict::Refused(Refusal::from(error).into()),
            };
            v1::SubmitVerdict { verdict: Some(verdict) }
        });
        Ok(v1::SubmitJobsResponse { verdicts: verdicts.collect().await })
    }
}

impl Intake {
    fn entry<'a>(&self, tenant: &'a Tenant, submission: Submission, now: UnixMs) -> Entry<'a> {
        let (acceptance, id) = (submission.acceptance(), self.context.job_id(now));
        Entry { tenant, submission, acceptance, id, now, is_admitted: false }
    }

    /// Accepts one submission in a batch of its own.
    async fn submit_entry(&self, mut entry: Entry<'_>) -> Result<v1::SubmitJobResponse, EngineError> {
        for _ in 0..MAX_TRIES {
            let known;
            (entry, known) = self.prepare(entry, &Lookups::default()).await?;
            match known {
                Known::Accepted(response) => return Ok(*response),
                Known::New(job, batch) => {
                    if self.records.apply_one(batch).await? {
                        return Ok(self.accepted(&job));
                    }
                    self.collection.invalidate(entry.tenant);
                }
            }
        }
        Err(EngineError::contended("a job or an artifact that this job names"))
    }

    /// Finds out whether a submission was accepted before, and prepares the job if it was not.
    async fn prepare<'a>(&self, mut entry: Entry<'a>, lookups: &Lookups) -> Result<(Entry<'a>, Known), EngineError> {
        let Entry { tenant, submission, acceptance, id, now, is_admitted } = &mut entry;
        if let Some(existing) = self.accepted_before(tenant, is_admitted.then_some(&*id), acceptance).await? {
            return Ok((entry, Known::Accepted(Box::new(existing))));
        }
        // All that may refuse is asked after the key: a job that was accepted before is returned even if its photos are gone since.
        if !std::mem::replace(is_admitted, true) {
            self.doors.pass()?;
            self.queues.admit(tenant).await?;
            self.queues.require_queue(&submission.queue(tenant)).await?;
        }
        let fence = self.collection.fence_uploads(tenant, &submission.spec).await?;
        let (job, mut batch) = self.new_job(tenant, id, submission, acceptance, *now, lookups).await?;
        batch.checks.extend(fence);
        Ok((entry, Known::New(Box::new(job), batch)))
    }

    /// Counts a job that is known to be accepted, and returns the answer.
    pub(crate) fn accepted(&self, job: &JobRecord) -> v1::SubmitJobResponse {
        metrics::counter!("sortinghat_jobs_submitted_total", "kind" => job.kind.as_str()).increment(1);
        v1::SubmitJobResponse { job: Some(self.jobs.view(job)), existed: false }
    }

    /// The job that this submission has already become, if any: under its key, or as the job `tried`, if a batch with that job was tried
    /// before and its outcome is unknown.
    pub(super) async fn accepted_before(
        &self,
        tenant: &Tenant,
        tried: Option<&JobId>,
        acceptance: &Acceptance,
    ) -> Result<Option<v1::SubmitJobResponse>, EngineError> {
        if let Some(tried) = tried
            && let Some(own) = self.records.read::<JobRecord>(keys::job(tried)).await?
        {
            return Ok(Some(v1::SubmitJobResponse { job: Some(self.jobs.view(&own.value)), existed: false }));
        }
        if acceptance.key.is_empty() {
            return Ok(None);
        }
        let key = keys::idempotency(tenant, &acceptance.key);
        let Some(accepted) = self.records.read::<AcceptedRecord>(key).await? else { return Ok(None) };
        let AcceptedRecord { job, submission: digest } = *accepted.value;
        if digest != acceptance.digest {
            let message = format!(
                "idempotency key {} was used for job {job}, whose content differs",
                words::quoted(&acceptance.key)
            );
            let conflict = EngineError::refused(ErrorCode::IdempotencyConflict, message);
            return Err(conflict.in_field("idempotency_key"));
        }
        let job = self.records.job(tenant, &job).await?;
        Ok(Some(v1::SubmitJobResponse { job: Some(self.jobs.view(&job.value)), existed: true }))
    }

    /// The new job, and the batch that makes it durable. The batch applies only if nothing that the job names has changed.
    async fn new_job(
        &self,
        tenant: &Tenant,
        id: &JobId,
        submission: &Submission,
        acceptance: &Acceptance,
        now: UnixMs,
        lookups: &Lookups,
    ) -> Result<(JobRecord, Batch), EngineError> {
        if submission.deadline.is_some_and(|deadline| deadline <= now) {
            let message = "the deadline has passed already: give a later one, or none";
            return Err(Refusal::invalid("deadline_unix_ms", message).into());
        }
        let mut spec = submission.spec.clone();
        let resolved = self.resolve(tenant, &mut spec, lookups).await?;
        let parents = self.parents(tenant, submission, &resolved).await?;
        let mut batch = Batch { checks: resolved.checks, ..Batch::default() };
        let job = NewJob {
            tenant: tenant.clone(),
            spec,
            dataset: resolved.dataset,
            model: resolved.model,
            parents,
            priority: submission.priority,
            lane: submission.lane,
            requirements: submission.requirements.clone(),
            not_before: submission.not_before,
            deadline: submission.deadline,
            labels: submission.labels.clone(),
            retention: submission.retention,
            retry_of: None,
            checkpoint: None,
        };
        let job = job.enter(&mut batch, id, acceptance, now);
        Ok((job, batch))
    }

    async fn parents(
        &self,
        tenant: &Tenant,
        submission: &Submission,
        resolved: &Resolved,
    ) -> Result<Vec<Versioned<JobRecord>>, EngineError> {
        let ids: BTreeSet<&JobId> = submission.parents.iter().chain(resolved.parents()).collect();
        if ids.len() > MAX_PARENTS {
            let message = format!("{} parents are more than {MAX_PARENTS}", ids.len());
            return Err(Refusal::invalid("parents", message).into());
        }
        let mut parents = Vec::with_capacity(ids.len());
        for id in ids {
            let parent = self.records.job(tenant, id).await;
            parents.push(parent.map_err(|error| error.in_field("parents"))?);
        }
        Ok(parents)
    }
}

/// Adds a child to the list of its parent, so that the child is told when the parent ends.
///
/// A parent that has its first child, or that has ended already, is written as well. The sweep that tells the children of an ended parent
/// also writes the parent. So the two writes conflict, and no child can be missed.
fn adopt(batch: &mut Batch, parent: &Versioned<JobRecord>, child: &JobId) {
    let key = keys::job(&parent.value.id);
    batch.checks.push((key.clone(), Expectation::Version(parent.version)));
    if parent.value.state() == JobState::Succeeded {
        return;
    }
    batch.insertions.push((keys::children(&parent.value.id), child.to_string()));
    if parent.value.has_ended() {
        batch.insertions.push((keys::ENDED_PARENTS.to_owned(), parent.value.id.to_string()));
    }
    if parent.value.has_ended() || !parent.value.links.has_children {
        let mut parent = parent.value.clone();
        parent.links.has_children = true;
        batch.writes.push((key, records::encode(&parent)));
    }
}

/// A job that is about to be accepted. Its names are resolved, and its parents are read.
pub(super) struct NewJob {
    pub(crate) tenant: Tenant,
    pub(crate) spec: JobSpec,
    pub(crate) dataset: Option<Input>,
    pub(crate) model: Option<Input>,
    pub(crate) parents: Vec<Versioned<JobRecord>>,
    pub(crate) priority: i32,
    pub(crate) lane: Lane,
    pub(crate) requirements: Requirements,
    pub(crate) not_before: Option<UnixMs>,
    pub(crate) deadline: Option<UnixMs>,
    pub(crate) labels: Labels,
    pub(crate) retention: Retention,
    pub(crate) retry_of: Option<JobId>,
    /// The checkpoint from which the first attempt goes on.
    pub(crate) checkpoint: Option<ObjectRef>,
}

impl NewJob {
    /// Adds everything to the batch that makes the job exist, and adds the job to the lists of its parents.
    pub(crate) fn enter(mut self, batch: &mut Batch, id: &JobId, acceptance: &Acceptance, now: UnixMs) -> JobRecord {
        let waits = self.parents.iter().any(|parent| parent.value.state() != JobState::Succeeded);
        let mut task = Task::new(TaskId::new(id.clone(), 0), waits).not_before(self.not_before, now);
        task.checkpoint.clone_from(&self.checkpoint);
        for parent in &self.parents {
            adopt(batch, parent, id);
            records::hand_over([&mut self.dataset, &mut self.model], &parent.value);
        }
        let job = self.into_record(id, task, acceptance, now);
        create(batch, &job, acceptance);
        job
    }

    fn into_record(self, id: &JobId, task: Task, acceptance: &Acceptance, now: UnixMs) -> JobRecord {
        let counts = TaskCounts::of_one((&task.state).into());
        let accepted = v1::JobEvent {
            sequence: 1,
            time_unix_ms: now.to_wire(),
            event: Some(job_event::Event::StateChanged(v1::StateChanged {
                state: counts.job_state().into(),
                ..v1::StateChanged::default()
            })),
        };
        JobRecord {
            id: id.clone(),
            tenant: self.tenant,
            kind: self.spec.kind(),
            created: now,
            request: JobRequest {
                spec: self.spec.into(),
                dataset: self.dataset,
                model: self.model,
                priority: self.priority,
                lane: self.lane,
                requirements: self.requirements,
                idempotency_key: acceptance.key.clone(),
                not_before: self.not_before,
                deadline: self.deadline,
                labels: self.labels,
                retention: self.retention,
            },
            progress: JobProgress {
                started: None,
                finished: None,
                counts,
                task: TaskRecord::new(task),
                failure: None,
                output: None,
                attempts: Vec::new(),
                last_event: 1,
                recent_events: vec![EventRecord(accepted)],
                cancel_requested: false,
                shards: None,
                deleted: false,
            },
            links: JobLinks {
                parents: self.parents.into_iter().map(|parent| parent.value.id).collect(),
                has_children: false,
                retry_of: self.retry_of,
                retried_as: None,
            },
        }
    }
}

/// Adds the job's own records, index entries and counts to the batch.
fn create(batch: &mut Batch, job: &JobRecord, acceptance: &Acceptance) {
    let mut write = |key: String, value| {
        batch.checks.push((key.clone(), Expectation::Absent));
        batch.writes.push((key, value));
    };
    write(keys::job(&job.id), records::encode(job));
    if !acceptance.key.is_empty() {
        let record = AcceptedRecord { job: job.id.clone(), submission: acceptance.digest.clone() };
        write(keys::idempotency(&job.tenant, &acceptance.key), records::encode(&record));
    }
    batch.insertions.push((keys::jobs(&job.tenant), job.id.to_string()));
    batch.insertions.extend(keys::label_entries(job));
    batch.insertions.extend(keys::job_entries(job));
    let (task, rank) = (&job.progress.task.task, job.rank());
    batch.insertions.extend(keys::placement(task, &rank));
    batch.increments.push((keys::jobs_in(&job.tenant, job.state()), 1));
    batch.increments.push((keys::tasks_in(Phase::from(&task.state)), 1));
    match task.is_claimable() {
        true => open_queue(batch, &rank.queue),
        false => reserve_queue(batch, &rank.queue),
    }
}
