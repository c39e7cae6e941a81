//! Cancelling many jobs at once. A bulk cancellation is one write to the gate of the tenant's queue, which claims and ends of attempts
//! check. So it holds at once for all jobs, and a sweep cancels them one by one.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use sortinghat_proto::{
    JobId, Refusal, Tenant,
    limits::{MAX_CANCELLATIONS, MAX_COUNTED_JOBS, MAX_JOBS_PER_CALL},
    time::UnixMs,
    v1::{self, ErrorCode, JobState},
};

use super::{Jobs, stop::StopCause};
use crate::{
    engine::{
        error::EngineError,
        queues::{BulkCancellation, QueueRecord, queue_batch},
        records::{Failures, JobFilter, Versioned, keys},
    },
    store::Range,
};

/// How many jobs are read at a time.
const COUNT_STEP: usize = 500;
/// How many tenants one round of cancelling handles.
const TENANTS_PER_ROUND: usize = 16;
/// How many jobs of one tenant one round of cancelling handles.
const JOBS_PER_ROUND: usize = 200;
/// How many jobs that were named by their ids are cancelled concurrently.
const CANCELS_AT_A_TIME: usize = 64;
/// The states in which a job can be cancelled.
const OPEN_STATES: [JobState; 3] = [JobState::Blocked, JobState::Queued, JobState::Running];

/// The result of one round of cancelling.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reached {
    /// How many jobs were told to stop.
    pub(crate) jobs: usize,
    /// How many pages of open jobs the cursors have passed, whether or not any job on them matched.
    pub(crate) pages: usize,
}

impl Jobs {
    /// Asks for every matching job of a tenant to be cancelled. The request is durable when this returns: from then on no matching job
    /// starts.
    pub(crate) async fn cancel_many(
        &self,
        tenant: &Tenant,
        request: v1::CancelJobsRequest,
    ) -> Result<v1::CancelJobsResponse, EngineError> {
        let now = self.records.store.now().await?;
        let filter = parse(&request)?;
        if !request.job_ids.is_empty() {
            return self.cancel_named(tenant, &filter, &request).await;
        }
        let counted = self.count(tenant, &filter).await?;
        if !request.count_only {
            // Only jobs that exist now can match, so that a bulk cancellation comes to an end.
            let until = now.plus_ms(1);
            let existing = JobFilter { before: Some(filter.before.unwrap_or(until).min(until)), ..filter };
            self.queues.alter_queue(tenant, |queue, _| enter(queue, &existing)).await?;
            tracing::info!(%tenant, matching = counted.matching, "accepted a bulk cancellation");
        }
        Ok(counted)
    }

    async fn cancel_named(
        &self,
        tenant: &Tenant,
        filter: &JobFilter,
        request: &v1::CancelJobsRequest,
    ) -> Result<v1::CancelJobsResponse, EngineError> {
        if request.job_ids.len() > MAX_JOBS_PER_CALL {
            let message = format!("{} jobs in one call are more than {MAX_JOBS_PER_CALL}", request.job_ids.len());
            return Err(Refusal::invalid("job_ids", message).into());
        }
        let ids = request.job_ids.iter().map(|id| id.parse()).collect::<Result<Vec<JobId>, Refusal>>();
        let ids = ids.map_err(|refusal| refusal.at("job_ids"))?;
        // All jobs are looked up before the first one is cancelled, so that a request with a mistyped id cancels nothing.
        let found: Vec<_> = ids.iter().map(|id| self.records.job(tenant, id)).collect();
        let found: Result<Vec<_>, EngineError> = stream::iter(found).buffered(CANCELS_AT_A_TIME).try_collect().await;
        let mut jobs = found.map_err(|error| error.in_field("job_ids"))?;
        jobs.retain(|job| !job.value.has_ended() && filter.admits(&job.value));
        if !request.count_only {
            let cancelled: Vec<_> = jobs.iter().map(|job| self.cancel(tenant, &job.value.id)).collect();
            let _: Vec<v1::Job> = stream::iter(cancelled).buffered(CANCELS_AT_A_TIME).try_collect().await?;
        }
        Ok(v1::CancelJobsResponse { matching: jobs.len() as u64, more: false })
    }
}

fn parse(request: &v1::CancelJobsRequest) -> Result<JobFilter, Refusal> {
    let mut filter = JobFilter::parse(&request.states, &request.kind)?;
    if filter.states().any(|state| !OPEN_STATES.contains(&state)) {
        return Err(Refusal::invalid("states", "only blocked, queued and running jobs can be cancelled"));
    }
    filter.before = UnixMs::from_wire(request.created_before_unix_ms, "created_before_unix_ms")?;
    Ok(filter)
}

/// Adds a bulk cancellation to the gate of a queue. If one that differs only in its time is under way, that one begins anew.
fn enter(queue: &mut QueueRecord, filter: &JobFilter) -> Result<(), EngineError> {
    let is_same = |known: &&mut BulkCancellation| {
        JobFilter { before: None, ..known.filter.clone() } == JobFilter { before: None, ..filter.clone() }
    };
    if let Some(known) = queue.cancellations.iter_mut().find(is_same) {
        known.filter.before = known.filter.before.max(filter.before);
        known.cursor.clear();
        return Ok(());
    }
    if queue.cancellations.len() >= MAX_CANCELLATIONS {
        let message =
            format!("{MAX_CANCELLATIONS} bulk cancellations are under way: try again when one of them is done");
        return Err(EngineError::refused(ErrorCode::ResourceExhausted, message));
    }
    queue.cancellations.push(BulkCancellation { filter: filter.clone(), cursor: String::new() });
    Ok(())
}

impl Jobs {
    /// Counts the open jobs that match. The count is exact if counters can answer, and otherwise ends at a limit.
    async fn count(&self, tenant: &Tenant, filter: &JobFilter) -> Result<v1::CancelJobsResponse, EngineError> {
        if filter.is_by_state_only() {
            let states = OPEN_STATES.into_iter().filter(|state| filter.admits_state(*state));
            let keys: Vec<String> = states.map(|state| keys::jobs_in(tenant, state)).collect();
            let jobs: i64 = self.records.store.counters(&keys).await?.into_iter().sum();
            return Ok(v1::CancelJobsResponse { matching: u64::try_from(jobs).unwrap_or_default(), more: false });
        }
        let (mut matching, mut scanned, mut from) = (0, 0, String::new());
        while scanned < MAX_COUNTED_JOBS {
            let range = Range::first(keys::open_jobs(tenant), COUNT_STEP).from(from);
            let ids = self.records.store.range(range).await?;
            let ids_of_jobs = ids.iter().filter_map(|id| id.parse().ok());
            let jobs = self.records.readable_jobs(ids_of_jobs, &mut Failures::default()).await?;
            let open = jobs.iter().filter(|job| !job.value.has_ended());
            matching += open.filter(|job| filter.admits(&job.value)).count() as u64;
            scanned += ids.len();
            match ids.last().filter(|_| ids.len() == COUNT_STEP) {
                Some(last) => from = keys::after_entry(last),
                None => return Ok(v1::CancelJobsResponse { matching, more: false }),
            }
        }
        Ok(v1::CancelJobsResponse { matching, more: true })
    }

    /// Lets the bulk cancellations of all tenants reach their next jobs. A failure for one tenant is logged, so that it stops neither the
    /// other tenants nor the sweeps that come after this one.
    pub(crate) async fn go_on_cancelling(&self) -> Result<Reached, EngineError> {
        let tenants = self.records.store.range(Range::first(keys::CANCELLING, TENANTS_PER_ROUND)).await?;
        let mut all = Reached::default();
        for tenant in tenants.iter().filter_map(|tenant| tenant.parse().ok()) {
            match self.cancel_next(&tenant).await {
                Ok(reached) => {
                    all.jobs += reached.jobs;
                    all.pages += reached.pages;
                }
                Err(unavailable @ EngineError::StoreUnavailable(_)) => return Err(unavailable),
                Err(error) => self
                    .context
                    .log_throttle
                    .error(&error, &format!("a bulk cancellation of tenant {tenant} cannot go on")),
            }
        }
        metrics::counter!("sortinghat_bulk_cancelled_jobs_total").increment(all.jobs as u64);
        Ok(all)
    }

    /// Lets a tenant's first bulk cancellation reach its next jobs. The cursor moves only after all of these jobs were told to stop, so a
    /// crash or a conflict at any point repeats work, but skips no job.
    async fn cancel_next(&self, tenant: &Tenant) -> Result<Reached, EngineError> {
        let read = self.records.read::<QueueRecord>(keys::queue(tenant)).await?;
        let Some(Versioned { value: queue, .. }) = &read else { return Ok(Reached::default()) };
        let Some(cancellation) = queue.cancellations.first() else { return Ok(Reached::default()) };
        let open = Range::first(keys::open_jobs(tenant), JOBS_PER_ROUND).from(cancellation.cursor.clone());
        let open = self.records.store.range(open).await?;
        let mut jobs = self.records.jobs(open.iter().filter_map(|id| id.parse().ok())).await?;
        jobs.retain(|job| !job.value.has_ended() && !job.value.progress.cancel_requested && queue.cancels(&job.value));
        if self.stop_jobs(&jobs, StopCause::Cancelled).await?.contains(&false) {
            return Ok(Reached::default());
        }
        let mut after = queue.clone();
        after.reach(open.last().filter(|_| open.len() == JOBS_PER_ROUND).map(|last| keys::after_entry(last)));
        // If another change came between, the next round reaches the same jobs again, which then have ended or were told already.
        let is_passed = self.records.apply_one(queue_batch(tenant, &read, &after)).await?;
        Ok(Reached { jobs: jobs.len(), pages: usize::from(is_passed) })
    }
}
