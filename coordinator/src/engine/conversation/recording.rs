//! Recording a worker's reports on its leases: events, progress, renewals and outcomes.

use std::collections::HashMap;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use sortinghat_proto::{
    ObjectRef, TaskId, VersionedName,
    limits::{MAX_EVENTS_PER_ATTEMPT, MAX_UPLOAD_FILES},
    time::UnixMs,
    v1::{self, ErrorCode, FailureClass, attempt_event, job_event},
};

use super::{Conversation, reports::LeaseReport};
use crate::{
    engine::{
        changes::{Change, Loaded, Prepared, Reservation},
        context::{MAX_TRIES, bounded},
        error::EngineError,
        queues::Gate,
        records::{JobRecord, LastVersionRecord, expectation, keys},
    },
    queue::{Division, Event, Outcome, Output, Role, Token},
};

/// How many events one batch records, so that it stays below the size limit of a batch even with the longest texts.
const EVENTS_PER_BATCH: usize = 32;
/// How many reports are recorded concurrently.
const REPORTS_AT_A_TIME: usize = 32;
/// How many items a job can have: the files of its upload.
const MAX_ITEMS: u64 = MAX_UPLOAD_FILES as u64;

/// The result of a recorded report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// The outcome is recorded, or refused as stale. In both cases the worker may forget the lease.
    pub(crate) outcome: bool,
    /// Events of the report have become durable.
    pub(crate) events: bool,
}

/// How much of a report was entered into a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entered {
    /// All of it.
    All,
    /// A part of it. More events are left, and the outcome or the renewal after them.
    Part,
    /// Nothing, because the worker does not hold the lease any more.
    Stale,
}

/// A report that is being recorded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming<'r> {
    report: &'r LeaseReport,
    /// When it arrived.
    now: UnixMs,
    /// For how long the answer may be held, in milliseconds.
    held_ms: u64,
    /// For how long the lease's beat has not changed, in milliseconds.
    idle_ms: u64,
    /// Events of the report were entered.
    events: bool,
}

/// One step of recording: as much of a report as one batch can hold, entered into the task as it was read.
pub(super) struct Step<'r> {
    incoming: Incoming<'r>,
    entered: Entered,
    pub(crate) prepared: Option<Prepared>,
    outcome: Option<Outcome>,
    /// The outcome could be verified, or there is none.
    is_certain: bool,
}

impl Conversation {
    /// Begins to record a report that arrived at `now`, and whose answer may be held for `held_ms`.
    pub(super) fn incoming<'r>(&self, report: &'r LeaseReport, now: UnixMs, held_ms: u64) -> Incoming<'r> {
        let idle_ms = self.workers.sessions.idle_ms(&report.token.worker, &report.name(), report.beat, now);
        Incoming { report, now, held_ms, idle_ms, events: false }
    }

    /// Makes the first step of every report, from the tasks as they were read.
    pub(super) async fn steps<'r>(
        &self,
        all: Vec<Incoming<'r>>,
        loaded: &HashMap<TaskId, Loaded>,
    ) -> Result<Vec<Step<'r>>, EngineError> {
        let steps: Vec<_> =
            all.into_iter().map(|incoming| self.step(incoming, loaded.get(&incoming.report.task))).collect();
        stream::iter(steps).buffered(REPORTS_AT_A_TIME).try_collect().await
    }

    /// Records the rest of the reports, once it is known which of their first steps were applied. Repeated events are recorded once. A
    /// report on a lease that the worker does not hold changes nothing.
    pub(super) async fn take_rest(
        &self,
        steps: Vec<Step<'_>>,
        loaded: &HashMap<TaskId, Loaded>,
        applied: Vec<bool>,
    ) -> Result<Vec<Taken>, EngineError> {
        let rest = steps.into_iter().zip(applied).map(|(step, applied)| async move {
            match self.conclude(&step, loaded.get(&step.incoming.report.task), applied) {
                Some(taken) => Ok(taken),
                None => self.take(step.incoming).await,
            }
        });
        let rest: Vec<_> = rest.collect();
        stream::iter(rest).buffered(REPORTS_AT_A_TIME).try_collect().await
    }

    /// Records the rest of a report, step by step.
    async fn take(&self, mut incoming: Incoming<'_>) -> Result<Taken, EngineError> {
        let mut tries = 0;
        while tries < MAX_TRIES {
            let loaded = self.changes.tasks.load(std::slice::from_ref(&incoming.report.task)).await?;
            let mut step = self.step(incoming, loaded.first()).await?;
            let applied = match step.prepared.take() {
                Some(prepared) => self.changes.commit(prepared).await?,
                None => true,
            };
            if let Some(taken) = self.conclude(&step, loaded.first(), applied) {
                return Ok(taken);
            }
            // Only lost races count as tries, since a long report needs many steps.
            tries += usize::from(!applied);
            incoming = step.incoming;
        }
        Err(EngineError::contended(&incoming.report.task))
    }

    /// Makes one step of a report, from the task as it was read.
    async fn step<'r>(&self, mut incoming: Incoming<'r>, loaded: Option<&Loaded>) -> Result<Step<'r>, EngineError> {
        let report = incoming.report;
        let stale = Step { incoming, entered: Entered::Stale, prepared: None, outcome: None, is_certain: true };
        let Some(loaded) = loaded else { return Ok(stale) };
        let mut change = Change::new(loaded, incoming.now);
        let verified = self.verified(report, loaded, &mut change).await;
        if let Err(error) = &verified {
            // The task still counts as running: its lease is renewed, and its worker reports the outcome again. The reports on the worker's
            // other leases are not delayed.
            tracing::warn!(task = %report.task, %error, "an outcome cannot be verified now; the worker repeats it");
            metrics::counter!("sortinghat_unverified_outcomes_total").increment(1);
        }
        let is_certain = verified.is_ok();
        let outcome = verified.unwrap_or_default();
        if let Some(outcome) = &outcome {
            self.heed_bulk_cancellation(&mut change, outcome).await?;
        }
        let entered = self.enter(&mut change, &incoming, outcome.as_ref())?;
        if entered == Entered::Stale {
            return Ok(stale);
        }
        incoming.events |= change.task().events.acknowledged > loaded.task().events.acknowledged;
        Ok(Step { incoming, entered, prepared: change.prepare()?, outcome, is_certain })
    }

    /// The result of a report after a step; `None` while there is more to record.
    fn conclude(&self, step: &Step<'_>, loaded: Option<&Loaded>, applied: bool) -> Option<Taken> {
        let Incoming { report, now, events, .. } = step.incoming;
        match (step.entered, loaded) {
            (Entered::Stale, _) | (_, None) => Some(Taken { outcome: report.outcome.is_some(), events: false }),
            (Entered::All, Some(loaded)) if applied => {
                self.note_progress(report, loaded, now);
                self.note_duration(step.outcome.as_ref(), loaded, now);
                Some(Taken { outcome: report.outcome.is_some() && step.is_certain, events })
            }
            (Entered::All | Entered::Part, Some(loaded)) => {
                if !applied {
                    self.collection.invalidate(&loaded.job.value.tenant);
                }
                None
            }
        }
    }

    /// Verifies the outcome before it is committed: an output must exist in the object store and be what the task makes, and a count must be
    /// possible. Also sets the
    /// name that the output will have, or the division of the job, in `change`. Returns the outcome, which is a failure if the verification
    /// has failed, or `None` if the report has none.
    async fn verified(
        &self,
        report: &LeaseReport,
        loaded: &Loaded,
        change: &mut Change<'_>,
    ) -> Result<Option<Outcome>, EngineError> {
        let held = loaded.task().task.lease().filter(|lease| lease.token == report.token);
        if let (Some(_), Some(Outcome::Failed(failure))) = (held, &report.outcome)
            && failure.code() == ErrorCode::CorruptObject
        {
            let failure = self.collection.blame_for_lost(&loaded.job.value.tenant, failure).await?;
            return Ok(Some(Outcome::Failed(failure)));
        }
        let (Some(lease), Some(Outcome::Succeeded(output))) = (held, report.outcome.as_ref()) else {
            return Ok(report.outcome.clone());
        };
        let role = loaded.job.value.role(&report.task);
        let manifest = match output {
            Output::Made { manifest, .. } => manifest,
            Output::Counted { items } if role == Role::Whole && (1..=MAX_ITEMS).contains(items) => {
                change.division = Some(Division::new(*items, self.context.settings.shard_items));
                return Ok(report.outcome.clone());
            }
            Output::Counted { items } => {
                let cause = format!("the worker counted {items} items, which is impossible or was not asked for");
                return Ok(Some(Outcome::Crashed(cause)));
            }
        };
        let Some((key, expected)) =
            self.collection.fence_output(&loaded.job.value.tenant, manifest, lease.started).await?
        else {
            let message = format!("manifest {}, or a part of it, is not in the object store", manifest.digest);
            return Ok(Some(Outcome::Failed(v1::Failure {
                failure_class: FailureClass::Infrastructure.into(),
                code: ErrorCode::CorruptObject.into(),
                message,
                field: String::new(),
            })));
        };
        if let Some(fault) = self.fault_of_output(&loaded.job.value, role, manifest).await? {
            metrics::counter!("sortinghat_refused_outputs_total").increment(1);
            let cause = format!("the worker reported success with manifest {}, but {fault}", manifest.digest);
            return Ok(Some(Outcome::Crashed(cause)));
        }
        change.require(key, expected);
        if let Role::Whole | Role::Finish = role {
            change.reservation = self.reserve(&loaded.job.value).await?;
        }
        Ok(report.outcome.clone())
    }

    /// Cancels a task that a bulk cancellation matches but has not reached yet, so that no new attempt follows an attempt without a result.
    async fn heed_bulk_cancellation(&self, change: &mut Change<'_>, outcome: &Outcome) -> Result<(), EngineError> {
        let is_result = matches!(outcome, Outcome::Succeeded(Output::Made { .. }));
        if is_result || change.task().task.cancel_requested {
            return Ok(());
        }
        let gates = self.queues.gates(std::iter::once(&change.job().tenant)).await?;
        gates.hold(change);
        if gates.gate(change.job()) == Gate::Cancelled {
            change.happen(&Event::Cancel, &self.context.rules)?;
        }
        Ok(())
    }

    /// Reserves the next version of the job's output name; `None` if the output of its kind has no name.
    async fn reserve(&self, job: &JobRecord) -> Result<Option<Reservation>, EngineError> {
        let Some((kind, name)) = job.request.spec.output_name() else { return Ok(None) };
        let last = self.records.read::<LastVersionRecord>(keys::last_version(&job.tenant, kind, &name)).await?;
        let expected = expectation(&last);
        let version = last.map_or(0, |last| last.value.version) + 1;
        Ok(Some(Reservation { name: VersionedName { kind, name, version }, expected }))
    }

    /// Enters as much of a report into a change as one batch can hold: first the events, then the outcome, or else the renewal of the
    /// lease.
    fn enter(
        &self,
        change: &mut Change<'_>,
        incoming: &Incoming<'_>,
        outcome: Option<&Outcome>,
    ) -> Result<Entered, EngineError> {
        let Incoming { report, held_ms, idle_ms, .. } = *incoming;
        let Some(lease) = change.task().task.lease().filter(|lease| lease.token == report.token).cloned() else {
            let repeated = outcome.is_some_and(|outcome| {
                change.happen(&Event::End(report.token.clone(), outcome.clone()), &self.context.rules).is_ok()
            });
            if outcome.is_some() && !repeated {
                metrics::counter!("sortinghat_stale_completions_total").increment(1);
            }
            return Ok(Entered::Stale);
        };
        let acknowledged = change.task().events.acknowledged;
        let mut new_events = report.events.iter().filter(|event| event.sequence > acknowledged);
        for event in new_events.by_ref().take(EVENTS_PER_BATCH) {
            self.enter_event(change, &report.token, event)?;
        }
        if new_events.next().is_some() {
            return Ok(Entered::Part);
        }
        if let Some(outcome) = outcome {
            change.happen(&Event::End(report.token.clone(), outcome.clone()), &self.context.rules)?;
        } else if lease.deadline.ms_since(change.now()) < held_ms + self.context.rules.lease_ttl_ms * 2 / 3 {
            // The lease is renewed only if less than two thirds of it would be left at the end of the held call, when the worker learns of
            // a renewal. So at least two thirds of a lease are always left then, which is enough for the next message, even if its answer
            // is held for the longest time.
            let stall_bound_ms = change.job().kind.stall_bound_ms();
            let renewal = Event::Renew { token: report.token.clone(), idle_ms, stall_bound_ms };
            if change.happen(&renewal, &self.context.rules).is_err() {
                metrics::counter!("sortinghat_renewals_refused_total").increment(1);
            }
        }
        Ok(Entered::All)
    }

    fn enter_event(&self, change: &mut Change<'_>, token: &Token, event: &v1::AttemptEvent) -> Result<(), EngineError> {
        use attempt_event::Event as Wire;
        change.task_mut().events.acknowledged = event.sequence;
        match event.event.clone() {
            Some(Wire::EpochFinished(metrics)) => change.record_of_attempt(job_event::Event::EpochFinished(metrics)),
            Some(Wire::Notice(notice)) => {
                let notice = v1::Notice { message: bounded(notice.message), ..notice };
                change.record_of_attempt(job_event::Event::Notice(notice));
            }
            Some(Wire::Log(line)) => {
                change.record_of_attempt(job_event::Event::Log(v1::LogLine { text: bounded(line.text) }));
            }
            Some(Wire::Checkpoint(object)) => match ObjectRef::try_from(object) {
                Ok(object) => {
                    change.happen(&Event::Checkpoint(token.clone(), object), &self.context.rules)?;
                }
                Err(refusal) => tracing::warn!(%refusal, "ignored a checkpoint whose reference is invalid"),
            },
            None => tracing::warn!(task = %change.task().task.id, "ignored an event of an unknown kind"),
        }
        Ok(())
    }

    /// Notes how long a successful attempt took, for estimates.
    fn note_duration(&self, outcome: Option<&Outcome>, loaded: &Loaded, now: UnixMs) {
        if let (Some(Outcome::Succeeded(_)), Some(lease)) = (outcome, loaded.task().task.lease()) {
            self.workers.durations.note(loaded.job.value.kind, now.ms_since(lease.started));
        }
    }

    fn note_progress(&self, report: &LeaseReport, loaded: &Loaded, now: UnixMs) {
        let task = loaded.id();
        match &report.progress {
            _ if report.outcome.is_some() => self.workers.progress.clear(task),
            Some(progress) => self.workers.progress.set(task, progress.clone(), now),
            None => {}
        }
    }
}

impl Change<'_> {
    /// Appends an attempt's event to the job's history. Beyond the limits of one attempt an event is only counted as dropped.
    fn record_of_attempt(&mut self, event: job_event::Event) {
        let is_log = matches!(event, job_event::Event::Log(_));
        let events = &mut self.task_mut().events;
        let is_full = events.recorded >= MAX_EVENTS_PER_ATTEMPT;
        let is_log_full = is_log && events.log_lines >= MAX_EVENTS_PER_ATTEMPT / 4;
        if is_full || is_log_full {
            events.dropped += 1;
            metrics::counter!("sortinghat_events_dropped_total").increment(1);
            return;
        }
        events.recorded += 1;
        events.log_lines += u64::from(is_log);
        self.record(event);
    }
}
