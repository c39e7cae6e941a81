//! The table of states and events. Every pair that is not in the table is an error.

use sortinghat_proto::{
    limits::{MAX_DEATHS_WITHOUT_PROGRESS, MAX_MEMORY_FAILURES, MIN_RUN_BEFORE_PREEMPTION_MS},
    time::UnixMs,
    v1::{AttemptOutcome, ErrorCode, Failure, FailureClass},
};

use super::{Event, Lease, Outcome, Output, State, Task, Token, backoff_ms};

/// How long a preempted task is not claimed again, in milliseconds.
const GIVE_WAY_MS: u64 = 5_000;

/// The durations that the rules depend on.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The duration of a lease, in milliseconds.
    pub lease_ttl_ms: u64,
    /// How long failures of infrastructure are retried, counted from the first one, in milliseconds.
    pub infrastructure_budget_ms: u64,
}

/// The entry of the job's history that a transition causes.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A worker was given this lease.
    AttemptStarted(Lease),
    /// The attempt under this lease has ended.
    AttemptEnded {
        /// The lease.
        lease: Lease,
        /// How the attempt ended.
        outcome: AttemptOutcome,
        /// Why the attempt ended, unless it succeeded.
        failure: Option<Failure>,
    },
}

/// Why an event may not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The lease is not held any more, or was never held. Nothing changes.
    #[error("the lease is not held any more")]
    Stale,
    /// The task may not be claimed or preempted yet.
    #[error("it is too early for that")]
    TooEarly,
    /// The lease has not run out yet.
    #[error("the lease has not run out yet")]
    NotExpired,
    /// The attempt has shown no progress for too long.
    #[error("the attempt shows no progress")]
    Stalled,
    /// The event cannot happen in this state.
    #[error("the task is in a state in which this cannot happen")]
    WrongState,
}

/// A task that a worker held for this long, in milliseconds, does not count as given back at once. The worker may have drained, the task may have
/// been preempted, or the tasks before it may have taken longer than expected.
const SHORTEST_RUN_MS: u64 = 1_000;

type Step = Result<(Task, Vec<Effect>), Rejection>;

/// The task after `event` at the time `now`, with the entries of the history, or the reason why the event may not happen.
///
/// An event that has happened already, such as the same completion, checkpoint or cancellation again, leaves the task unchanged.
pub fn transition(task: &Task, event: &Event, now: UnixMs, rules: &Rules) -> Step {
    match (&task.state, event) {
        (State::Blocked, Event::ParentsSucceeded) => moved(task, task.when_ready(now)),
        (State::Blocked, Event::ParentFailed(parent)) => {
            moved(task, State::Cancelled { failure: parent_failed(parent) })
        }
        (State::Blocked | State::Ready { .. }, Event::Cancel) => {
            let task = Task { cancel_requested: true, ..task.clone() };
            moved(&task, State::Cancelled { failure: cancelled_by_user() })
        }
        (State::Blocked | State::Ready { .. }, Event::Overdue) => {
            let task = Task { overdue: true, ..task.clone() };
            moved(&task, State::Failed { failure: deadline_passed() })
        }
        (State::Ready { not_before: Some(at) }, Event::Due) if *at <= now => {
            moved(task, State::Ready { not_before: None })
        }
        (State::Ready { not_before: Some(at) }, Event::Claim(_) | Event::Due) if *at > now => Err(Rejection::TooEarly),
        (State::Ready { .. }, Event::Claim(worker)) => {
            claim(task, Token { epoch: next_epoch(task, now), worker: worker.clone() }, now, rules)
        }
        (State::Leased(lease), Event::Renew { token, idle_ms, stall_bound_ms }) if lease.token == *token => {
            if idle_ms > stall_bound_ms {
                return Err(Rejection::Stalled);
            }
            let deadline = lease.deadline.max(now.plus_ms(rules.lease_ttl_ms));
            moved(task, State::Leased(Lease { deadline, ..lease.clone() }))
        }
        (State::Leased(lease), Event::Checkpoint(token, object)) if lease.token == *token => {
            if task.checkpoint.as_ref() == Some(object) {
                return unchanged(task);
            }
            Ok((Task { checkpoint: Some(object.clone()), ..without_losses(task) }, Vec::new()))
        }
        (State::Leased(lease), Event::End(token, outcome)) if lease.token == *token => {
            let task = Task { reported_epoch: token.epoch, ..task.clone() };
            end(&task, lease, outcome, now, rules)
        }
        (State::Leased(lease), Event::Expire { after_outage }) => expire(task, lease, *after_outage, now, rules),
        (State::Leased(_), Event::Cancel) => Ok((Task { cancel_requested: true, ..task.clone() }, Vec::new())),
        (State::Leased(lease), Event::Preempt) if now.ms_since(lease.started) < MIN_RUN_BEFORE_PREEMPTION_MS => {
            Err(Rejection::TooEarly)
        }
        (State::Leased(lease), Event::Preempt) => {
            let preempted = Some(lease.preempted.unwrap_or(now));
            moved(task, State::Leased(Lease { preempted, ..lease.clone() }))
        }
        // The task stops for the reason that came first.
        (State::Leased(_), Event::Overdue) if task.cancel_requested => unchanged(task),
        (State::Leased(_), Event::Overdue) => {
            Ok((Task { cancel_requested: true, overdue: true, ..task.clone() }, Vec::new()))
        }
        (state, Event::Cancel | Event::Overdue) if state.is_terminal() => unchanged(task),
        (state, Event::End(token, outcome)) if is_repetition(task, state, token, outcome) => unchanged(task),
        (_, Event::Renew { .. } | Event::Checkpoint(..) | Event::End(..)) => Err(Rejection::Stale),
        (_, Event::ParentsSucceeded | Event::ParentFailed(_) | Event::Due) => Err(Rejection::WrongState),
        (_, Event::Claim(_) | Event::Expire { .. }) => Err(Rejection::WrongState),
        (_, Event::Cancel | Event::Overdue | Event::Preempt) => Err(Rejection::WrongState),
    }
}

fn moved(task: &Task, state: State) -> Step {
    Ok((Task { state, ..task.clone() }, Vec::new()))
}

fn unchanged(task: &Task) -> Step {
    Ok((task.clone(), Vec::new()))
}

/// An epoch that is greater than every earlier one. It contains the time, so that this holds even after the store was restored from an old
/// backup.
fn next_epoch(task: &Task, now: UnixMs) -> u64 {
    (task.last_epoch + 1).max(now.0 << 12)
}

fn claim(task: &Task, token: Token, now: UnixMs, rules: &Rules) -> Step {
    let attempt = task.attempts + 1;
    let last_epoch = token.epoch;
    let lease = Lease { token, deadline: now.plus_ms(rules.lease_ttl_ms), attempt, started: now, preempted: None };
    let state = State::Leased(lease.clone());
    Ok((Task { state, last_epoch, attempts: attempt, ..task.clone() }, vec![Effect::AttemptStarted(lease)]))
}

/// Whether this is the same completion again. A success must also have the same output.
fn is_repetition(task: &Task, state: &State, token: &Token, outcome: &Outcome) -> bool {
    let same_success = match (state, outcome) {
        (State::Succeeded { epoch, output }, Outcome::Succeeded(again)) => *epoch == token.epoch && output == again,
        (State::Succeeded { .. }, _) | (_, Outcome::Succeeded(_)) => false,
        _ => true,
    };
    same_success && token.epoch == task.reported_epoch
}

fn end(task: &Task, lease: &Lease, outcome: &Outcome, now: UnixMs, rules: &Rules) -> Step {
    let ended = |outcome, failure| Effect::AttemptEnded { lease: lease.clone(), outcome, failure };
    let succeeded = |output: &Output| {
        let state = State::Succeeded { epoch: lease.token.epoch, output: output.clone() };
        Ok((Task { state, ..task.clone() }, vec![ended(AttemptOutcome::Succeeded, None)]))
    };
    match outcome {
        Outcome::Succeeded(output @ Output::Made { .. }) => succeeded(output),
        _ if task.cancel_requested => {
            let (state, failure) = stopped(task);
            Ok((Task { state, ..task.clone() }, vec![ended(AttemptOutcome::Cancelled, Some(failure))]))
        }
        // A cancelled job is not divided (see above), since with a count its work would only begin.
        Outcome::Succeeded(output @ Output::Counted { .. }) => succeeded(output),
        Outcome::Failed(failure) => {
            let effect = ended(AttemptOutcome::Failed, Some(failure.clone()));
            let after = match failure.failure_class() {
                FailureClass::Infrastructure => transient(task, failure, now, rules),
                FailureClass::Suspect => death(task, failure, now),
                FailureClass::OutOfMemory => out_of_memory(task, failure, now),
                FailureClass::User | FailureClass::Unspecified => {
                    Task { state: State::Failed { failure: failure.clone() }, ..task.clone() }
                }
            };
            Ok((after, vec![effect]))
        }
        Outcome::Crashed(cause) => {
            let failure = process_died(cause.clone());
            Ok((death(task, &failure, now), vec![ended(AttemptOutcome::Crashed, Some(failure))]))
        }
        Outcome::Returned(reason) => {
            Ok((returned(task, lease, now), vec![ended(AttemptOutcome::Returned, given_back(reason))]))
        }
        // Nobody wanted the task to stop, so the worker has in fact given it back.
        Outcome::Cancelled => {
            let failure = given_back("the worker stopped it");
            Ok((returned(task, lease, now), vec![ended(AttemptOutcome::Returned, failure)]))
        }
    }
}

fn expire(task: &Task, lease: &Lease, after_outage: bool, now: UnixMs, rules: &Rules) -> Step {
    if lease.deadline > now {
        return Err(Rejection::NotExpired);
    }
    let failure = lost(&lease.token, after_outage);
    let effect =
        Effect::AttemptEnded { lease: lease.clone(), outcome: AttemptOutcome::Lost, failure: Some(failure.clone()) };
    let after = if task.cancel_requested {
        Task { state: stopped(task).0, ..task.clone() }
    } else if after_outage {
        transient(task, &failure, now, rules)
    } else {
        death(task, &failure, now)
    };
    Ok((after, vec![effect]))
}

/// The final state of a task that was told to stop, and the reason.
fn stopped(task: &Task) -> (State, Failure) {
    if task.overdue {
        let failure = deadline_passed();
        (State::Failed { failure: failure.clone() }, failure)
    } else {
        let failure = cancelled_by_user();
        (State::Cancelled { failure: failure.clone() }, failure)
    }
}

/// A failure that is not the task's fault: the task is tried again with backoff, within the time budget.
fn transient(task: &Task, failure: &Failure, now: UnixMs, rules: &Rules) -> Task {
    let failing_since = task.failing_since.unwrap_or(now);
    let transient_failures = task.transient_failures.saturating_add(1);
    let state = if now.ms_since(failing_since) >= rules.infrastructure_budget_ms {
        State::Failed { failure: failure.clone() }
    } else {
        ready_after(task, transient_failures, now)
    };
    Task { state, transient_failures, failing_since: Some(failing_since), ..task.clone() }
}

/// A death that may be the task's fault: the task is tried again until it has died too often without progress.
fn death(task: &Task, failure: &Failure, now: UnixMs) -> Task {
    let deaths = task.deaths + 1;
    let state = if deaths >= MAX_DEATHS_WITHOUT_PROGRESS {
        State::Failed { failure: poison(failure) }
    } else {
        ready_after(task, deaths, now)
    };
    Task { state, deaths, ..task.clone() }
}

/// The task was too large for the machine: it is tried once more, in smaller pieces or on a larger machine. This does not count as a death.
fn out_of_memory(task: &Task, failure: &Failure, now: UnixMs) -> Task {
    let memory_failures = task.memory_failures + 1;
    let state = if memory_failures >= MAX_MEMORY_FAILURES {
        State::Failed { failure: failure.clone() }
    } else {
        ready_after(task, memory_failures, now)
    };
    Task { state, memory_failures, ..task.clone() }
}

/// The task was given back, which is nobody's fault: it may be claimed again at once, or with backoff if workers give it back at once several
/// times in a row. A preempted task waits a moment, so that its slot goes to the more urgent task.
fn returned(task: &Task, lease: &Lease, now: UnixMs) -> Task {
    if lease.preempted.is_some() {
        return Task { state: State::Ready { not_before: Some(now.plus_ms(GIVE_WAY_MS)) }, ..task.clone() };
    }
    let ran = now.ms_since(lease.started) >= SHORTEST_RUN_MS;
    let (state, returns) = match task.returns {
        _ if ran => (State::Ready { not_before: None }, 0),
        0 => (State::Ready { not_before: None }, 1),
        returns => (ready_after(task, returns, now), returns.saturating_add(1)),
    };
    Task { state, returns, ..task.clone() }
}

fn ready_after(task: &Task, retry: u32, now: UnixMs) -> State {
    let seed = task.id.to_string().bytes().fold(task.last_epoch, |seed, byte| seed.rotate_left(7) ^ u64::from(byte));
    State::Ready { not_before: Some(now.plus_ms(backoff_ms(retry, seed))) }
}

/// The task after progress, from which on earlier losses do not count any more.
fn without_losses(task: &Task) -> Task {
    Task { deaths: 0, memory_failures: 0, transient_failures: 0, failing_since: None, returns: 0, ..task.clone() }
}

fn failure(failure_class: FailureClass, code: ErrorCode, message: String) -> Failure {
    Failure { failure_class: failure_class.into(), code: code.into(), message, field: String::new() }
}

/// The reason of a task or a job that its user cancelled.
pub fn cancelled_by_user() -> Failure {
    failure(FailureClass::User, ErrorCode::Cancelled, "cancelled by its user".to_owned())
}

/// The reason of a task or a job whose deadline passed.
pub fn deadline_passed() -> Failure {
    let message = "not done by its deadline: a retry of it has no deadline".to_owned();
    failure(FailureClass::User, ErrorCode::DeadlineExceeded, message)
}

fn parent_failed(parent: &str) -> Failure {
    failure(FailureClass::User, ErrorCode::ParentFailed, format!("job {parent}, which this job needs, did not succeed"))
}

fn process_died(cause: String) -> Failure {
    failure(FailureClass::Suspect, ErrorCode::ProcessDied, cause)
}

fn given_back(reason: &str) -> Option<Failure> {
    Some(failure(FailureClass::Infrastructure, ErrorCode::ResourceExhausted, reason.to_owned()))
}

fn lost(token: &Token, after_outage: bool) -> Failure {
    let worker = &token.worker;
    if after_outage {
        let message = format!("worker {worker} has not reported since the coordinator or its store was unavailable");
        return failure(FailureClass::Infrastructure, ErrorCode::StorageUnavailable, message);
    }
    process_died(format!("worker {worker} has not reported for a whole lease"))
}

fn poison(last: &Failure) -> Failure {
    let message =
        format!("{MAX_DEATHS_WITHOUT_PROGRESS} attempts died without making progress; the last one: {}", last.message);
    failure(FailureClass::Suspect, ErrorCode::Poison, message)
}
