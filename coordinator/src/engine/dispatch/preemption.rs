//! Preemption: a running task is asked to give way to a more urgent task that waits and finds no slot.
//!
//! A waiting task is more urgent than a running one if it is interactive and the running task is bulk, or if its priority is higher, and
//! still is by a whole step when ageing is counted. It takes a slot of another tenant only beyond that tenant's fair share. Only tasks of a
//! kind that can go on from a checkpoint give way, the least urgent task first, and only after they have run for a while.

use std::collections::HashMap;

use parking_lot::Mutex;
use sortinghat_proto::{
    Lane, TaskId, Tenant,
    limits::MIN_RUN_BEFORE_PREEMPTION_MS,
    time::UnixMs,
    v1::{self, NoticeLevel, job_event},
};

use super::Dispatch;
use crate::{
    engine::{
        changes::{Change, Loaded, Prepared},
        error::EngineError,
        records::{Failures, Rank, keys},
    },
    queue::{Event, Lease},
    store::Range,
};

/// How many running tasks one round considers. They are the least urgent ones.
const CONSIDERED: usize = 64;
/// For how long a task must have been the head of its queue, in milliseconds. This is longer than the task may be left to a better worker,
/// and longer than any idle worker needs to find it.
const WAITED_MS: u64 = 4_000;
/// For how long a worker may take to checkpoint before another task is asked, in milliseconds.
const PATIENCE_MS: u64 = 60_000;

/// Since when tasks have been the heads of their queues, as this process has seen it.
#[derive(Debug, Default)]
pub(super) struct WaitingHeads(Mutex<HashMap<TaskId, UnixMs>>);

impl WaitingHeads {
    /// The tasks among `heads`, which are the heads now, that have been heads for long enough.
    fn long(&self, heads: Vec<TaskId>, now: UnixMs) -> Vec<TaskId> {
        let mut seen = self.0.lock();
        let since = heads.into_iter().map(|task| (seen.get(&task).copied().unwrap_or(now), task));
        let since: Vec<(UnixMs, TaskId)> = since.collect();
        *seen = since.iter().map(|(since, task)| (task.clone(), *since)).collect();
        since.into_iter().filter(|(since, _)| now.ms_since(*since) >= WAITED_MS).map(|(_, task)| task).collect()
    }
}

/// A running task that can give way.
struct Running {
    loaded: Loaded,
    lease: Lease,
    rank: Rank,
}

impl Dispatch {
    /// Asks running tasks to give way, one for each queue whose head waits for a slot. Returns how many were asked.
    pub(crate) async fn preempt(&self, now: UnixMs) -> Result<usize, EngineError> {
        let entries = self.records.store.range(Range::first(keys::GIVING_WAY, CONSIDERED).descending()).await?;
        if entries.is_empty() {
            return Ok(0);
        }
        let mut failures = Failures::default();
        let waiting = self.waiting(now, &mut failures).await?;
        if waiting.is_empty() {
            return failures.or(0);
        }
        let ids: Vec<TaskId> = entries.iter().filter_map(|entry| keys::task_of_entry(entry)).collect();
        let running = |loaded: Loaded| {
            let lease = loaded.task().task.lease()?.clone();
            Some(Running { lease, rank: loaded.job.value.rank(), loaded })
        };
        let loaded = self.changes.tasks.load_readable(&ids, &mut failures).await?;
        let mut running: Vec<Running> = loaded.into_iter().filter_map(running).collect();
        let slots = self.slots_of(waiting.iter().chain(running.iter().map(|running| &running.rank))).await?;
        let mut asked = Vec::new();
        for waiting in &waiting {
            if let Some(found) = self.gives_way_to(waiting, &running, &slots, now) {
                asked.extend(self.ask(&running.remove(found).loaded, now)?);
            }
        }
        let applied = self.changes.commit_all(asked).await?;
        failures.or(applied.into_iter().flatten().count())
    }

    /// The heads of the ready queues that have waited for long enough and find no idle worker, the most urgent head first.
    async fn waiting(&self, now: UnixMs, failures: &mut Failures) -> Result<Vec<Rank>, EngineError> {
        let open = self.queues.unpaused_queues().await?;
        let first =
            self.records.store.ranges(open.iter().map(|queue| Range::first(queue.index(), 1)).collect()).await?;
        let heads = first.iter().filter_map(|first| keys::task_of_entry(first.first()?)).collect();
        let waiting = self.changes.tasks.load_readable(&self.waiting_heads.long(heads, now), failures).await?;
        let mut ranks: Vec<Rank> = waiting.iter().map(|loaded| loaded.job.value.rank()).collect();
        ranks.retain(|rank| !self.workers.sessions.any_is_idle(rank.queue.demand(), now, self.context.polling_ms()));
        ranks.sort_by_key(|rank| (rank.queue.lane, rank.order()));
        Ok(ranks)
    }

    /// How many tasks each tenant of these ranks runs.
    async fn slots_of(&self, ranks: impl Iterator<Item = &Rank>) -> Result<HashMap<Tenant, i64>, EngineError> {
        let mut tenants: Vec<Tenant> = ranks.map(|rank| rank.queue.tenant.clone()).collect();
        tenants.sort();
        tenants.dedup();
        let counters: Vec<String> = tenants.iter().map(keys::leased_of).collect();
        let slots = self.records.store.counters(&counters).await?;
        Ok(tenants.into_iter().zip(slots).collect())
    }

    /// Which of the running tasks, the least urgent of which comes first, should give way to a waiting task. `None` also if one that would
    /// help was asked already.
    fn gives_way_to(
        &self,
        waiting: &Rank,
        running: &[Running],
        slots: &HashMap<Tenant, i64>,
        now: UnixMs,
    ) -> Option<usize> {
        let is_able = |running: &Running| {
            let worker = &running.lease.token.worker;
            self.workers.sessions.is_able(worker, waiting.queue.demand(), now, self.context.polling_ms())
        };
        let is_going = |running: &Running| {
            running.lease.preempted.is_some_and(|asked| now.ms_since(asked) < PATIENCE_MS) && is_able(running)
        };
        if running.iter().any(is_going) {
            return None;
        }
        running.iter().position(|running| {
            running.lease.preempted.is_none()
                && !running.loaded.task().task.cancel_requested
                && now.ms_since(running.lease.started) >= MIN_RUN_BEFORE_PREEMPTION_MS
                && is_more_urgent(waiting, &running.rank)
                && self.is_fair(&waiting.queue.tenant, &running.rank.queue.tenant, slots)
                && is_able(running)
        })
    }

    /// Whether a tenant may take a slot of another tenant. It may if, in proportion to the weights, it then has no more slots than the
    /// other tenant has now.
    fn is_fair(&self, waiting: &Tenant, running: &Tenant, slots: &HashMap<Tenant, i64>) -> bool {
        let slots = |tenant| slots.get(tenant).copied().unwrap_or(0);
        let weight = |tenant| i64::from(self.queues.weight(tenant));
        waiting == running || (slots(waiting) + 1) * weight(running) <= slots(running) * weight(waiting)
    }

    fn ask(&self, running: &Loaded, now: UnixMs) -> Result<Option<Prepared>, EngineError> {
        let mut change = Change::new(running, now);
        if change.happen(&Event::Preempt, &self.context.rules).is_err() {
            return Ok(None);
        }
        metrics::counter!("sortinghat_preemptions_total").increment(1);
        change.record(job_event::Event::Notice(v1::Notice {
            level: NoticeLevel::Info.into(),
            message: "the task gives way to a more urgent job after its next checkpoint, and goes on later".to_owned(),
        }));
        change.prepare()
    }
}

fn is_more_urgent(waiting: &Rank, running: &Rank) -> bool {
    match (waiting.queue.lane, running.queue.lane) {
        (Lane::Interactive, Lane::Bulk) => true,
        (Lane::Bulk, Lane::Interactive) => false,
        (Lane::Interactive, Lane::Interactive) | (Lane::Bulk, Lane::Bulk) => {
            waiting.priority > running.priority && waiting.steps_before(running) >= 1
        }
    }
}
