//! Showing, listing and cancelling jobs.

use std::collections::HashSet;

use sortinghat_proto::{
    JobId, Refusal, Tenant,
    time::UnixMs,
    v1::{self, AttemptOutcome, JobState},
};

use super::{Jobs, stop::StopCause};
use crate::{
    engine::{
        context::MAX_TRIES,
        error::EngineError,
        records::{self, AcceptedRecord, JobFilter, JobRecord, StoredAttempt, bad_token, keys, page_size},
    },
    store::Range,
};

/// How many jobs one call of `list` reads, so that a filter that matches few jobs ends. The page is then short, and its token goes on from
/// there.
const MAX_SCANNED_JOBS: usize = 10_000;
/// How many jobs are read at a time.
const SCAN_STEP: usize = 200;
/// How many ids are read at a time, if most of their jobs need not be read.
const ID_SCAN_STEP: usize = 2_000;

impl Jobs {
    /// Returns one job as it is now. A job of another tenant counts as missing.
    pub(crate) async fn get(&self, tenant: &Tenant, job: &JobId) -> Result<v1::Job, EngineError> {
        let job = self.records.job(tenant, job).await?;
        Ok(self.view(&job.value))
    }

    /// Returns a page of jobs, the newest first, without their attempts.
    pub(crate) async fn list(
        &self,
        tenant: &Tenant,
        request: v1::ListJobsRequest,
    ) -> Result<v1::ListJobsResponse, EngineError> {
        if !request.idempotency_key.is_empty() {
            return self.list_keyed(tenant, &request).await;
        }
        let page_size = page_size(request.page_size, 50);
        let filter = parse(&request)?;
        let index = index_of(tenant, &filter);
        let mut before = match request.page_token.as_str() {
            "" => None,
            token => {
                let token: JobId = token.parse().map_err(|_| bad_token())?;
                Some(token.to_string())
            }
        };
        let part = request.id_part.to_ascii_lowercase();
        let is_named = |id: &String| part.is_empty() || id.starts_with(&part) || id.ends_with(&part);
        let step = if part.is_empty() { SCAN_STEP } else { ID_SCAN_STEP };
        let mut page = v1::ListJobsResponse::default();
        let mut scanned = 0;
        while scanned < MAX_SCANNED_JOBS {
            let mut range = Range::first(&index, step).descending();
            range.until = before.clone();
            let ids = self.records.store.range(range).await?;
            scanned += ids.len();
            let is_last = ids.len() < step;
            before = ids.last().cloned().or(before);
            let named: Vec<JobId> = ids.iter().filter(|id| is_named(id)).filter_map(|id| id.parse().ok()).collect();
            let keys: Vec<String> = named.iter().map(keys::job).collect();
            for (id, record) in named.iter().zip(self.records.store.read(&keys).await?) {
                match record.map(|record| records::decode::<JobRecord>(id.as_str(), &record.value)) {
                    Some(Ok(job)) if !job.progress.deleted && filter.admits(&job) => page.jobs.push(self.listed(&job)),
                    Some(Err(_)) => page.unreadable_job_ids.push(id.to_string()),
                    // The filter does not admit the job, or the job was just deleted or forgotten.
                    Some(Ok(_)) | None => {}
                }
                if page.jobs.len() == page_size {
                    page.next_page_token = id.to_string();
                    return Ok(page);
                }
            }
            if is_last {
                return Ok(page);
            }
        }
        page.next_page_token = before.unwrap_or_default();
        Ok(page)
    }

    /// The job that was submitted with a key, if it matches. There is one at most.
    async fn list_keyed(
        &self,
        tenant: &Tenant,
        request: &v1::ListJobsRequest,
    ) -> Result<v1::ListJobsResponse, EngineError> {
        let filter = parse(request)?;
        let key = keys::idempotency(tenant, &request.idempotency_key);
        let Some(accepted) = self.records.read::<AcceptedRecord>(key).await? else { return Ok(Default::default()) };
        let job = self.records.jobs([accepted.value.job].into_iter()).await?.pop();
        let job = job.filter(|job| !job.value.progress.deleted && filter.admits(&job.value));
        Ok(v1::ListJobsResponse { jobs: job.iter().map(|job| self.listed(&job.value)).collect(), ..Default::default() })
    }

    /// A job as lists show it.
    fn listed(&self, job: &JobRecord) -> v1::Job {
        v1::Job { attempts: Vec::new(), ..self.view(job) }
    }

    /// Asks for a job to be cancelled, and returns the job after that. A waiting job ends at once. A running job ends when its worker has
    /// stopped. A job that has ended does not change.
    pub(crate) async fn cancel(&self, tenant: &Tenant, job: &JobId) -> Result<v1::Job, EngineError> {
        for _ in 0..MAX_TRIES {
            let found = self.records.job(tenant, job).await?;
            if self.stop_job(&found, StopCause::Cancelled).await? {
                return self.get(tenant, job).await;
            }
        }
        Err(EngineError::contended(format!("job {job}")))
    }
}

impl Jobs {
    /// A job as the contract shows it.
    pub(crate) fn view(&self, job: &JobRecord) -> v1::Job {
        let state = job.state();
        let (keep_for_ms, keep) = job.request.retention.to_wire();
        v1::Job {
            id: job.id.to_string(),
            spec: Some(job.request.spec.clone()),
            state: state.into(),
            failure: job.progress.failure.clone(),
            output: job.progress.output.clone(),
            parents: job.links.parents.iter().map(ToString::to_string).collect(),
            priority: job.request.priority,
            idempotency_key: job.request.idempotency_key.clone(),
            created_unix_ms: job.created.to_wire(),
            started_unix_ms: job.progress.started.map_or(0, UnixMs::to_wire),
            finished_unix_ms: job.progress.finished.map_or(0, UnixMs::to_wire),
            attempts: job.progress.attempts.iter().map(|attempt| attempt.0.clone()).collect(),
            progress: if state == JobState::Running { self.workers.progress.of(job) } else { None },
            cancel_requested: job.progress.cancel_requested,
            lane: v1::Lane::from(job.request.lane).into(),
            requirements: job.request.requirements.clone().into_wire(),
            tasks: job.progress.shards.as_ref().map(|stage| v1::TaskProgress {
                total: stage.division.shards(),
                running: stage.tally.running,
                succeeded: stage.tally.succeeded,
                failed: stage.tally.failed,
                cancelled: stage.tally.cancelled,
            }),
            not_before_unix_ms: job.request.not_before.map_or(0, UnixMs::to_wire),
            deadline_unix_ms: job.request.deadline.map_or(0, UnixMs::to_wire),
            retry_of: job.links.retry_of.as_ref().map(ToString::to_string).unwrap_or_default(),
            labels: job.request.labels.clone().into(),
            keep_for_ms,
            keep,
            last_failed_attempt: if is_final(state) { None } else { last_failed_attempt(&job.progress.attempts) },
        }
    }
}

/// The filter of a request for a page of jobs.
fn parse(request: &v1::ListJobsRequest) -> Result<JobFilter, Refusal> {
    Ok(JobFilter {
        before: UnixMs::from_wire(request.created_before_unix_ms, "created_before_unix_ms")?,
        from: UnixMs::from_wire(request.created_from_unix_ms, "created_from_unix_ms")?,
        labels: request.labels.clone().try_into()?,
        ..JobFilter::parse(&request.states, &request.kind)?
    })
}

/// The index that has every job which may match. Of a label, there are fewer jobs than of the tenant.
fn index_of(tenant: &Tenant, filter: &JobFilter) -> String {
    let label = filter.labels.iter().next();
    label.map_or_else(|| keys::jobs(tenant), |(name, value)| keys::labelled(tenant, name, value))
}

fn is_final(state: JobState) -> bool {
    matches!(state, JobState::Succeeded | JobState::Failed | JobState::Cancelled)
}

/// The newest attempt that did not do its work, unless its task has succeeded since. Of attempts, the oldest come first.
fn last_failed_attempt(attempts: &[StoredAttempt]) -> Option<v1::Attempt> {
    let mut succeeded = HashSet::new();
    attempts
        .iter()
        .rev()
        .map(|attempt| &attempt.0)
        .find(|attempt| match attempt.outcome() {
            AttemptOutcome::Failed | AttemptOutcome::Crashed | AttemptOutcome::Lost => {
                !succeeded.contains(&attempt.task)
            }
            AttemptOutcome::Succeeded => {
                succeeded.insert(attempt.task);
                false
            }
            AttemptOutcome::Unspecified | AttemptOutcome::Returned | AttemptOutcome::Cancelled => false,
        })
        .cloned()
}
