//! The rules of the queue: the table of states and events, and the invariants over random histories.

use proptest::prelude::*;
use sortinghat_coordinator::queue::{
    Event, Outcome, Output, Rejection, Rules, State, Task, Token, check_step, transition,
};
use sortinghat_proto::{
    JobId, ObjectRef, TaskId, WorkerId,
    limits::MAX_DEATHS_WITHOUT_PROGRESS,
    time::UnixMs,
    v1::{ErrorCode, Failure, FailureClass},
};

const RULES: Rules = Rules { lease_ttl_ms: 10_000, infrastructure_budget_ms: 600_000 };
const START: UnixMs = UnixMs(1_700_000_000_000);

fn task(has_parents: bool) -> Task {
    Task::new(TaskId::new(JobId::new(START.0, 7), 0), has_parents)
}

fn worker(name: &str) -> WorkerId {
    name.parse().expect("a worker id")
}

/// The task after an event, which must be allowed.
fn after(task: &Task, event: &Event, now: UnixMs) -> Task {
    let (after, _) = transition(task, event, now, &RULES).unwrap_or_else(|rejection| panic!("{event:?}: {rejection}"));
    check_step(task, &after, now).expect("no step breaks an invariant");
    after
}

/// The task after a claim, and the token of the lease.
fn claimed(task: &Task, now: UnixMs) -> (Task, Token) {
    let task = after(task, &Event::Claim(worker("w1")), now);
    let token = task.lease().expect("just claimed").token.clone();
    (task, token)
}

/// The task once its backoff is over, and the time then.
fn due(task: &Task) -> (Task, UnixMs) {
    match task.state {
        State::Ready { not_before: Some(at) } => (after(task, &Event::Due, at), at),
        _ => panic!("{:?} does not wait for a retry", task.state),
    }
}

fn failure(class: FailureClass) -> Failure {
    let code = ErrorCode::StorageUnavailable.into();
    Failure { failure_class: class.into(), code, message: "it broke".into(), field: String::new() }
}

fn success() -> Outcome {
    Outcome::Succeeded(Output::Made { manifest: ObjectRef::of(b"manifest"), summary: "done".into() })
}

fn crash() -> Outcome {
    Outcome::Crashed("signal 9".into())
}

/// The error code with which the task ended.
fn ended_with(task: &Task) -> ErrorCode {
    match &task.state {
        State::Failed { failure } | State::Cancelled { failure } => failure.code(),
        state => panic!("{state:?} is no failure"),
    }
}

#[test]
fn a_blocked_task_waits_for_its_parents_and_nothing_else() {
    let blocked = task(true);
    let claim = Event::Claim(worker("w1"));
    assert_eq!(transition(&blocked, &claim, START, &RULES), Err(Rejection::WrongState));
    assert_eq!(after(&blocked, &Event::ParentsSucceeded, START).state, State::Ready { not_before: None });
    let orphan = after(&blocked, &Event::ParentFailed("parent".into()), START);
    assert_eq!(ended_with(&orphan), ErrorCode::ParentFailed);
}

#[test]
fn epochs_grow_even_if_the_store_was_restored_from_an_old_backup() {
    let (task, token) = claimed(&task(false), START);
    assert_eq!(token.epoch, START.0 << 12);
    let (task, now) = due(&after(&task, &Event::End(token.clone(), crash()), START));
    let (_, later) = claimed(&task, now);
    assert!(later.epoch > token.epoch);
    let restored = Task { last_epoch: 3, ..task };
    assert!(claimed(&restored, now).1.epoch > token.epoch, "time has gone on although the record has not");
}

#[test]
fn a_clock_that_stands_still_does_not_stop_epochs() {
    let ahead = Task { last_epoch: u64::MAX / 2, ..task(false) };
    assert_eq!(claimed(&ahead, START).1.epoch, u64::MAX / 2 + 1);
}

#[test]
fn a_worker_that_lost_its_lease_changes_nothing() {
    let (task, old) = claimed(&task(false), START);
    let late = START.plus_ms(RULES.lease_ttl_ms);
    let (task, now) = due(&after(&task, &Event::Expire { after_outage: false }, late));
    let (task, _) = claimed(&task, now);
    let other_worker = Token { worker: worker("w2"), ..task.lease().expect("leased").token.clone() };
    for token in [old, other_worker] {
        let renew = Event::Renew { token: token.clone(), idle_ms: 0, stall_bound_ms: 1 };
        let checkpoint = Event::Checkpoint(token.clone(), ObjectRef::of(b"c"));
        for event in [renew, checkpoint, Event::End(token, success())] {
            assert_eq!(transition(&task, &event, now, &RULES), Err(Rejection::Stale), "{event:?}");
        }
    }
}

#[test]
fn a_repeated_completion_is_accepted_and_a_different_one_is_not() {
    let (leased, token) = claimed(&task(false), START);
    let done = after(&leased, &Event::End(token.clone(), success()), START);
    assert_eq!(after(&done, &Event::End(token.clone(), success()), START), done);
    let other = Outcome::Succeeded(Output::Made { manifest: ObjectRef::of(b"other"), summary: String::new() });
    for outcome in [other, crash()] {
        let again = transition(&done, &Event::End(token.clone(), outcome), START, &RULES);
        assert_eq!(again, Err(Rejection::Stale));
    }
    let crashed = after(&leased, &Event::End(token.clone(), crash()), START);
    assert_eq!(after(&crashed, &Event::End(token, crash()), START), crashed, "its report may come twice as well");
}

#[test]
fn a_lease_ends_at_its_deadline_and_not_before() {
    let (task, token) = claimed(&task(false), START);
    let expire = Event::Expire { after_outage: false };
    assert_eq!(transition(&task, &expire, START.plus_ms(9_999), &RULES), Err(Rejection::NotExpired));
    let renew = Event::Renew { token, idle_ms: 0, stall_bound_ms: 1_000 };
    let renewed = after(&task, &renew, START.plus_ms(5_000));
    assert_eq!(transition(&renewed, &expire, START.plus_ms(10_000), &RULES), Err(Rejection::NotExpired));
    after(&renewed, &expire, START.plus_ms(15_000));
}

#[test]
fn an_attempt_that_hangs_is_not_renewed() {
    let (task, token) = claimed(&task(false), START);
    let renew = Event::Renew { token, idle_ms: 1_001, stall_bound_ms: 1_000 };
    assert_eq!(transition(&task, &renew, START, &RULES), Err(Rejection::Stalled));
}

#[test]
fn three_deaths_are_poison_whichever_workers_died() {
    let mut task = task(false);
    let mut now = START;
    for death in 1..=MAX_DEATHS_WITHOUT_PROGRESS {
        let (leased, token) = claimed(&task, now);
        task = if death % 2 == 0 {
            now = now.plus_ms(RULES.lease_ttl_ms);
            after(&leased, &Event::Expire { after_outage: false }, now)
        } else {
            after(&leased, &Event::End(token, crash()), now)
        };
        if death < MAX_DEATHS_WITHOUT_PROGRESS {
            (task, now) = due(&task);
        }
    }
    assert_eq!(ended_with(&task), ErrorCode::Poison);
}

#[test]
fn a_new_checkpoint_resets_the_count_of_deaths_and_an_old_one_does_not() {
    let mut task = task(false);
    let mut now = START;
    for attempt in 0..10_u8 {
        let (leased, token) = claimed(&task, now);
        let checkpointed = after(&leased, &Event::Checkpoint(token.clone(), ObjectRef::of(&[attempt])), now);
        (task, now) = due(&after(&checkpointed, &Event::End(token, crash()), now));
    }
    let same = ObjectRef::of(&[9]);
    for _ in 0..2 {
        let (leased, token) = claimed(&task, now);
        let repeated = after(&leased, &Event::Checkpoint(token.clone(), same.clone()), now);
        task = after(&repeated, &Event::End(token, crash()), now);
        if !task.state.is_terminal() {
            (task, now) = due(&task);
        }
    }
    assert_eq!(ended_with(&task), ErrorCode::Poison, "three deaths since the checkpoint was new");
}

#[test]
fn infrastructure_failures_are_retried_within_the_budget_and_user_failures_never() {
    let mut task = task(false);
    let mut now = START;
    let mut retries = 0;
    while !task.state.is_terminal() {
        let (leased, token) = claimed(&task, now);
        task = after(&leased, &Event::End(token, Outcome::Failed(failure(FailureClass::Infrastructure))), now);
        if !task.state.is_terminal() {
            (task, now) = due(&task);
            retries += 1;
        }
    }
    assert!(retries > MAX_DEATHS_WITHOUT_PROGRESS, "{retries} retries");
    assert!(now.ms_since(START) >= RULES.infrastructure_budget_ms);
    let (leased, token) = claimed(&self::task(false), START);
    let refused = after(&leased, &Event::End(token, Outcome::Failed(failure(FailureClass::User))), START);
    assert!(matches!(refused.state, State::Failed { .. }));
}

#[test]
fn a_task_out_of_memory_is_tried_once_more_and_then_fails_without_being_poison() {
    let shortage = |token| Event::End(token, Outcome::Failed(failure(FailureClass::OutOfMemory)));
    let (leased, token) = claimed(&task(false), START);
    let (waiting, now) = due(&after(&leased, &shortage(token), START));
    assert_eq!((waiting.deaths, waiting.memory_failures), (0, 1));
    let (leased, token) = claimed(&waiting, now);
    let failed = after(&leased, &shortage(token.clone()), now);
    assert_eq!(ended_with(&failed), ErrorCode::StorageUnavailable, "as the worker said, and not poison");
    let progressed = after(&leased, &Event::Checkpoint(token.clone(), ObjectRef::of(b"c")), now);
    let again = after(&progressed, &shortage(token), now);
    assert!(!again.state.is_terminal(), "it had got somewhere");
}

#[test]
fn a_lease_that_expires_in_an_outage_counts_as_no_death() {
    let (task, _) = claimed(&task(false), START);
    let late = START.plus_ms(RULES.lease_ttl_ms);
    let lost = after(&task, &Event::Expire { after_outage: true }, late);
    assert_eq!((lost.deaths, lost.transient_failures), (0, 1));
}

#[test]
fn a_task_that_is_given_back_is_ready_at_once_and_counts_no_loss() {
    let (leased, token) = claimed(&task(false), START);
    let back = after(&leased, &Event::End(token, Outcome::Returned("draining".into())), START);
    assert_eq!(back.state, State::Ready { not_before: None });
    assert_eq!((back.deaths, back.transient_failures), (0, 0));
    let (leased, token) = claimed(&back, START);
    let again = after(&leased, &Event::End(token, Outcome::Returned("full".into())), START);
    assert!(matches!(again.state, State::Ready { not_before: Some(_) }), "not in a hot loop");
}

#[test]
fn a_task_that_several_draining_workers_give_back_is_ready_at_once_each_time() {
    let mut task = task(false);
    let mut now = START;
    for _ in 0..5 {
        let (leased, token) = claimed(&task, now);
        now = now.plus_ms(2_000);
        task = after(&leased, &Event::End(token, Outcome::Returned("draining".into())), now);
        assert_eq!(task.state, State::Ready { not_before: None });
    }
    assert_eq!(task.deaths, 0);
}

#[test]
fn a_cancellation_ends_a_waiting_task_and_asks_a_running_one_to_stop() {
    for waiting in [task(true), task(false)] {
        assert_eq!(ended_with(&after(&waiting, &Event::Cancel, START)), ErrorCode::Cancelled);
    }
    let (leased, token) = claimed(&task(false), START);
    let asked = after(&leased, &Event::Cancel, START);
    assert_eq!(asked.lease(), leased.lease(), "the worker holds its lease until it has stopped");
    for outcome in [Outcome::Cancelled, crash(), Outcome::Failed(failure(FailureClass::Infrastructure))] {
        let stopped = after(&asked, &Event::End(token.clone(), outcome), START);
        assert_eq!(ended_with(&stopped), ErrorCode::Cancelled);
    }
    let late = START.plus_ms(RULES.lease_ttl_ms);
    let silent = after(&asked, &Event::Expire { after_outage: false }, late);
    assert_eq!(ended_with(&silent), ErrorCode::Cancelled);
    let too_late = after(&asked, &Event::End(token, success()), START);
    assert!(matches!(too_late.state, State::Succeeded { .. }), "what was committed stays");
    assert_eq!(after(&too_late, &Event::Cancel, START), too_late);
}

#[test]
fn a_count_of_items_after_a_cancellation_does_not_divide_the_job() {
    let (leased, token) = claimed(&task(false), START);
    let counted = Event::End(token, Outcome::Succeeded(Output::Counted { items: 5_000 }));
    assert!(matches!(after(&leased, &counted, START).state, State::Succeeded { .. }));
    let told = after(&leased, &Event::Cancel, START);
    assert_eq!(ended_with(&after(&told, &counted, START)), ErrorCode::Cancelled);
}

#[test]
fn a_deadline_fails_a_waiting_task_and_stops_a_running_one_unless_it_was_cancelled_before() {
    for waiting in [task(true), task(false)] {
        let overdue = after(&waiting, &Event::Overdue, START);
        assert!(matches!(overdue.state, State::Failed { .. }));
        assert_eq!(ended_with(&overdue), ErrorCode::DeadlineExceeded);
    }
    let (leased, token) = claimed(&task(false), START);
    let told = after(&leased, &Event::Overdue, START);
    assert!(told.cancel_requested && told.lease() == leased.lease());
    let end = Event::End(token.clone(), Outcome::Cancelled);
    assert_eq!(ended_with(&after(&told, &end, START)), ErrorCode::DeadlineExceeded);
    let silent = after(&told, &Event::Expire { after_outage: false }, START.plus_ms(RULES.lease_ttl_ms));
    assert_eq!(ended_with(&silent), ErrorCode::DeadlineExceeded);
    let kept = after(&told, &Event::End(token, success()), START);
    assert!(matches!(kept.state, State::Succeeded { .. }), "a result that arrives is kept");
    let cancelled_before = after(&after(&leased, &Event::Cancel, START), &Event::Overdue, START);
    assert_eq!(ended_with(&after(&cancelled_before, &end, START)), ErrorCode::Cancelled);
}

#[test]
fn a_task_with_a_start_time_waits_for_it_even_after_its_parents() {
    let at = START.plus_ms(5_000);
    let alone = task(false).not_before(Some(at), START);
    let (early, claim) = (START.plus_ms(4_999), Event::Claim(worker("w1")));
    assert_eq!(transition(&alone, &claim, early, &RULES), Err(Rejection::TooEarly));
    assert_eq!(after(&alone, &Event::Due, at).state, State::Ready { not_before: None });
    let child = task(true).not_before(Some(at), START);
    assert_eq!(after(&child, &Event::ParentsSucceeded, early).state, State::Ready { not_before: Some(at) });
    assert_eq!(after(&child, &Event::ParentsSucceeded, at).state, State::Ready { not_before: None });
}

/// One step that a random history tries.
#[derive(Debug, Clone)]
enum Try {
    Wait(u64),
    Claim(u8),
    Renew { stale: bool, idle_ms: u64 },
    Checkpoint { stale: bool, content: u8 },
    End { stale: bool, outcome: u8 },
    Expire(bool),
    Due,
    Cancel,
    Overdue,
    ParentsSucceeded,
    ParentFailed,
}

fn tries() -> impl Strategy<Value = Vec<Try>> {
    let one = prop_oneof![
        3 => (0..20_000_u64).prop_map(Try::Wait),
        6 => (0..3_u8).prop_map(Try::Claim),
        3 => (any::<bool>(), 0..2_000_u64).prop_map(|(stale, idle_ms)| Try::Renew { stale, idle_ms }),
        2 => (any::<bool>(), 0..4_u8).prop_map(|(stale, content)| Try::Checkpoint { stale, content }),
        5 => (any::<bool>(), 0..8_u8).prop_map(|(stale, outcome)| Try::End { stale, outcome }),
        3 => any::<bool>().prop_map(Try::Expire),
        3 => Just(Try::Due),
        1 => Just(Try::Cancel),
        1 => Just(Try::Overdue),
        1 => Just(Try::ParentsSucceeded),
        1 => Just(Try::ParentFailed),
    ];
    prop::collection::vec(one, 1..80)
}

fn outcome(number: u8) -> Outcome {
    match number {
        0 => success(),
        1 => Outcome::Failed(failure(FailureClass::Infrastructure)),
        2 => Outcome::Failed(failure(FailureClass::User)),
        7 => Outcome::Failed(failure(FailureClass::OutOfMemory)),
        3 => Outcome::Failed(failure(FailureClass::Suspect)),
        4 => crash(),
        5 => Outcome::Returned("full".into()),
        _ => Outcome::Cancelled,
    }
}

/// The event of a step. A stale event shows the token of the lease before the last.
fn event_of(attempt: &Try, tokens: &[Token]) -> Option<Event> {
    let token = |stale: &bool| tokens.iter().rev().nth(usize::from(*stale)).cloned();
    Some(match attempt {
        Try::Wait(_) => return None,
        Try::Claim(number) => Event::Claim(worker(&format!("w{number}"))),
        Try::Renew { stale, idle_ms } => {
            Event::Renew { token: token(stale)?, idle_ms: *idle_ms, stall_bound_ms: 1_000 }
        }
        Try::Checkpoint { stale, content } => Event::Checkpoint(token(stale)?, ObjectRef::of(&[*content])),
        Try::End { stale, outcome: number } => Event::End(token(stale)?, outcome(*number)),
        Try::Expire(after_outage) => Event::Expire { after_outage: *after_outage },
        Try::Due => Event::Due,
        Try::Cancel => Event::Cancel,
        Try::Overdue => Event::Overdue,
        Try::ParentsSucceeded => Event::ParentsSucceeded,
        Try::ParentFailed => Event::ParentFailed("parent".into()),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_history_breaks_an_invariant(has_parents: bool, history in tries()) {
        let mut task = task(has_parents);
        let mut now = START;
        let mut tokens: Vec<Token> = Vec::new();
        let mut ends = 0;
        for attempt in &history {
            if let Try::Wait(ms) = attempt {
                now = now.plus_ms(*ms);
            }
            let Some(event) = event_of(attempt, &tokens) else { continue };
            let Ok((next, _)) = transition(&task, &event, now, &RULES) else { continue };
            if let Err(violation) = check_step(&task, &next, now) {
                return Err(TestCaseError::fail(format!("{violation} at {event:?}")));
            }
            if let Event::Claim(_) = event {
                let token = next.lease().expect("just claimed").token.clone();
                prop_assert!(tokens.last().is_none_or(|last| last.epoch < token.epoch));
                tokens.push(token);
            }
            ends += u32::from(next.state.is_terminal() && !task.state.is_terminal());
            task = next;
        }
        prop_assert!(ends <= 1);
    }

    #[test]
    fn a_refused_event_stays_refused_however_often_it_is_tried(history in tries(), outcome_number in 0..8_u8) {
        // From wherever a history leads, a token that is not the last one never changes anything.
        let mut task = task(false);
        let mut tokens: Vec<Token> = Vec::new();
        let mut now = START;
        for attempt in &history {
            if let Try::Wait(ms) = attempt {
                now = now.plus_ms(*ms);
            }
            if let Some(event) = event_of(attempt, &tokens)
                && let Ok((next, _)) = transition(&task, &event, now, &RULES)
            {
                if let Event::Claim(_) = event {
                    tokens.push(next.lease().expect("just claimed").token.clone());
                }
                task = next;
            }
        }
        for token in tokens.iter().rev().skip(1) {
            let event = Event::End(token.clone(), outcome(outcome_number));
            if let Ok((next, _)) = transition(&task, &event, now, &RULES) {
                prop_assert_eq!(&next, &task);
            }
        }
    }
}
