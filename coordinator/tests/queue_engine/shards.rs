//! Divided jobs: from the count of their items through their shards to one finish, whatever happens in between.

use std::num::NonZeroU64;

use sortinghat_coordinator::{auth::Sight, engine::Settings};
use sortinghat_proto::{
    JobId, ObjectRef,
    limits::DEFAULT_SHARD_ITEMS,
    v1::{
        self, AttemptOutcome, ErrorCode, FailureClass, JobState, job_event::Event, part::Part, task_outcome::Outcome,
    },
};

use crate::world::{LEASE_MS, Worker, World, crash, divided, finetune, ingest, log, settings, success};

/// Submits an ingest, and lets a worker count so many items that the job has this many shards.
pub(crate) async fn divide(world: &World, worker: &mut Worker, shards: u64) -> JobId {
    let id = world.submit(ingest()).await;
    count(world, worker, shards).await;
    id
}

/// Lets a worker start the next job, and count so many items that the job has this many shards.
pub(crate) async fn count(world: &World, worker: &mut Worker, shards: u64) {
    let whole = worker.start(&world.engine).await;
    assert_eq!(part(&whole), &Part::Whole(v1::WholePart { max_items: DEFAULT_SHARD_ITEMS }));
    worker.request.leases.last_mut().expect("it runs").outcome =
        Some(v1::TaskOutcome { outcome: Some(divided(shards * DEFAULT_SHARD_ITEMS - 24)) });
    worker.request.free_slots = 0;
    worker.poll_without_beats(&world.engine).await;
    world.sweep().await;
}

pub(crate) fn part(assignment: &v1::Assignment) -> &Part {
    assignment.part.as_ref().and_then(|part| part.part.as_ref()).expect("every task is some part")
}

pub(crate) fn tasks(job: &v1::Job) -> v1::TaskProgress {
    job.tasks.expect("a divided job")
}

fn user_failure() -> Outcome {
    Outcome::Failed(v1::Failure {
        failure_class: FailureClass::User.into(),
        code: ErrorCode::UnusableData.into(),
        message: "no photo".into(),
        field: String::new(),
    })
}

/// Ends all tasks that a worker runs.
fn end_all(worker: &mut Worker, outcome: impl Fn(&v1::LeaseReport) -> Outcome) {
    for lease in worker.request.leases.iter_mut().filter(|lease| lease.outcome.is_none()) {
        lease.outcome = Some(v1::TaskOutcome { outcome: Some(outcome(lease)) });
    }
}

#[tokio::test]
async fn a_large_job_runs_in_shards_whose_outputs_one_finish_joins() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 8);
    let id = divide(&world, &mut worker, 3).await;
    let job = world.job(&id).await;
    assert_eq!((job.state(), tasks(&job).total, tasks(&job).running), (JobState::Running, 3, 0));

    worker.poll(&world.engine).await;
    let mut ranges: Vec<(u64, u64)> = worker
        .request
        .leases
        .iter()
        .map(|lease| match part(worker.assignment(lease)) {
            Part::Shard(shard) => {
                assert_eq!((shard.count, u64::from(shard.index)), (3, shard.first_item / DEFAULT_SHARD_ITEMS));
                (shard.first_item, shard.end_item)
            }
            other => panic!("{other:?} is no shard"),
        })
        .collect();
    ranges.sort_unstable();
    assert_eq!(ranges, [(0, 1024), (1024, 2048), (2048, 3048)], "all items, each once");
    for lease in &mut worker.request.leases {
        lease.events = vec![log(1, &lease.task_id)];
    }
    end_all(&mut worker, |lease| success(lease.task_id.as_bytes()));
    worker.poll(&world.engine).await;

    let finish = worker.start(&world.engine).await;
    let made = |index: u32| ObjectRef::of(format!("{id}.{index}").as_bytes()).into();
    assert_eq!(part(&finish), &Part::Finish(v1::FinishPart { shards: (1..=3).map(made).collect() }), "in their order");
    assert_eq!(tasks(&world.job(&id).await).succeeded, 3);
    worker.end(&world.engine, success(b"dataset")).await;
    let job = world.job(&id).await;
    assert_eq!(job.state(), JobState::Succeeded);
    assert_eq!(job.output.expect("it succeeded").name, "stamps@1");
    assert_eq!(job.attempts.iter().map(|attempt| attempt.host.as_str()).collect::<Vec<_>>(), ["w1-host"; 5]);

    let history = world.history(&id).await;
    assert!(history.iter().zip(1..).all(|(event, number)| event.sequence == number), "without gaps");
    let lines = history.iter().filter(|event| matches!(event.event, Some(Event::Log(_)))).count();
    let states: Vec<JobState> = history
        .iter()
        .filter_map(|event| match &event.event {
            Some(Event::StateChanged(changed)) => Some(changed.state()),
            _ => None,
        })
        .collect();
    assert_eq!(lines, 3);
    use JobState::{Queued, Running, Succeeded};
    assert_eq!(states, [Queued, Running, Queued, Running, Succeeded]);
}

#[tokio::test]
async fn a_small_job_stays_one_task() {
    let world = World::new().await;
    let id = world.submit(ingest()).await;
    let mut worker = Worker::new("w1", 1);
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(b"dataset")).await;
    let job = world.job(&id).await;
    assert_eq!((job.state(), job.tasks, job.attempts.len()), (JobState::Succeeded, None, 1));
}

#[tokio::test]
async fn thousands_of_shards_are_created_in_steps_and_their_progress_is_shown_as_one_sum() {
    let shard_items = NonZeroU64::new(100).expect("not 0");
    let world = World::with(Settings { shard_items, ..settings() }).await;
    let mut worker = Worker::new("w1", 2);
    let id = world.submit(ingest()).await;
    worker.start(&world.engine).await;
    worker.end(&world.engine, divided(4096 * 244)).await;
    world.sweep().await;
    assert_eq!(tasks(&world.job(&id).await).total, 4096, "shards become larger instead of more numerous");
    worker.poll(&world.engine).await;
    for lease in &mut worker.request.leases {
        lease.progress = Some(v1::Progress { phase: "decode".into(), done: 100, total: 244, unit: "photos".into() });
    }
    worker.poll(&world.engine).await;
    let progress = world.job(&id).await.progress.expect("two shards run");
    assert_eq!((progress.done, progress.total, progress.unit.as_str()), (200, 4096 * 244, "photos"));
    let cancelled = world.engine.cancel(&world.tenant, &id).await.expect("it exists");
    let waiting = tasks(&cancelled);
    assert_eq!((cancelled.state(), waiting.cancelled), (JobState::Running, 4094), "two still run");
}

#[tokio::test]
async fn an_impossible_number_of_items_does_not_divide_a_job() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    let id = world.submit(ingest()).await;
    worker.start(&world.engine).await;
    worker.end(&world.engine, divided(u64::MAX)).await;
    let job = world.job(&id).await;
    assert_eq!((job.attempts[0].outcome(), job.state()), (AttemptOutcome::Crashed, JobState::Queued));
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_that_end_at_the_same_moment_at_two_coordinators_create_one_finish() {
    for _ in 0..20 {
        let world = World::new().await;
        let beside = world.beside(settings());
        let mut first = Worker::new("w0", 1);
        let id = divide(&world, &mut first, 32).await;
        let ends: Vec<_> = (0..8)
            .map(|number| {
                let mut worker = Worker::new(&format!("w{}", number + 1), 4);
                let engine = if number % 2 == 0 { world.engine.clone() } else { beside.engine.clone() };
                tokio::spawn(async move {
                    worker.poll(&engine).await;
                    end_all(&mut worker, |lease| success(lease.task_id.as_bytes()));
                    worker.request.free_slots = 0;
                    worker.poll_without_beats(&engine).await;
                })
            })
            .collect();
        for end in ends {
            end.await.expect("no worker panics");
        }
        world.sweep().await;
        // A worker that lost the race for a shard has left that shard, so one or two shards may run beside the finish.
        let (mut last, mut finishes) = (Worker::new("last", 4), 0);
        for _ in 0..6 {
            let told = last.poll(&beside.engine).await;
            let new = told.leases.iter().filter_map(|lease| lease.assignment.as_ref());
            finishes += new.filter(|task| matches!(part(task), Part::Finish(_))).count();
            end_all(&mut last, |_| success(b"dataset"));
            world.sweep().await;
        }
        assert_eq!(finishes, 1);
        let job = world.job(&id).await;
        assert_eq!((job.state(), tasks(&job).succeeded), (JobState::Succeeded, 32));
        assert_eq!(job.attempts.len(), 20, "only the newest attempts are shown");
    }
}

#[tokio::test]
async fn only_the_shard_whose_worker_died_is_run_again() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    let id = divide(&world, &mut worker, 2).await;
    worker.start(&world.engine).await;
    let mut dead = Worker::new("dead", 1);
    dead.start(&world.engine).await;
    worker.end(&world.engine, success(b"first")).await;
    world.clock.advance_ms(LEASE_MS);
    world.sweep().await;
    world.pass(1_000).await;
    let again = worker.start(&world.engine).await;
    assert_eq!((again.attempt, again.task_id), (2, format!("{id}.2")));
    worker.end(&world.engine, success(b"second")).await;
    assert!(matches!(part(&worker.start(&world.engine).await), Part::Finish(_)));
    let stale = dead.end(&world.engine, success(b"late")).await;
    assert_eq!(stale.acknowledged.len(), 1, "the late outcome changes nothing");
    worker.end(&world.engine, success(b"dataset")).await;
    let job = world.job(&id).await;
    let outcomes: Vec<_> = job.attempts.iter().map(|attempt| (attempt.task, attempt.outcome())).collect();
    use AttemptOutcome::{Lost, Succeeded};
    assert_eq!(outcomes, [(0, Succeeded), (1, Succeeded), (2, Lost), (2, Succeeded), (3, Succeeded)]);
}

#[tokio::test]
async fn a_failed_shard_ends_its_job_once_the_other_shards_have_stopped() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    let id = divide(&world, &mut worker, 600).await;
    let child = world.submit(finetune(&format!("job:{id}"))).await;
    worker.start(&world.engine).await;
    let mut other = Worker::new("w2", 1);
    other.start(&world.engine).await;
    worker.request.free_slots = 0;
    worker.request.leases[0].outcome = Some(v1::TaskOutcome { outcome: Some(user_failure()) });
    worker.poll_without_beats(&world.engine).await;
    let mut third = Worker::new("w3", 50);
    third.poll(&world.beside(settings()).engine).await;
    assert!(third.request.leases.is_empty(), "no other shard starts");
    world.sweep().await;
    let job = world.job(&id).await;
    assert_eq!((job.state(), tasks(&job).failed, tasks(&job).cancelled), (JobState::Running, 1, 598));
    assert!(other.poll(&world.engine).await.leases[0].cancel, "the running shard is told to stop");
    other.end(&world.engine, Outcome::Cancelled(v1::TaskCancelled {})).await;
    world.sweep().await;
    let job = world.job(&id).await;
    assert_eq!((job.state(), job.failure.expect("it says why").message.as_str()), (JobState::Failed, "no photo"));
    world.sweep().await;
    assert_eq!(world.state(&child).await, JobState::Cancelled);
    assert_eq!(world.sweep().await.settled, 0, "nothing is left to do");
}

#[tokio::test]
async fn the_explanation_of_a_divided_job_is_about_its_shards() {
    use v1::explain_job_response::Reason;
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    let id = divide(&world, &mut worker, 2).await;
    let why =
        async || world.engine.explain(&world.tenant, &id, Sight::Everything).await.expect("the job exists").reason;
    assert!(matches!(why().await, Some(Reason::Turn(_))), "{:?}", why().await);
    worker.start(&world.engine).await;
    world.sweep().await;
    let Some(Reason::Runs(runs)) = why().await else { panic!("{:?}", why().await) };
    assert_eq!(runs.attempt.map(|attempt| attempt.task), Some(1));
    worker.end(&world.engine, crash()).await;
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(b"second")).await;
    world.sweep().await;
    let Some(Reason::Backoff(backoff)) = why().await else { panic!("{:?}", why().await) };
    assert_eq!(backoff.last_attempt.map(|attempt| attempt.outcome()), Some(AttemptOutcome::Crashed));
}

#[tokio::test]
async fn a_poison_shard_fails_its_job_after_three_deaths() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    let id = divide(&world, &mut worker, 1).await;
    for _ in 0..3 {
        worker.start(&world.engine).await;
        worker.end(&world.engine, crash()).await;
        world.pass(2_000).await;
    }
    let job = world.job(&id).await;
    assert_eq!((job.state(), job.failure.expect("it says why").code()), (JobState::Failed, ErrorCode::Poison));
}

#[tokio::test]
async fn cancelling_a_divided_job_ends_it_in_every_stage() {
    let world = World::new().await;
    let cancel = async |id: &JobId| world.engine.cancel(&world.tenant, id).await.expect("it exists");
    let mut worker = Worker::new("w1", 1);
    let counting = world.submit(ingest()).await;
    worker.start(&world.engine).await;
    assert!(cancel(&counting).await.cancel_requested);
    worker.end(&world.engine, divided(7_000)).await;
    let counted = world.job(&counting).await;
    assert_eq!(
        (counted.state(), counted.tasks),
        (JobState::Cancelled, None),
        "a count of items does not complete a job"
    );

    let waiting = divide(&world, &mut worker, 5).await;
    assert_eq!(cancel(&waiting).await.state(), JobState::Cancelled, "no shard runs");

    let running = divide(&world, &mut worker, 2).await;
    worker.start(&world.engine).await;
    let asked = cancel(&running).await;
    assert_eq!((asked.state(), asked.cancel_requested), (JobState::Running, true));
    worker.end(&world.engine, crash()).await;
    world.sweep().await;
    assert_eq!(
        world.state(&running).await,
        JobState::Cancelled,
        "the job is cancelled even if the shard's process crashes"
    );

    let finishing = divide(&world, &mut worker, 1).await;
    worker.start(&world.engine).await;
    worker.end(&world.engine, success(b"shard")).await;
    let again = cancel(&finishing).await;
    worker.request.leases.clear();
    assert!(again.cancel_requested, "{again:?}");
    world.pass(LEASE_MS).await;
    assert_eq!(world.state(&finishing).await, JobState::Cancelled);
    assert_eq!(cancel(&finishing).await.failure.expect("it says why").code(), ErrorCode::Cancelled);
}

#[tokio::test]
async fn only_a_whole_task_may_divide_its_job() {
    let world = World::new().await;
    let mut worker = Worker::new("w1", 1);
    let id = divide(&world, &mut worker, 1).await;
    worker.start(&world.engine).await;
    worker.end(&world.engine, divided(7_000)).await;
    world.sweep().await;
    let job = world.job(&id).await;
    let last = job.attempts.last().expect("it was tried");
    assert_eq!((last.outcome(), tasks(&job).total), (AttemptOutcome::Crashed, 1));
}
