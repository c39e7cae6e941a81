//! The small loops that move time on: leases that ran out, retries that are due, children of jobs that ended, deadlines, bulk
//! cancellations, jobs that ended long ago.

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

/// Tasks that one round of a sweep moves.
const TASKS_PER_ROUND: usize = 500;
/// Leases after which a silent worker is forgotten.
const LEASES_TO_REMEMBER: u64 = 10;

/// What one round of all sweeps did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Leases that ran out.
    pub expired: usize,
    /// Tasks that may be claimed from now on: a backoff is over, or the time has come before which they should not start.
    pub released: usize,
    /// Children that heard of their parents' end.
    pub told: usize,
    /// Jobs whose deadline passed.
    pub overdue: usize,
    /// Jobs that a bulk cancellation reached.
    pub cancelled: usize,
    /// Pages of open jobs that bulk cancellations have passed, whether or not a job of theirs matched.
    pub passed: usize,
    /// Jobs that were forgotten.
    pub forgotten: usize,
    /// Records that forgotten jobs had left, and that are gone now.
    pub removed: usize,
    /// Ready queues that had been empty for long.
    pub closed: usize,
    /// Running tasks that were asked to give way.
    pub preempted: usize,
    /// Steps of divided jobs.
    pub settled: usize,
}

impl Swept {
    /// There is probably more of what comes in large numbers, so that the next round should not wait.
    fn has_more(&self) -> bool {
        let moved = [self.told, self.overdue, self.cancelled, self.passed, self.forgotten, self.removed];
        self.released >= TASKS_PER_ROUND || moved.iter().any(|moved| *moved > 0)
    }
}

/// Keeps leases from running out while workers could not be heard: after the start, and after an outage of the store.
#[derive(Debug, Default)]
pub(crate) struct ExpiryGrace(Mutex<Grace>);

#[derive(Debug, Clone, Copy, Default)]
enum Grace {
    /// Nobody could renew; the grace begins when the store answers again.
    #[default]
    Outage,
    /// Nothing runs out before this time, and what would have counts as infrastructure.
    Until(UnixMs),
}

impl ExpiryGrace {
    /// The store does not answer.
    fn outage(&self) {
        *self.grace() = Grace::Outage;
    }

    /// The time before which nothing runs out.
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
    /// Runs what happens by itself until told to stop: every sweep, again and again, and waking workers for which there are tasks.
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
            // This process was stopped, or the store hung, for so long that workers could not renew: an outage as well.
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
                Err(error) if !was_failing => tracing::error!(%error, "sweeps cannot work"),
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
            // Workers notice nothing of any other failure. It may last, and leases must run out meanwhile.
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
        self.dispatch.forget_left(now);
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
            closed: failures.pass(self.queues.close_empty_queues(now).await)?,
            preempted: failures.pass(self.dispatch.preempt(now).await)?,
            ..swept
        };
        failures.pass(self.measure_queue().await)?;
        failures.or(swept)
    }

    /// Ends the leases whose deadline has passed.
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

    /// Makes the tasks claimable whose wait is over.
    async fn release_due(&self, now: UnixMs) -> Result<usize, EngineError> {
        let due = Range::first(keys::DELAYED, TASKS_PER_ROUND).until(keys::after_time(now));
        self.sweep_tasks(due, now, metrics::counter!("sortinghat_task_retries_total"), |_| Event::Due).await
    }

    /// Lets an event happen to each task of an index range, and counts these; those that have moved on meanwhile are left alone, and one
    /// that cannot be read is the error once the others are done.
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
