//! Showing, listing and cancelling jobs.

use sortinghat_proto::{
    JobId, Refusal, Tenant,
    limits::MAX_PAGE_SIZE,
    time::UnixMs,
    v1::{self, JobState},
};

use super::{
    Engine, MAX_TRIES, Shared, contended,
    filter::JobFilter,
    keys,
    records::{self, JobRecord},
    stop::StopCause,
};
use crate::store::Range;

/// Jobs that one call of `list` looks at, so that a rare filter ends; the page is then short and its token goes on.
const MAX_SCANNED_JOBS: usize = 10_000;
/// Jobs that are read at a time.
const SCAN_STEP: usize = 200;

impl Engine {
    /// One job as it is now. Another tenant's does not exist.
    pub async fn get(&self, tenant: &Tenant, job: &JobId) -> Result<v1::Job, Refusal> {
        let job = self.shared.job(tenant, job).await?;
        Ok(self.shared.view(&job.value))
    }

    /// A page of jobs, newest first, without their attempts.
    pub async fn list(&self, tenant: &Tenant, request: v1::ListJobsRequest) -> Result<v1::ListJobsResponse, Refusal> {
        let page_size = page_size(request.page_size, 50)?;
        let filter = JobFilter::parse(&request.states, &request.kind)?;
        let mut before = match request.page_token.as_str() {
            "" => None,
            token => {
                let token: JobId = token.parse().map_err(|_| bad_token())?;
                Some(token.to_string())
            }
        };
        let mut page = v1::ListJobsResponse::default();
        let mut scanned = 0;
        while scanned < MAX_SCANNED_JOBS {
            let mut range = Range::first(keys::jobs(tenant), SCAN_STEP).descending();
            range.until = before.clone();
            let ids = self.shared.store.range(range).await?;
            let is_last = ids.len() < SCAN_STEP;
            let ids: Vec<JobId> = ids.iter().filter_map(|id| id.parse().ok()).collect();
            let keys: Vec<String> = ids.iter().map(keys::job).collect();
            for (id, record) in ids.into_iter().zip(self.shared.store.read(&keys).await?) {
                let id = before.insert(id.to_string());
                scanned += 1;
                match record.map(|record| records::decode::<JobRecord>(id, &record.value)) {
                    Some(Ok(job)) if filter.admits(&job) => {
                        page.jobs.push(v1::Job { attempts: Vec::new(), ..self.shared.view(&job) });
                    }
                    Some(Err(_)) => page.unreadable_job_ids.push(id.clone()),
                    // Another one, or just removed.
                    Some(Ok(_)) | None => {}
                }
                if page.jobs.len() == page_size {
                    page.next_page_token.clone_from(id);
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

    /// Asks for a job to be cancelled, and returns it after that. One that waits ends at once, one that runs when its worker
    /// has stopped; for one that has ended nothing changes.
    pub async fn cancel(&self, tenant: &Tenant, job: &JobId) -> Result<v1::Job, Refusal> {
        let shared = &self.shared;
        for _ in 0..MAX_TRIES {
            let found = shared.job(tenant, job).await?;
            if shared.stop_job(&found, StopCause::Cancelled).await? {
                return self.get(tenant, job).await;
            }
        }
        Err(contended(format!("job {job}")))
    }
}

/// The number of entries that a page may have.
pub(super) fn page_size(asked: u32, default: u32) -> Result<usize, Refusal> {
    match asked {
        0 => Ok(default as usize),
        1..=MAX_PAGE_SIZE => Ok(asked as usize),
        _ => Err(Refusal::invalid("page_size", format!("page_size must be 1 to {MAX_PAGE_SIZE}, not {asked}"))),
    }
}

/// The answer to a page token that no page has given.
pub(super) fn bad_token() -> Refusal {
    Refusal::invalid("page_token", "use the token of the page before, or nothing for the first page")
}

impl Shared {
    /// A job as the contract shows it.
    pub(super) fn view(&self, job: &JobRecord) -> v1::Job {
        let state = job.state();
        v1::Job {
            id: job.id.to_string(),
            spec: Some(job.spec.clone()),
            state: state.into(),
            failure: job.failure.clone(),
            output: job.output.clone(),
            parents: job.parents.iter().map(ToString::to_string).collect(),
            priority: job.priority,
            idempotency_key: job.idempotency_key.clone(),
            created_unix_ms: job.created.to_wire(),
            started_unix_ms: job.started.map_or(0, UnixMs::to_wire),
            finished_unix_ms: job.finished.map_or(0, UnixMs::to_wire),
            attempts: job.attempts.iter().map(|attempt| attempt.0.clone()).collect(),
            progress: if state == JobState::Running { self.progress.of(job) } else { None },
            cancel_requested: job.cancel_requested,
            lane: v1::Lane::from(job.lane).into(),
            requirements: job.requirements.clone().into_wire(),
            tasks: job.shards.as_ref().map(|stage| v1::TaskProgress {
                total: stage.division.shards(),
                running: stage.tally.running,
                succeeded: stage.tally.succeeded,
                failed: stage.tally.failed,
                cancelled: stage.tally.cancelled,
            }),
            not_before_unix_ms: job.not_before.map_or(0, UnixMs::to_wire),
            deadline_unix_ms: job.deadline.map_or(0, UnixMs::to_wire),
            retry_of: job.retry_of.as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }
}
