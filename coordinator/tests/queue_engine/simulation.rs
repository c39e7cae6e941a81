//! A simulation that checks the invariants: random workers crash, vanish, miss answers and come back late, and random users cancel, pause
//! and retry.

use std::collections::{BTreeMap, BTreeSet};

use sortinghat_coordinator::{
    auth::Caller,
    engine::{Engine, Settings},
};
use sortinghat_proto::{
    JobId,
    v1::{self, AttemptOutcome, ErrorCode, FailureClass, JobState, job_event::Event, task_outcome::Outcome},
};

use crate::{
    unsure::Dice,
    world::{LEASE_MS, Worker, World, checkpoint, crash, divided, finetune, ingest, log, request, settings, success},
};

const SEEDS: u64 = 150;
const JOBS: usize = 14;
const STEPS: usize = 300;
/// After this many rounds with healthy workers every job must have ended.
const LAST_ROUNDS: usize = 400;

struct Simulation {
    world: World,
    /// Another coordinator over the same store.
    beside: World,
    dice: Dice,
    jobs: Vec<JobId>,
    workers: Vec<Worker>,
    /// Workers that were replaced, but do not know that.
    zombies: Vec<Worker>,
    incarnations: u32,
}

impl Simulation {
    async fn new(seed: u64) -> Self {
        let world = World::unsure(seed, Settings { reads_ahead: true, ..settings() }).await;
        let beside = world.beside(Settings { reads_ahead: true, ..settings() });
        let mut dice = Dice(seed);
        let mut jobs: Vec<JobId> = Vec::new();
        for _ in 0..JOBS {
            let is_child = !jobs.is_empty() && dice.chance(40);
            let kind = if is_child { finetune(&format!("job:{}", jobs[0])) } else { ingest() };
            let mut time = |chance: u64, ms: u64| {
                if dice.chance(chance) { world.now().plus_ms(1 + ms + dice.below(ms)).to_wire() } else { 0 }
            };
            let (not_before_unix_ms, deadline_unix_ms) = (time(20, 10_000), time(20, 60_000));
            let job = v1::SubmitJobRequest { not_before_unix_ms, deadline_unix_ms, ..request(kind) };
            let id = world.accept(job).await.expect("valid").id.parse().expect("a job id");
            if is_child { jobs.push(id) } else { jobs.insert(0, id) }
        }
        let mut simulation =
            Self { world, beside, dice, jobs, workers: Vec::new(), zombies: Vec::new(), incarnations: 0 };
        for _ in 0..4 {
            let worker = simulation.next_incarnation();
            simulation.workers.push(worker);
        }
        simulation
    }

    fn next_incarnation(&mut self) -> Worker {
        self.incarnations += 1;
        Worker::new(&format!("w{}", self.incarnations), 1 + self.dice.below(2) as u32)
    }

    async fn step(&mut self) {
        let number = self.dice.below(self.workers.len() as u64) as usize;
        match self.dice.below(100) {
            0..35 => {
                let engine = self.engine();
                self.workers[number].poll(&engine).await;
            }
            // The message arrives, but its answer is lost.
            35..45 => {
                let engine = self.engine();
                let worker = &mut self.workers[number];
                worker.request.sequence += 1;
                let _ = engine.synchronize(&Caller::everyone(), worker.request.clone()).await;
            }
            45..65 => self.end_something(number).await,
            65..70 => {
                let next = self.next_incarnation();
                self.zombies.push(std::mem::replace(&mut self.workers[number], next));
            }
            70..75 => self.haunt().await,
            75..77 => {
                let job = self.dice.below(self.jobs.len() as u64) as usize;
                self.engine().cancel(&self.world.tenant, &self.jobs[job]).await.expect("it exists");
            }
            77 => self.use_a_verb().await,
            _ => {
                let ms = self.dice.below(LEASE_MS / 2);
                self.world.pass(ms).await;
            }
        }
    }

    /// Cancels many jobs, pauses or resumes the queue, or retries a job.
    async fn use_a_verb(&mut self) {
        let (engine, tenant) = (self.engine(), self.world.tenant.clone());
        match self.dice.below(12) {
            0 => {
                let states =
                    vec![[JobState::Blocked, JobState::Queued, JobState::Running][self.dice.below(3) as usize].into()];
                let some = v1::CancelJobsRequest { states, ..v1::CancelJobsRequest::default() };
                engine.cancel_many(&tenant, some).await.expect("a valid filter");
            }
            1..4 => drop(engine.pause_queue(&tenant).await.expect("it answers")),
            4..8 => drop(engine.resume_queue(&tenant).await.expect("it answers")),
            _ => {
                let job = &self.jobs[self.dice.below(self.jobs.len() as u64) as usize];
                let again = v1::RetryJobRequest { job_id: job.to_string(), idempotency_key: String::new() };
                match engine.retry(&tenant, again).await {
                    Ok(accepted) => self.jobs.push(accepted.job.expect("a job").id.parse().expect("a job id")),
                    Err(refused) => assert_eq!(refused.code(), ErrorCode::WrongState, "{refused}"),
                }
            }
        }
    }

    /// One of the two coordinators.
    fn engine(&mut self) -> Engine {
        if self.dice.chance(50) { self.world.engine.clone() } else { self.beside.engine.clone() }
    }

    async fn end_something(&mut self, number: usize) {
        let (engine, mut outcome) = (self.engine(), self.outcome());
        let content = self.dice.below(256) as u8;
        let is_large = self.dice.chance(30);
        let worker = &mut self.workers[number];
        let running = worker.request.leases.iter().rposition(|lease| lease.outcome.is_none());
        if let Some(running) = running {
            let part = worker.assignment(&worker.request.leases[running]).part.clone().and_then(|part| part.part);
            if let (true, Some(v1::part::Part::Whole(_))) = (is_large, part) {
                outcome = divided(u64::from(content) * 50 + 1);
            }
            let lease = &mut worker.request.leases[running];
            lease.events = vec![log(1, "a line"), checkpoint(2, &[content])];
            lease.events.truncate(1 + usize::from(content.is_multiple_of(2)));
            lease.outcome = Some(v1::TaskOutcome { outcome: Some(outcome) });
            worker.poll(&engine).await;
        }
    }

    fn outcome(&mut self) -> Outcome {
        match self.dice.below(10) {
            0..5 => success(&self.dice.below(u64::MAX).to_le_bytes()),
            5..7 => crash(),
            7 => Outcome::Returned("no room".into()),
            8 => Outcome::Cancelled(v1::TaskCancelled {}),
            _ => Outcome::Failed(v1::Failure {
                failure_class: FailureClass::Infrastructure.into(),
                code: ErrorCode::StorageUnavailable.into(),
                ..v1::Failure::default()
            }),
        }
    }

    /// A worker whose leases have long expired reports success.
    async fn haunt(&mut self) {
        if let Some(mut zombie) = self.zombies.pop() {
            for lease in &mut zombie.request.leases {
                lease.outcome = Some(v1::TaskOutcome { outcome: Some(success(b"late")) });
            }
            zombie.request.free_slots = 0;
            zombie.poll(&self.world.engine).await;
        }
    }

    /// Healthy workers end all jobs.
    async fn finish(&mut self) {
        self.world.engine.resume_queue(&self.world.tenant).await.expect("it answers");
        for _ in 0..LAST_ROUNDS {
            for worker in &mut self.workers {
                worker.poll(&self.world.engine).await;
                for lease in worker.request.leases.iter_mut().filter(|lease| lease.outcome.is_none()) {
                    lease.outcome = Some(v1::TaskOutcome { outcome: Some(success(lease.task_id.as_bytes())) });
                }
                worker.poll(&self.world.engine).await;
            }
            self.world.pass(LEASE_MS / 3).await;
            let mut open = 0;
            for id in &self.jobs {
                open += usize::from(!is_end(self.world.state(id).await));
            }
            let queue = self.world.engine.queue(&self.world.tenant).await.expect("it answers");
            if open == 0 && queue.cancellations == 0 {
                return;
            }
        }
        panic!("some job or bulk cancellation never ends");
    }

    /// Checks everything that users can see. Returns how many divided jobs have succeeded.
    async fn check(&self) -> usize {
        let (mut names, mut in_shards) = (BTreeSet::new(), 0);
        for id in &self.jobs {
            check_history(&self.world.history(id).await);
            let job = self.world.job(id).await;
            if let Some(output) = job.output {
                in_shards += usize::from(job.tasks.is_some());
                assert!(names.insert(output.name.clone()), "{} was given twice", output.name);
                if output.name.contains('@') {
                    let dataset = self.world.engine.get_dataset(&self.world.tenant, &output.name).await;
                    let dataset = dataset.expect("a committed name points at something");
                    assert_eq!((dataset.manifest, dataset.job_id), (output.manifest, job.id));
                }
            }
        }
        let list = v1::ListDatasetsRequest::default();
        let datasets = self.world.engine.list_datasets(&self.world.tenant, list).await.expect("a page").datasets;
        let committed = names.iter().filter(|name| name.contains('@')).count();
        assert_eq!(datasets.len(), committed, "every name belongs to a job that succeeded");
        self.check_queue().await;
        in_shards
    }

    /// Checks that the queue counts each job in its final state, that nothing is left to do, and that no record stays when all jobs are
    /// forgotten.
    async fn check_queue(&self) {
        let queue = self.world.engine.queue(&self.world.tenant).await.expect("it answers");
        let mut states = BTreeMap::new();
        for id in &self.jobs {
            *states.entry(self.world.state(id).await).or_default() += 1;
        }
        let counted: BTreeMap<JobState, u64> = queue.counts.iter().map(|count| (count.state(), count.jobs)).collect();
        assert_eq!(counted, states);
        assert_eq!((queue.paused_since_unix_ms, queue.cancellations), (0, 0));
        let open =
            v1::CancelJobsRequest { kind: "ingest".into(), count_only: true, ..v1::CancelJobsRequest::default() };
        assert_eq!(self.world.engine.cancel_many(&self.world.tenant, open).await.expect("it answers").matching, 0);
        assert_eq!(self.world.pass(3_600_000).await.overdue, 0, "no deadline is left");
        self.world.forget_everything(Settings::default().retention_ms).await;
        let indexes =
            ["jobs:local", "open:local", "deadlines", "leases", "delayed", "unsettled", "ended-jobs", "ended-parents"];
        for index in indexes.into_iter().chain(["cancelling", "remains"]) {
            assert_eq!(self.world.index(index).await, [""; 0], "{index}");
        }
        let queue = self.world.engine.queue(&self.world.tenant).await.expect("it answers");
        assert!(queue.counts.is_empty(), "{queue:?}");
    }
}

fn is_end(state: JobState) -> bool {
    matches!(state, JobState::Succeeded | JobState::Failed | JobState::Cancelled)
}

/// Checks the invariants that a job's history shows: its sequences have no gap, the job ends once, each task commits at most once and has
/// one attempt at a time, and epochs grow.
fn check_history(history: &[v1::JobEvent]) {
    let (mut ends, mut commits) = (0, BTreeSet::new());
    let (mut last_epochs, mut running) = (BTreeMap::new(), BTreeMap::new());
    for (number, event) in history.iter().enumerate() {
        assert_eq!(event.sequence, number as u64 + 1);
        match event.event.as_ref().expect("an event") {
            Event::StateChanged(changed) => ends += usize::from(is_end(changed.state())),
            Event::AttemptStarted(attempt) => {
                assert_eq!(running.insert(attempt.task, attempt.epoch), None, "two attempts of a task at a time");
                let last_epoch = last_epochs.insert(attempt.task, attempt.epoch);
                assert!(last_epoch.is_none_or(|last| last < attempt.epoch), "epochs grow");
            }
            Event::AttemptEnded(attempt) => {
                assert_eq!(running.remove(&attempt.task), Some(attempt.epoch), "only an attempt that runs can end");
                if attempt.outcome() == AttemptOutcome::Succeeded {
                    assert!(commits.insert(attempt.task), "at most one commit of a task");
                }
            }
            Event::EpochFinished(_) | Event::Notice(_) | Event::Log(_) => {
                assert!(!running.is_empty(), "events come from attempts that run");
            }
        }
    }
    assert_eq!(ends, 1, "exactly one end");
    assert!(running.is_empty(), "no attempt outlives its job");
}

// The time is virtual, so that the seed also decides what is prefetched.
#[tokio::test(start_paused = true)]
async fn whatever_workers_and_users_do_every_job_ends_once_and_every_name_is_right() {
    let mut in_shards = 0;
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let mut simulation = Simulation::new(seed).await;
        for _ in 0..STEPS {
            simulation.step().await;
        }
        simulation.finish().await;
        in_shards += simulation.check().await;
    }
    assert!(in_shards > 100, "only {in_shards} divided jobs have succeeded");
}
