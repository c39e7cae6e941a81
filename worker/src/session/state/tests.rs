use super::*;
use sortinghat_proto::{executor::v1::Ready, v1::EpochMetrics};

const TTL_MS: u32 = 3_000;

fn key(epoch: u64) -> LeaseKey {
    LeaseKey { task_id: "task".into(), epoch }
}

fn lease(epoch: u64) -> v1::Lease {
    v1::Lease { key: Some(key(epoch)), ttl_ms: TTL_MS, ..v1::Lease::default() }
}

fn offer(epoch: u64) -> v1::Lease {
    let assignment = v1::Assignment { task_id: "task".into(), epoch, ..v1::Assignment::default() };
    v1::Lease { assignment: Some(assignment), ..lease(epoch) }
}

fn answer(leases: Vec<v1::Lease>) -> SynchronizeResponse {
    SynchronizeResponse { leases, acknowledged: Vec::new(), lease_ttl_ms: TTL_MS }
}

fn acknowledged(epoch: u64) -> SynchronizeResponse {
    SynchronizeResponse { acknowledged: vec![key(epoch)], ..answer(Vec::new()) }
}

fn with_one_ready_slot() -> State {
    let mut state = State::new(1);
    state.report(0, SlotReport::Ready(Ready::default()));
    state
}

fn running(epoch: u64) -> State {
    let mut state = with_one_ready_slot();
    state.answer(answer(vec![offer(epoch)]), Instant::now());
    state
}

fn end(state: &mut State, outcome: Outcome) -> Urgency {
    state.report(0, SlotReport::Ended { outcome, executor_kept: true })
}

fn outcomes(state: &State) -> Vec<Outcome> {
    let leases = state.request().leases.into_iter();
    leases.filter_map(|lease| lease.outcome.and_then(|outcome| outcome.outcome)).collect()
}

fn succeeded() -> Outcome {
    Outcome::Succeeded(v1::TaskSucceeded::default())
}

fn cancelled() -> Outcome {
    Outcome::Cancelled(v1::TaskCancelled {})
}

#[test]
fn a_task_sent_to_an_executor_that_had_just_died_runs_in_the_next_one() {
    let mut state = running(7);
    state.report(0, SlotReport::CannotStart("was killed by signal 9 (SIGKILL)".into()));
    state.report(0, SlotReport::Ready(Ready::default()));
    assert_eq!(state.request().free_slots, 0, "it runs the task");
    end(&mut state, succeeded());
    assert_eq!(outcomes(&state), [succeeded()]);
    assert_eq!(state.request().free_slots, 1);
}

#[test]
fn an_offer_starts_in_a_free_slot_with_an_end_before_the_leases_own() {
    let mut state = with_one_ready_slot();
    assert_eq!(state.request().free_slots, 1);
    let sent_at = Instant::now();
    let actions = state.answer(answer(vec![offer(7)]), sent_at);
    let [Action::Start { slot: 0, lease_end, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    assert!(*lease_end > sent_at && *lease_end < sent_at + Duration::from_millis(TTL_MS.into()));
    let request = state.request();
    assert_eq!((request.free_slots, request.leases[0].epoch), (0, 7));
}

#[test]
fn a_repeated_offer_of_a_running_lease_renews_it_and_starts_nothing() {
    let mut state = running(7);
    let later = Instant::now() + Duration::from_secs(1);
    let actions = state.answer(answer(vec![offer(7)]), later);
    assert!(matches!(actions.as_slice(), [Action::Renew { slot: 0, lease_end }] if *lease_end > later), "{actions:?}");
}

#[test]
fn a_task_that_is_not_listed_is_stopped_and_its_end_is_nobodys_business() {
    let mut state = running(7);
    assert_eq!(state.answer(answer(Vec::new()), Instant::now()), [Action::Cancel { slot: 0 }]);
    assert_eq!(state.request().free_slots, 0, "the executor is still busy with it");
    end(&mut state, succeeded());
    let request = state.request();
    assert_eq!((request.leases.len(), request.free_slots), (0, 1));
}

#[test]
fn a_new_epoch_of_the_same_task_waits_until_the_old_one_is_out_of_the_slot() {
    let mut state = running(7);
    let actions = state.answer(answer(vec![offer(8)]), Instant::now());
    assert_eq!(actions, [Action::Cancel { slot: 0 }]);
    assert!(matches!(outcomes(&state).as_slice(), [Outcome::Returned(_)]), "epoch 8 is given back, not dropped");
}

#[test]
fn an_outcome_is_repeated_until_it_is_acknowledged() {
    let mut state = running(7);
    assert_eq!(end(&mut state, succeeded()), Urgency::Now);
    for response in [answer(vec![lease(7)]), answer(Vec::new())] {
        assert_eq!(state.answer(response, Instant::now()), []);
        assert_eq!(outcomes(&state), [succeeded()]);
    }
    state.answer(acknowledged(7), Instant::now());
    assert!(state.request().leases.is_empty());
}

#[test]
fn an_acknowledgement_of_a_running_task_is_not_mistaken_for_its_end() {
    let mut state = running(7);
    let response = SynchronizeResponse { leases: vec![lease(7)], ..acknowledged(7) };
    state.answer(response, Instant::now());
    assert_eq!(state.request().leases.len(), 1);
}

#[test]
fn a_cancellation_is_passed_on_once_and_a_death_by_it_counts_as_carried_out() {
    let mut state = running(7);
    let cancel = v1::Lease { cancel: true, ..lease(7) };
    let actions = state.answer(answer(vec![cancel.clone()]), Instant::now());
    assert!(actions.contains(&Action::Cancel { slot: 0 }), "{actions:?}");
    let actions = state.answer(answer(vec![cancel]), Instant::now());
    assert!(!actions.contains(&Action::Cancel { slot: 0 }), "{actions:?}");
    end(&mut state, Outcome::Crashed("aborted while it stopped".into()));
    assert_eq!(outcomes(&state), [cancelled()]);
}

#[test]
fn draining_gives_running_tasks_back_takes_no_new_ones_and_is_done_once_that_is_acknowledged() {
    let mut state = running(7);
    assert_eq!(state.drain(), [Action::HandBack { slot: 0 }]);
    end(&mut state, Outcome::Returned("asked to".into()));
    assert_eq!(outcomes(&state), [Outcome::Returned(SHUTTING_DOWN.into())]);
    assert_eq!((state.request().free_slots, state.request().draining), (0, true));
    assert!(!state.is_done());
    state.answer(SynchronizeResponse { leases: vec![offer(9)], ..acknowledged(7) }, Instant::now());
    assert!(matches!(outcomes(&state).as_slice(), [Outcome::Returned(_)]), "epoch 9 came too late");
    state.answer(acknowledged(9), Instant::now());
    assert!(state.is_done());
}

#[test]
fn what_ends_otherwise_while_draining_has_ended_so() {
    for outcome in [succeeded(), Outcome::Crashed("signal 11".into())] {
        let mut state = running(7);
        state.drain();
        end(&mut state, outcome.clone());
        assert_eq!(outcomes(&state), [outcome]);
    }
}

#[test]
fn an_idle_worker_says_farewell_and_gives_back_what_it_was_given_meanwhile() {
    let mut state = with_one_ready_slot();
    state.answer(answer(Vec::new()), Instant::now());
    assert!(state.patience() > Duration::ZERO);
    assert_eq!(state.drain(), []);
    assert!(state.is_leaving() && !state.is_done());
    assert_eq!(state.patience(), Duration::ZERO, "the answer to a farewell is not held");
    state.answer(answer(vec![offer(9)]), Instant::now());
    assert_eq!(outcomes(&state), [Outcome::Returned(SHUTTING_DOWN.into())]);
    state.answer(acknowledged(9), Instant::now());
    assert!(state.is_done());
}

#[test]
fn a_preempted_task_is_asked_once_to_hand_itself_back_and_only_it() {
    let mut state = running(7);
    let preempt = v1::Lease { preempt: true, ..lease(7) };
    let asked = Action::HandBack { slot: 0 };
    assert!(state.answer(answer(vec![preempt.clone()]), Instant::now()).contains(&asked));
    assert!(!state.answer(answer(vec![preempt]), Instant::now()).contains(&asked), "not again");
    end(&mut state, Outcome::Returned("asked to".into()));
    assert_eq!(outcomes(&state), [Outcome::Returned(PREEMPTED.into())]);
    assert_eq!(state.request().free_slots, 1, "the worker goes on");
}

#[test]
fn without_a_ready_executor_no_slot_is_offered() {
    let mut state = running(7);
    state.report(0, SlotReport::Ended { outcome: Outcome::Crashed("killed".into()), executor_kept: false });
    assert_eq!(state.request().free_slots, 0);
    state.report(0, SlotReport::Ready(Ready::default()));
    assert_eq!(state.request().free_slots, 1);
}

#[test]
fn an_epochs_metrics_are_urgent_progress_is_not_and_both_show_life() {
    let mut state = running(7);
    let progress = v1::Progress { phase: "train".into(), done: 3, ..v1::Progress::default() };
    assert_eq!(state.report(0, SlotReport::Progress(progress.clone())), Urgency::Later);
    let epoch = SlotReport::Event(Event::EpochFinished(EpochMetrics::default()));
    assert_eq!(state.report(0, epoch), Urgency::Now);
    let log = SlotReport::Event(Event::Log(v1::LogLine { text: "still waiting".into() }));
    assert_eq!(state.report(0, log), Urgency::Later);
    let report = state.request().leases.remove(0);
    assert_eq!(
        (report.beat, report.progress, report.events.len()),
        (2, Some(progress), 2),
        "a log line is no progress"
    );
}

#[test]
fn the_outcome_waits_for_the_last_event_to_fit_into_a_message() {
    let mut state = running(7);
    for _ in 0..300 {
        state.report(0, SlotReport::Event(Event::Log(v1::LogLine { text: "line".into() })));
    }
    end(&mut state, succeeded());
    assert_eq!(outcomes(&state), []);
    let lease = v1::Lease { acknowledged_events: 256, ..lease(7) };
    state.answer(answer(vec![lease]), Instant::now());
    assert_eq!(outcomes(&state), [succeeded()]);
}

#[test]
fn an_answer_may_be_held_for_a_third_of_a_lease_and_less_while_something_runs() {
    let mut state = with_one_ready_slot();
    assert_eq!(state.patience(), Duration::ZERO, "the first answer tells how long a lease is");
    state.answer(SynchronizeResponse { lease_ttl_ms: 30_000, ..answer(Vec::new()) }, Instant::now());
    assert_eq!(state.patience(), Duration::from_secs(10));
    state.answer(SynchronizeResponse { lease_ttl_ms: 30_000, ..answer(vec![offer(7)]) }, Instant::now());
    assert_eq!(state.patience(), REPORT_INTERVAL);
}
