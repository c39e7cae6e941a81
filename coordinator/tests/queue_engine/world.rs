//! The world of these tests: an engine with a clock that tests move, and workers that send the messages of real workers.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use sortinghat_coordinator::{
    auth::Caller,
    engine::{Engine, ObjectPresence, Settings, Submission, Swept},
    store::{Batch, EmbeddedStore, Expectation, Listener, ManualClock, MemoryStore, Range, Store},
};
use sortinghat_proto::{
    Digest, JobId, ObjectRef, Refusal, Tenant,
    limits::{MAX_JOBS_PER_CALL, SESSION_SECRET_BYTES},
    time::UnixMs,
    v1::{self, ErrorCode, attempt_event, job_spec::Kind, task_outcome},
};

use crate::{keeper::list, unsure::Unsure};

/// The length of a lease in these tests, in milliseconds.
pub(crate) const LEASE_MS: u64 = 9_000;
/// After this many rounds of sweeps everything that is due must be done.
const MAX_ROUNDS: usize = 1_000;
pub(crate) const START: UnixMs = UnixMs(1_700_000_000_000);

/// An object store that has every object, until a test sets it to have lost them or to be unavailable. Each object is an upload manifest.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) lost: AtomicBool,
    pub(crate) away: AtomicBool,
}

#[async_trait]
impl ObjectPresence for Objects {
    async fn holds(&self, _: &Tenant, _: &ObjectRef) -> Result<bool, Refusal> {
        if self.away.load(Ordering::SeqCst) {
            return Err(Refusal::new(ErrorCode::StorageUnavailable, "the object store is away"));
        }
        Ok(!self.lost.load(Ordering::SeqCst))
    }

    async fn is_sound(&self, tenant: &Tenant, digest: &Digest) -> Result<bool, Refusal> {
        self.holds(tenant, &ObjectRef { digest: digest.clone(), size_bytes: 0 }).await
    }

    async fn document(&self, _: &Tenant, _: &Digest) -> Result<Option<Bytes>, Refusal> {
        Ok(Some(list(&["any"]).into()))
    }

    fn shows_outputs(&self) -> bool {
        false
    }
}

pub(crate) struct World {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) engine: Engine,
    store: Arc<dyn Store>,
    /// What the engine looks for objects in, unless it was told otherwise.
    pub(crate) objects: Arc<Objects>,
    presence: Arc<dyn ObjectPresence>,
    pub(crate) tenant: Tenant,
}

impl World {
    /// A world over a new store in memory, after the grace of leases at the start.
    pub(crate) async fn new() -> Self {
        Self::with(settings()).await
    }

    /// The same with these settings instead of [`settings`].
    pub(crate) async fn with(settings: Settings) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let world = Self::over(Arc::new(MemoryStore::new(clock.clone())), clock, settings);
        world.settle().await;
        world
    }

    /// The same over this store and this object store, which use this clock.
    pub(crate) async fn keeping(
        store: Arc<dyn Store>,
        clock: Arc<ManualClock>,
        presence: Arc<dyn ObjectPresence>,
        settings: Settings,
    ) -> Self {
        let world = Self::over_both(store, clock, Arc::default(), presence, settings);
        world.settle().await;
        world
    }

    /// A world over a new store in memory that often does not know whether it has applied a batch.
    pub(crate) async fn unsure(seed: u64, settings: Settings) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let world = Self::over(Arc::new(Unsure::over(MemoryStore::new(clock.clone()), seed)), clock, settings);
        world.settle().await;
        world
    }

    /// A world over a store in a file, right after the start.
    pub(crate) fn embedded(path: &Path, clock: Arc<ManualClock>) -> Self {
        let store = EmbeddedStore::open(path, clock.clone()).expect("the file opens");
        Self::over(Arc::new(store), clock, settings())
    }

    /// Another coordinator over the same store, right after its start.
    pub(crate) fn beside(&self, settings: Settings) -> Self {
        let (objects, presence) = (self.objects.clone(), self.presence.clone());
        Self::over_both(self.store.clone(), self.clock.clone(), objects, presence, settings)
    }

    fn over(store: Arc<dyn Store>, clock: Arc<ManualClock>, settings: Settings) -> Self {
        let objects = Arc::new(Objects::default());
        Self::over_both(store, clock, objects.clone(), objects, settings)
    }

    fn over_both(
        store: Arc<dyn Store>,
        clock: Arc<ManualClock>,
        objects: Arc<Objects>,
        presence: Arc<dyn ObjectPresence>,
        settings: Settings,
    ) -> Self {
        let engine = Engine::new(store.clone(), presence.clone(), settings);
        Self { clock, engine, store, objects, presence, tenant: Tenant::local() }
    }

    /// Lets the grace of leases after a start pass.
    pub(crate) async fn settle(&self) {
        self.sweep().await;
        self.clock.advance_ms(LEASE_MS);
        self.sweep().await;
    }

    pub(crate) async fn sweep(&self) -> Swept {
        self.engine.sweep().await.expect("the store answers")
    }

    /// The time now.
    pub(crate) fn now(&self) -> UnixMs {
        use sortinghat_coordinator::store::Clock as _;
        self.clock.now()
    }

    /// Lets `ms` pass, and sweeps.
    pub(crate) async fn pass(&self, ms: u64) -> Swept {
        self.clock.advance_ms(ms);
        self.sweep().await
    }

    pub(crate) async fn submit(&self, kind: Kind) -> JobId {
        let request = request(kind);
        self.accept(request).await.expect("a valid job").id.parse().expect("a job id")
    }

    pub(crate) async fn accept(&self, request: v1::SubmitJobRequest) -> Result<v1::Job, Refusal> {
        let accepted = self.engine.submit(&self.tenant, Submission::try_from(request)?).await?;
        Ok(accepted.job.expect("an accepted job is returned"))
    }

    /// Submits `count` copies of a job for a tenant.
    pub(crate) async fn submit_many(&self, tenant: &Tenant, job: &v1::SubmitJobRequest, count: usize) {
        let mut left = count;
        while left > 0 {
            let chunk = left.min(MAX_JOBS_PER_CALL);
            let response = self.engine.submit_many(tenant, vec![job.clone(); chunk]).await.expect("answered");
            let is_accepted =
                |verdict: &v1::SubmitVerdict| matches!(verdict.verdict, Some(v1::submit_verdict::Verdict::Accepted(_)));
            assert!(response.verdicts.iter().all(is_accepted));
            left -= chunk;
        }
    }

    pub(crate) async fn job(&self, id: &JobId) -> v1::Job {
        self.engine.get(&self.tenant, id).await.expect("the job exists")
    }

    pub(crate) async fn state(&self, id: &JobId) -> v1::JobState {
        self.job(id).await.state()
    }

    /// Whether a record exists.
    pub(crate) async fn holds(&self, key: &str) -> bool {
        self.store.read(&[key.to_owned()]).await.expect("the store answers")[0].is_some()
    }

    /// The entries of an index.
    pub(crate) async fn index(&self, name: &str) -> Vec<String> {
        self.store.range(Range::first(name, usize::MAX)).await.expect("the store answers")
    }

    /// Listens for hints of a topic.
    pub(crate) fn listen(&self, topic: &str) -> Listener {
        self.store.hints().listen([topic])
    }

    /// The value of a counter.
    pub(crate) async fn counter(&self, name: &str) -> i64 {
        self.store.counters(&[name.to_owned()]).await.expect("the store answers")[0]
    }

    /// Lets so much time pass that every ended job is forgotten, with all of its records.
    pub(crate) async fn forget_everything(&self, kept_ms: u64) {
        self.clock.advance_ms(kept_ms);
        for _ in 0..MAX_ROUNDS {
            self.sweep().await;
            if self.index("ended-jobs").await.is_empty() && self.index("remains").await.is_empty() {
                return;
            }
        }
        panic!("some job or record is never forgotten");
    }

    /// Writes a new record and index entries as they are, such as a defect or an older version may have left them.
    pub(crate) async fn plant(&self, key: &str, record: &'static str, entries: Vec<(String, String)>) {
        let batch = Batch {
            checks: vec![(key.to_owned(), Expectation::Absent)],
            writes: vec![(key.to_owned(), record.into())],
            insertions: entries,
            ..Batch::default()
        };
        self.store.apply(vec![batch]).await.expect("the store answers");
    }

    /// Makes a record unreadable.
    pub(crate) async fn spoil(&self, key: &str) {
        let records = self.store.read(&[key.to_owned()]).await.expect("the store answers");
        let version = records[0].as_ref().expect("there is such a record").version;
        let batch = Batch {
            checks: vec![(key.to_owned(), Expectation::Version(version))],
            writes: vec![(key.to_owned(), "spoiled".into())],
            ..Batch::default()
        };
        self.store.apply(vec![batch]).await.expect("the store answers");
    }

    /// How many records were ever written, including the probe that this writes. The version of the probe tells.
    pub(crate) async fn writes(&self, probe: &str) -> u64 {
        self.plant(probe, "", Vec::new()).await;
        let records = self.store.read(&[probe.to_owned()]).await.expect("the store answers");
        records[0].as_ref().expect("just written").version
    }

    /// The whole history of a job, which must have ended.
    pub(crate) async fn history(&self, id: &JobId) -> Vec<v1::JobEvent> {
        use futures::TryStreamExt as _;
        use v1::watch_job_response::Update;
        let stream = self.engine.watch(&self.tenant, id, 0).await.expect("the job exists");
        let updates: Vec<_> = stream.try_collect().await.expect("the store answers");
        let event = |update: v1::WatchJobResponse| match update.update {
            Some(Update::Event(event)) => Some(event),
            _ => None,
        };
        updates.into_iter().filter_map(event).collect()
    }
}

/// The settings of these tests.
pub(crate) fn settings() -> Settings {
    Settings { lease_ttl_ms: LEASE_MS as u32, keepalive_ms: 1, ..Settings::default() }
}

pub(crate) fn request(kind: Kind) -> v1::SubmitJobRequest {
    v1::SubmitJobRequest { spec: Some(v1::JobSpec { kind: Some(kind) }), ..v1::SubmitJobRequest::default() }
}

pub(crate) fn ingest() -> Kind {
    let source = Some(ObjectRef::of(b"upload").into());
    Kind::Ingest(v1::IngestSpec { dataset_name: "stamps".into(), source, ..v1::IngestSpec::default() })
}

pub(crate) fn finetune(dataset: &str) -> Kind {
    Kind::Finetune(v1::FinetuneSpec { dataset: dataset.into(), ..v1::FinetuneSpec::default() })
}

pub(crate) fn evaluate(model: &str) -> Kind {
    Kind::Evaluate(v1::EvaluateSpec { model: model.into(), ..v1::EvaluateSpec::default() })
}

pub(crate) fn success(manifest: &[u8]) -> task_outcome::Outcome {
    let manifest = Some(ObjectRef::of(manifest).into());
    task_outcome::Outcome::Succeeded(v1::TaskSucceeded { manifest, summary: "713 photos in 8 classes".into() })
}

/// The outcome of a task that has counted too many items for one task.
pub(crate) fn divided(items: u64) -> task_outcome::Outcome {
    task_outcome::Outcome::Divided(v1::TaskDivided { items })
}

pub(crate) fn crash() -> task_outcome::Outcome {
    task_outcome::Outcome::Crashed("killed by signal 9".into())
}

pub(crate) fn log(sequence: u64, text: &str) -> v1::AttemptEvent {
    let event = Some(attempt_event::Event::Log(v1::LogLine { text: text.into() }));
    v1::AttemptEvent { sequence, event }
}

pub(crate) fn checkpoint(sequence: u64, content: &[u8]) -> v1::AttemptEvent {
    let event = Some(attempt_event::Event::Checkpoint(ObjectRef::of(content).into()));
    v1::AttemptEvent { sequence, event }
}

/// A worker as the coordinator sees it: it reports what it runs, and does what the answer says.
pub(crate) struct Worker {
    /// Whose token the worker shows.
    pub(crate) caller: Caller,
    pub(crate) request: v1::SynchronizeRequest,
    /// The assignments of the worker, by task and epoch.
    pub(crate) assignments: BTreeMap<(String, u64), v1::Assignment>,
}

impl Worker {
    pub(crate) fn new(id: &str, slots: u32) -> Self {
        let description =
            v1::WorkerDescription { host: format!("{id}-host"), slots, ..v1::WorkerDescription::default() };
        let request = v1::SynchronizeRequest {
            worker_id: id.into(),
            session_secret: vec![7; SESSION_SECRET_BYTES],
            description: Some(description),
            free_slots: slots,
            ..v1::SynchronizeRequest::default()
        };
        Self { caller: Caller::everyone(), request, assignments: BTreeMap::new() }
    }

    /// Reports everything again, with new beats, and does what the answer says.
    pub(crate) async fn poll(&mut self, engine: &Engine) -> v1::SynchronizeResponse {
        for lease in &mut self.request.leases {
            lease.beat += 1;
        }
        self.poll_without_beats(engine).await
    }

    pub(crate) async fn poll_without_beats(&mut self, engine: &Engine) -> v1::SynchronizeResponse {
        self.request.sequence += 1;
        let answer = engine.synchronize(&self.caller, self.request.clone()).await.expect("the store answers");
        self.obey(&answer);
        answer
    }

    pub(crate) fn obey(&mut self, answer: &v1::SynchronizeResponse) {
        let named =
            |key: &v1::LeaseKey, lease: &v1::LeaseReport| key.task_id == lease.task_id && key.epoch == lease.epoch;
        let told: Vec<&v1::LeaseKey> = answer.leases.iter().filter_map(|lease| lease.key.as_ref()).collect();
        self.request.leases.retain(|lease| {
            let is_acknowledged = answer.acknowledged.iter().any(|key| named(key, lease));
            let is_told = told.iter().any(|key| named(key, lease));
            !is_acknowledged && (is_told || lease.outcome.is_some())
        });
        for lease in &answer.leases {
            let key = lease.key.as_ref().expect("a lease has a key");
            if let Some(known) = self.request.leases.iter_mut().find(|known| named(key, known)) {
                known.events.retain(|event| event.sequence > lease.acknowledged_events);
            } else if let Some(assignment) = &lease.assignment {
                self.assignments.insert((key.task_id.clone(), key.epoch), assignment.clone());
                self.request.leases.push(v1::LeaseReport {
                    task_id: key.task_id.clone(),
                    epoch: key.epoch,
                    ..v1::LeaseReport::default()
                });
            }
        }
        let slots = self.request.description.as_ref().map_or(0, |description| description.slots);
        let running = self.request.leases.iter().filter(|lease| lease.outcome.is_none()).count();
        self.request.free_slots = slots.saturating_sub(running as u32);
    }

    /// Polls once to be given a task, which must happen, and once more to report it.
    pub(crate) async fn start(&mut self, engine: &Engine) -> v1::Assignment {
        self.poll(engine).await;
        let lease = self.request.leases.last().expect("a task was offered");
        let assignment = self.assignment(lease).clone();
        self.poll(engine).await;
        assignment
    }

    /// The assignment of a lease that the worker holds.
    pub(crate) fn assignment(&self, lease: &v1::LeaseReport) -> &v1::Assignment {
        &self.assignments[&(lease.task_id.clone(), lease.epoch)]
    }

    /// Ends the worker's newest attempt, and reports the outcome.
    pub(crate) async fn end(&mut self, engine: &Engine, outcome: task_outcome::Outcome) -> v1::SynchronizeResponse {
        let lease = self.request.leases.last_mut().expect("it runs a task");
        lease.outcome = Some(v1::TaskOutcome { outcome: Some(outcome) });
        self.poll(engine).await
    }
}
