//! The sweeps, and the loop that runs them.

use std::time::Duration;

use metrics::Counter;
use parking_lot::{Mutex, MutexGuard};
use sortinghat_proto::{TaskId, time::UnixMs};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Upkeep;
use crate::{
    engine::{
        changes::Change,
        error::EngineError,
        records::{Failures, keys},
    },
    queue::{Event, Phase},
    store::Range,
};

/// How many tasks one round of a sweep changes.
const TASKS_PER_ROUND: usize = 500;
/// After how many lengths of a lease a silent worker is forgotten.
const LEASES_TO_REMEMBER: u64 = 10;

/// The result of one round of all sweeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many leases expired.
    pub expired: usize,
    /// How many tasks became claimable, because their backoff is over or their start time has come.
    pub released: usize,
    /// How many children were told that a parent has ended.
    pub told: usize,
    /// How many jobs were stopped because their deadline has passed.
    pub overdue: usize,
    /// How many jobs a bulk cancellation has reached.
    pub cancelled: usize,
    /// How many pages of open jobs the bulk cancellations have passed, whether or not any job on them matched.
    pub passed: usize,
    /// How many jobs were forgotten.
    pub forgotten: usize,
    /// How many remaining records of forgotten jobs were removed.
    pub removed: usize,
    /// How many sessions of silent workers were forgotten.
    pub sessions: usize,
    /// How many ready queues were closed, because they had been empty for long.
    pub closed: usize,
    /// How many running tasks were asked to give way.
    pub preempted: usize,
    /// How many steps of settling divided jobs have taken.
    pub settled: usize,
}

impl Swept {
    /// Whether there is probably more work of a sort that comes in large numbers, so that the next round should begin at once.
    fn has_more(&self) -> bool {
        let moved = [self.told, self.overdue, self.cancelled, self.passed, self.forgotten, self.removed];
        self.released >= TASKS_PER_ROUND || moved.iter().any(|moved| *moved > 0)
    }
}

/// The grace of leases. Workers cannot renew their leases before the coordinator has started, or during an outage of the store. So no lease
/// expires until workers have had time to renew it.
#[derive(Debug, Default)]
pub(crate) struct ExpiryGrace(Mutex<Grace>);

#[derive(Debug, Clone, Copy, Default)]
enum Grace {
    /// Leases cannot be renewed now. The grace begins when the store answers again.
    #[default]
    Outage,
    /// No lease expires before this time. A lease whose deadline is not after it expires as a failure of infrastructure.
    Until(UnixMs),
}

impl ExpiryGrace {
    /// Notes that the store does not answer.
    fn outage(&self) {
        *self.grace() = Grace::Outage;
    }

    /// The time before which no lease expires.
    fn until(&self, now: UnixMs, lease_ttl_ms: u64) -> UnixMs {
        let mut grace = self.grace();
        match *grace {
            Grace::Until(until) => until,
            Grace::Outage => {
                let until = now.plus_ms(lease_ttl_ms);
                *grace = Grace::Until(until);
                until
            }
        }
    }

    fn grace(&self) -> MutexGuard<'_, Grace> {
        self.0.lock()
    }
}

impl Upkeep {
    /// Runs the sweeps again and again, and wakes waiting workers when tasks become ready, until `stop` is cancelled.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        tokio::join!(self.run_sweeps(&stop), self.dispatch.wake_workers(&stop));
    }

    async fn run_sweeps(&self, stop: &CancellationToken) {
        let pause = Duration::from_millis(self.context.settings.sweep_ms);
        let is_failing = |result: &Result<Swept, EngineError>| result.is_err();
        let (mut was_failing, mut has_more) = (false, false);
        let longest_wait = pause + Duration::from_millis(self.context.rules.lease_ttl_ms / 2);
        let mut hints = self.records.store.hints().listen([keys::UNSETTLED]);
        while !stop.is_cancelled() {
            let waits_since = Instant::now();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changes.settling.settle_when_hinted(&mut hints) => {}
                () = tokio::time::sleep(if has_more { Duration::ZERO } else { pause }) => {}
            }
            // If this process was stopped, or the store hung, for so long that workers could not renew their leases, this is an outage as
            // well.
            let answered = self.records.store.now().await;
            if waits_since.elapsed() > longest_wait {
                self.expiry.outage();
            }
            let result = match answered {
                Ok(_) => self.sweep().await,
                Err(error) => {
                    self.expiry.outage();
                    Err(error.into())
                }
            };
            match &result {
                Ok(swept) if *swept != Swept::default() => tracing::debug!(?swept, "swept"),
                Ok(_) => {}
                Err(error) if !was_failing => tracing::error!(%error, "the sweeps fail"),
                Err(_) => {}
            }
            was_failing = is_failing(&result);
            has_more = result.is_ok_and(|swept| swept.has_more());
        }
    }

    /// Runs one round of every sweep at the store's time.
    pub(crate) async fn sweep(&self) -> Result<Swept, EngineError> {
        let result = self.sweep_all().await;
        if let Err(error) = &result {
            metrics::counter!("sortinghat_sweep_failures_total").increment(1);
            // No other failure affects workers. Such a failure may last long, and leases must expire meanwhile.
            if matches!(error, EngineError::StoreUnavailable(_)) {
                self.expiry.outage();
            }
        }
        result
    }

    async fn sweep_all(&self) -> Result<Swept, EngineError> {
        let now = self.records.store.now().await?;
        self.workers.sessions.forget(now, self.context.rules.lease_ttl_ms * LEASES_TO_REMEMBER);
        self.workers.caches.keep(|worker| self.workers.sessions.knows(worker));
        self.workers.bindings.forget(now, self.context.rules.lease_ttl_ms * LEASES_TO_REMEMBER, |worker| {
            self.workers.sessions.knows(worker)
        });
        self.dispatch.forget_deferred(now);
        self.workers.progress.forget(now, self.context.rules.lease_ttl_ms * LEASES_TO_REMEMBER);
        let mut failures = Failures::default();
        let swept = Swept {
            expired: failures.pass(self.expire_leases(now).await)?,
            released: failures.pass(self.release_due(now).await)?,
            settled: failures.pass(self.changes.settling.settle_all().await)?,
            told: failures.pass(self.tell_dependents(now).await)?,
            overdue: failures.pass(self.stop_overdue(now).await)?,
            ..Swept::default()
        };
        let reached = failures.pass(self.jobs.go_on_cancelling().await)?;
        let swept = Swept {
            cancelled: reached.jobs,
            passed: reached.pages,
            forgotten: failures.pass(self.forget_jobs(now).await)?,
            removed: failures.pass(self.remove_remains().await)?,
            sessions: failures.pass(self.forget_sessions(now).await)?,
            closed: failures.pass(self.queues.close_empty_queues(now).await)?,
            preempted: failures.pass(self.dispatch.preempt(now).await)?,
            ..swept
        };
        failures.pass(self.measure_queue().await)?;
        failures.or(swept)
    }

    /// Expires the leases whose deadline has passed.
    async fn expire_leases(&self, now: UnixMs) -> Result<usize, EngineError> {
        let grace_until = self.expiry.until(now, self.context.rules.lease_ttl_ms);
        if now < grace_until {
            return Ok(0);
        }
        let due = Range::first(keys::LEASES, TASKS_PER_ROUND).until(keys::after_time(now));
        let expired = metrics::counter!("sortinghat_leases_expired_total");
        self.sweep_tasks(due, now, expired, |change| {
            let deadline = change.task().task.lease().map(|lease| lease.deadline);
            let after_outage = deadline.is_some_and(|deadline| deadline <= grace_until);
            Event::Expire { after_outage }
        })
        .await
    }

    /// Makes the delayed tasks claimable whose time has come.
    async fn release_due(&self, now: UnixMs) -> Result<usize, EngineError> {
        let due = Range::first(keys::DELAYED, TASKS_PER_ROUND).until(keys::after_time(now));
        self.sweep_tasks(due, now, metrics::counter!("sortinghat_task_retries_total"), |_| Event::Due).await
    }

    /// Applies an event to each task of an index range, and counts the changed tasks. A task that has changed meanwhile is skipped. A task
    /// that cannot be read is an error, which is returned after the other tasks are done.
    async fn sweep_tasks(
        &self,
        range: Range,
        now: UnixMs,
        counter: Counter,
        event: impl Fn(&Change<'_>) -> Event + Send,
    ) -> Result<usize, EngineError> {
        let entries = self.records.store.range(range).await?;
        if entries.is_empty() {
            return Ok(0);
        }
        let ids: Vec<TaskId> = entries.iter().filter_map(|entry| keys::task_of_entry(entry)).collect();
        let mut failures = Failures::default();
        let loaded = self.changes.tasks.load_readable(&ids, &mut failures).await?;
        let mut changes = Vec::with_capacity(loaded.len());
        let mut tasks = Vec::with_capacity(loaded.len());
        for loaded in &loaded {
            let mut change = Change::new(loaded, now);
            let event = event(&change);
            if change.happen(&event, &self.context.rules).is_ok()
                && let Some(prepared) = change.prepare()?
            {
                tasks.push(loaded.id());
                changes.push(prepared);
            }
        }
        let applied = self.changes.commit_all(changes).await?;
        let applied = tasks.iter().zip(applied).filter(|(_, applied)| applied.is_some());
        let swept = applied.inspect(|(task, _)| self.workers.progress.clear(task)).count();
        counter.increment(swept as u64);
        failures.or(swept)
    }

    async fn measure_queue(&self) -> Result<(), EngineError> {
        let phases = [("blocked", Phase::Blocked), ("ready", Phase::Ready), ("leased", Phase::Leased)];
        let keys = phases.map(|(_, phase)| keys::tasks_in(phase));
        for ((name, _), count) in phases.iter().zip(self.records.store.counters(&keys).await?) {
            metrics::gauge!("sortinghat_tasks", "phase" => *name).set(count as f64);
        }
        Ok(())
    }
}
