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
    SynchronizeResponse { leases, lease_ttl_ms: TTL_MS, ..SynchronizeResponse::default() }
}

fn acknowledged(epoch: u64) -> SynchronizeResponse {
    SynchronizeResponse { acknowledged: vec![key(epoch)], ..answer(Vec::new()) }
}

/// An exchange that took no time.
fn at(moment: Instant) -> Exchange {
    Exchange { sent_at: moment, answered_at: moment, may_be_held: true }
}

fn tell(state: &mut State, report: SlotReport) -> Urgency {
    state.report(0, report, Instant::now())
}

fn with_one_ready_slot() -> State {
    let mut state = able(1);
    tell(&mut state, SlotReport::Ready(Ready::default()));
    state
}

/// A worker that has proved that it can work.
fn able(slots: usize) -> State {
    let mut state = State::new(slots);
    state.health.serve(String::new());
    state.prove(Ok(Proof { address: "file:///objects".into(), queue: None }));
    state
}

fn running(epoch: u64) -> State {
    let mut state = with_one_ready_slot();
    state.answer(answer(vec![offer(epoch)]), at(Instant::now()));
    state
}

fn end(state: &mut State, outcome: Outcome) -> Urgency {
    tell(state, SlotReport::Ended { outcome, executor_kept: true })
}

fn outcomes(state: &mut State) -> Vec<Outcome> {
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
    tell(&mut state, SlotReport::Lost);
    tell(&mut state, SlotReport::Ready(Ready::default()));
    assert_eq!(state.request().free_slots, 0, "it runs the task");
    end(&mut state, succeeded());
    assert_eq!(outcomes(&mut state), [succeeded()]);
    assert_eq!(state.request().free_slots, 1);
}

#[test]
fn an_offer_starts_in_a_free_slot_with_an_end_before_the_leases_own() {
    let mut state = with_one_ready_slot();
    assert_eq!(state.request().free_slots, 1);
    let sent_at = Instant::now();
    let actions = state.answer(answer(vec![offer(7)]), at(sent_at));
    let [Action::Start { slot: 0, lease_end, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    assert!(*lease_end > sent_at && *lease_end < sent_at + Duration::from_millis(TTL_MS.into()));
    let request = state.request();
    assert_eq!((request.free_slots, request.leases[0].epoch), (0, 7));
}

#[test]
fn a_repeated_offer_of_a_running_lease_renews_it_and_starts_nothing() {
    let mut state = running(7);
    let later = Instant::now() + Duration::from_secs(1);
    let actions = state.answer(answer(vec![offer(7)]), at(later));
    assert!(matches!(actions.as_slice(), [Action::Renew { slot: 0, lease_end }] if *lease_end > later), "{actions:?}");
}

#[test]
fn a_task_that_is_not_listed_is_stopped_and_its_end_is_not_reported() {
    let mut state = running(7);
    assert_eq!(state.answer(answer(Vec::new()), at(Instant::now())), [Action::Cancel { slot: 0 }]);
    assert_eq!(state.request().free_slots, 0, "the executor is still busy with it");
    end(&mut state, succeeded());
    let request = state.request();
    assert_eq!((request.leases.len(), request.free_slots), (0, 1));
}

#[test]
fn a_new_epoch_of_the_same_task_waits_until_the_old_one_is_out_of_the_slot() {
    let mut state = running(7);
    let actions = state.answer(answer(vec![offer(8)]), at(Instant::now()));
    assert_eq!(actions, [Action::Cancel { slot: 0 }]);
    assert!(matches!(outcomes(&mut state).as_slice(), [Outcome::Returned(_)]), "epoch 8 is given back, not dropped");
}

#[test]
fn an_outcome_is_repeated_until_it_is_acknowledged() {
    let mut state = running(7);
    assert_eq!(end(&mut state, succeeded()), Urgency::Now);
    for response in [answer(vec![lease(7)]), answer(Vec::new())] {
        assert_eq!(state.answer(response, at(Instant::now())), []);
        assert_eq!(outcomes(&mut state), [succeeded()]);
    }
    state.answer(acknowledged(7), at(Instant::now()));
    assert!(state.request().leases.is_empty());
}

#[test]
fn an_acknowledgement_of_a_running_task_is_not_mistaken_for_its_end() {
    let mut state = running(7);
    let response = SynchronizeResponse { leases: vec![lease(7)], ..acknowledged(7) };
    state.answer(response, at(Instant::now()));
    assert_eq!(state.request().leases.len(), 1);
}

#[test]
fn a_cancellation_is_passed_on_once_and_a_death_by_it_counts_as_carried_out() {
    let mut state = running(7);
    let cancel = v1::Lease { cancel: true, ..lease(7) };
    let actions = state.answer(answer(vec![cancel.clone()]), at(Instant::now()));
    assert!(actions.contains(&Action::Cancel { slot: 0 }), "{actions:?}");
    let actions = state.answer(answer(vec![cancel]), at(Instant::now()));
    assert!(!actions.contains(&Action::Cancel { slot: 0 }), "{actions:?}");
    end(&mut state, Outcome::Crashed("aborted while it stopped".into()));
    assert_eq!(outcomes(&mut state), [cancelled()]);
}

#[test]
fn draining_gives_running_tasks_back_takes_no_new_ones_and_is_done_once_that_is_acknowledged() {
    let mut state = running(7);
    assert_eq!(state.drain(), [Action::HandBack { slot: 0 }]);
    end(&mut state, Outcome::Returned("asked to".into()));
    assert_eq!(outcomes(&mut state), [Outcome::Returned(SHUTTING_DOWN.into())]);
    assert_eq!((state.request().free_slots, state.request().draining), (0, true));
    assert!(!state.is_done());
    state.answer(SynchronizeResponse { leases: vec![offer(9)], ..acknowledged(7) }, at(Instant::now()));
    assert!(matches!(outcomes(&mut state).as_slice(), [Outcome::Returned(_)]), "epoch 9 came too late");
    state.answer(acknowledged(9), at(Instant::now()));
    assert!(state.is_done());
}

#[test]
fn a_task_that_ends_by_itself_while_draining_keeps_its_outcome() {
    for outcome in [succeeded(), Outcome::Crashed("signal 11".into())] {
        let mut state = running(7);
        state.drain();
        end(&mut state, outcome.clone());
        assert_eq!(outcomes(&mut state), [outcome]);
    }
}

#[test]
fn an_idle_worker_sends_a_farewell_and_gives_back_what_it_was_given_meanwhile() {
    let mut state = with_one_ready_slot();
    state.answer(answer(Vec::new()), at(Instant::now()));
    assert!(state.patience() > Duration::ZERO);
    assert_eq!(state.drain(), []);
    assert!(state.is_leaving() && !state.is_done());
    assert_eq!(state.patience(), Duration::ZERO, "the answer to a farewell is not held");
    state.answer(answer(vec![offer(9)]), at(Instant::now()));
    assert_eq!(outcomes(&mut state), [Outcome::Returned(SHUTTING_DOWN.into())]);
    state.answer(acknowledged(9), at(Instant::now()));
    assert!(state.is_done());
}

#[test]
fn a_preempted_task_is_asked_once_to_hand_itself_back_and_only_it() {
    let mut state = running(7);
    let preempt = v1::Lease { preempt: true, ..lease(7) };
    let asked = Action::HandBack { slot: 0 };
    assert!(state.answer(answer(vec![preempt.clone()]), at(Instant::now())).contains(&asked));
    assert!(!state.answer(answer(vec![preempt]), at(Instant::now())).contains(&asked), "not again");
    end(&mut state, Outcome::Returned("asked to".into()));
    assert_eq!(outcomes(&mut state), [Outcome::Returned(PREEMPTED.into())]);
    assert_eq!(state.request().free_slots, 1, "the worker goes on");
}

#[test]
fn without_a_ready_executor_no_slot_is_offered() {
    let mut state = running(7);
    tell(&mut state, SlotReport::Ended { outcome: Outcome::Crashed("killed".into()), executor_kept: false });
    assert_eq!(state.request().free_slots, 0);
    tell(&mut state, SlotReport::Ready(Ready::default()));
    assert_eq!(state.request().free_slots, 1);
}

#[test]
fn an_epochs_metrics_are_urgent_progress_is_not_and_both_show_life() {
    let mut state = running(7);
    let progress = v1::Progress { phase: "train".into(), done: 3, ..v1::Progress::default() };
    assert_eq!(tell(&mut state, SlotReport::Progress(progress.clone())), Urgency::Later);
    let epoch = SlotReport::Event(Event::EpochFinished(EpochMetrics::default()));
    assert_eq!(tell(&mut state, epoch), Urgency::Now);
    let log = SlotReport::Event(Event::Log(v1::LogLine { text: "still waiting".into() }));
    assert_eq!(tell(&mut state, log), Urgency::Later);
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
        tell(&mut state, SlotReport::Event(Event::Log(v1::LogLine { text: "line".into() })));
    }
    end(&mut state, succeeded());
    assert_eq!(outcomes(&mut state), []);
    let lease = v1::Lease { acknowledged_events: 256, ..lease(7) };
    state.answer(answer(vec![lease]), at(Instant::now()));
    assert_eq!(outcomes(&mut state), [succeeded()]);
}

#[test]
fn an_answer_may_be_held_for_a_third_of_a_lease_and_less_while_something_runs() {
    let mut state = with_one_ready_slot();
    assert_eq!(state.patience(), Duration::ZERO, "the first answer tells how long a lease is");
    state.answer(SynchronizeResponse { lease_ttl_ms: 30_000, ..answer(Vec::new()) }, at(Instant::now()));
    assert_eq!(state.patience(), Duration::from_secs(10));
    state.answer(SynchronizeResponse { lease_ttl_ms: 30_000, ..answer(vec![offer(7)]) }, at(Instant::now()));
    assert_eq!(state.patience(), REPORT_INTERVAL);
}

/// A state with one slot, in which tasks took 20 ms and exchanges as long, while the last of them runs.
fn with_short_tasks() -> (State, Instant) {
    let mut state = with_one_ready_slot();
    let mut now = Instant::now();
    for epoch in 0..9 {
        let answered_at = now + Duration::from_millis(20);
        let exchange = Exchange { sent_at: now, answered_at, may_be_held: false };
        state.answer(answer(vec![offer(epoch)]), exchange);
        now = answered_at + Duration::from_millis(20);
        if epoch < 8 {
            assert_eq!(state.request().free_slots, 0);
            state.report(0, SlotReport::Ended { outcome: succeeded(), executor_kept: true }, now);
            state.answer(acknowledged(epoch), at(now));
            assert_eq!(state.request().free_slots, 1, "nothing is asked for ahead when nothing has ended");
        }
    }
    (state, now)
}

/// The same after the next three tasks came together: the first of them runs.
fn with_two_tasks_ahead() -> (State, Instant) {
    let (mut state, now) = with_short_tasks();
    end(&mut state, succeeded());
    assert_eq!(state.request().free_slots, 3, "one for the slot, and two that end during two exchanges");
    let response = SynchronizeResponse { leases: [100, 101, 102].map(offer).into(), ..acknowledged(8) };
    assert_eq!(started(&state.answer(response, at(now))), [100]);
    (state, now)
}

fn started(actions: &[Action]) -> Vec<u64> {
    let epoch = |action: &Action| match action {
        Action::Start { assignment, .. } => Some(assignment.epoch),
        _ => None,
    };
    actions.iter().filter_map(epoch).collect()
}

#[test]
fn short_tasks_are_taken_ahead_and_begin_in_order_as_soon_as_the_slot_is_free() {
    let (mut state, now) = with_two_tasks_ahead();
    for epoch in [101, 102] {
        end(&mut state, succeeded());
        assert_eq!(started(&state.start_waiting(now)), [epoch]);
    }
    let request = state.request();
    let ended = request.leases.iter().filter(|lease| lease.outcome.is_some()).count();
    assert_eq!((ended, request.free_slots), (2, 2), "the next two are asked for while the last one runs");
    assert_eq!(state.request().free_slots, 0, "not again while nothing more has ended");
}

#[test]
fn what_was_asked_for_is_taken_even_if_the_answer_was_quick() {
    let (mut state, now) = with_two_tasks_ahead();
    for _ in 0..3 {
        end(&mut state, succeeded());
        state.start_waiting(now);
    }
    assert_eq!(state.request().free_slots, 3);
    let quick = Exchange { may_be_held: false, ..at(now) };
    state.answer(answer([200, 201, 202].map(offer).into()), quick);
    assert!(outcomes(&mut state).iter().all(|outcome| *outcome == succeeded()));
}

#[test]
fn nothing_is_taken_ahead_of_an_executor_that_is_gone() {
    let (mut state, _) = with_short_tasks();
    tell(&mut state, SlotReport::Ended { outcome: succeeded(), executor_kept: false });
    assert_eq!(state.request().free_slots, 0);
}

#[test]
fn tasks_that_did_not_succeed_say_nothing_of_how_long_tasks_take() {
    let mut state = with_one_ready_slot();
    for epoch in 0..9 {
        let now = Instant::now();
        let exchange = Exchange { sent_at: now, answered_at: now + Duration::from_millis(20), may_be_held: false };
        state.answer(answer(vec![offer(epoch)]), exchange);
        end(&mut state, Outcome::Failed(v1::Failure::default()));
        assert_eq!(state.request().free_slots, 1);
        state.answer(acknowledged(epoch), at(now));
    }
}

#[test]
fn an_end_is_urgent_until_a_message_has_reported_it() {
    let mut state = running(7);
    end(&mut state, succeeded());
    assert!(state.has_end_to_report());
    assert_eq!(outcomes(&mut state), [succeeded()]);
    assert!(!state.has_end_to_report());
    assert_eq!(outcomes(&mut state), [succeeded()], "it is repeated all the same");
}

#[test]
fn a_worker_holds_no_more_leases_than_one_message_may_report() {
    let mut state = able(1);
    for epoch in 0..MAX_LEASES_PER_WORKER as u64 {
        tell(&mut state, SlotReport::Ready(Ready::default()));
        state.request();
        state.answer(answer(vec![offer(epoch)]), at(Instant::now()));
        end(&mut state, succeeded());
    }
    assert_eq!((state.request().leases.len(), state.request().free_slots), (MAX_LEASES_PER_WORKER, 0));
}

#[test]
fn what_waits_for_a_slot_is_renewed_cancelled_preempted_or_lost_as_what_runs_is() {
    let (mut state, now) = with_two_tasks_ahead();
    let later = now + Duration::from_secs(1);
    state.answer(answer([100, 101, 102].map(lease).into()), at(later));
    end(&mut state, succeeded());
    let actions = state.start_waiting(now);
    assert!(
        matches!(actions[..], [Action::Start { lease_end, .. }] if lease_end > now + Duration::from_secs(3)),
        "{actions:?}"
    );

    let (mut state, now) = with_two_tasks_ahead();
    let cancel = v1::Lease { cancel: true, ..lease(101) };
    let preempt = v1::Lease { preempt: true, ..lease(102) };
    state.answer(answer(vec![lease(100), cancel, preempt]), at(now));
    assert_eq!(outcomes(&mut state), [cancelled(), Outcome::Returned(PREEMPTED.into())]);

    let (mut state, now) = with_two_tasks_ahead();
    state.answer(answer(vec![lease(100), lease(102)]), at(now));
    end(&mut state, succeeded());
    assert_eq!(started(&state.start_waiting(now)), [102], "another worker has 101");
    assert_eq!(state.request().leases.len(), 2);
}

#[test]
fn what_waits_behind_a_task_that_turns_out_long_is_given_back_and_none_is_taken_ahead_then() {
    let (mut state, now) = with_two_tasks_ahead();
    let end_of_wait = state.end_of_wait().expect("two wait");
    state.give_overdue_back(end_of_wait - Duration::from_millis(1));
    assert_eq!(outcomes(&mut state), []);
    assert!(end_of_wait > now);
    state.give_overdue_back(end_of_wait);
    assert_eq!(outcomes(&mut state), [101, 102].map(|_| Outcome::Returned(KEPT_WAITING.into())));
    assert_eq!(state.end_of_wait(), None);
    end(&mut state, succeeded());
    assert_eq!(state.request().free_slots, 1);
}

#[test]
fn draining_gives_back_what_waits_for_a_slot_at_once() {
    let (mut state, _) = with_two_tasks_ahead();
    assert_eq!(state.drain(), [Action::HandBack { slot: 0 }]);
    assert_eq!(outcomes(&mut state), [101, 102].map(|_| Outcome::Returned(SHUTTING_DOWN.into())));
}

#[test]
fn a_worker_whose_executor_does_not_start_asks_for_nothing_gives_back_what_waits_and_says_why() {
    let (mut state, _) = with_two_tasks_ahead();
    tell(&mut state, SlotReport::Ended { outcome: succeeded(), executor_kept: false });
    let failed = || SlotReport::CannotStart("the executor did not start: no libtorch".into());
    assert_eq!(tell(&mut state, failed()), Urgency::Now);
    assert_eq!(tell(&mut state, failed()), Urgency::Later, "the same again is no news");
    let request = state.request();
    let health = request.health.expect("told");
    assert!(request.free_slots == 0 && !health.is_able && health.detail.contains("no libtorch"), "{health:?}");
    let returned = Outcome::Returned(UNABLE.into());
    assert_eq!(outcomes(&mut state), [succeeded(), returned.clone(), returned]);
    assert_eq!(tell(&mut state, SlotReport::Ready(Ready::default())), Urgency::Now);
    let request = state.request();
    assert!(request.free_slots == 1 && request.health.expect("told").is_able);
}
