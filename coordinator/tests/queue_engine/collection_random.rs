//! Clients, workers, coordinators that die, and the clock run concurrently, in an order that a seed decides. No name and no job may ever
//! refer to a missing object, and in the end no object may be left over.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    sync::Arc,
};

use async_trait::async_trait;
use futures::future::{join, join_all};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sortinghat_coordinator::{
    engine::Settings,
    store::{Batch, Hints, ManualClock, MemoryStore, Range, Record, Store, StoreError, Verdict},
};
use sortinghat_proto::{
    Digest, ObjectRef, Refusal,
    time::UnixMs,
    v1::{self, ErrorCode, job_spec::Kind, task_outcome::Outcome},
};
use tokio::task::yield_now;

use crate::{
    keeper::{GRACE_MS, collecting, ingest, list, missing},
    shelf::Shelf,
    unsure::{Dice, Odd, Unsure},
    world::{START, Worker, World, request},
};

const SEEDS: u64 = 6;
/// For how long clients and workers are active, in milliseconds.
const DURATION_MS: u64 = 20 * GRACE_MS;
/// The longest step of the clock, in milliseconds.
const STEP_MS: u64 = 2_000;
const KEPT_MS: u64 = 2 * GRACE_MS;
/// A client gives up if its session takes longer than this, in milliseconds, since then its uploads may be removed.
const PATIENCE_MS: u64 = GRACE_MS / 3;

/// A store that often does not know whether it has applied a batch, and lets other tasks run before and after each call.
#[derive(Debug)]
struct Slow {
    store: Odd<Unsure>,
    dice: Mutex<Dice>,
}

impl Slow {
    async fn wait(&self) {
        let turns = self.dice.lock().below(3);
        for _ in 0..turns {
            yield_now().await;
        }
    }
}

#[async_trait]
impl Store for Slow {
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Record>>, StoreError> {
        self.wait().await;
        let read = self.store.read(keys).await;
        self.wait().await;
        read
    }

    async fn counters(&self, keys: &[String]) -> Result<Vec<i64>, StoreError> {
        self.store.counters(keys).await
    }

    async fn range(&self, range: Range) -> Result<Vec<String>, StoreError> {
        self.wait().await;
        self.store.range(range).await
    }

    async fn now(&self) -> Result<UnixMs, StoreError> {
        self.store.now().await
    }

    async fn apply(&self, batches: Vec<Batch>) -> Result<Vec<Verdict>, StoreError> {
        self.wait().await;
        let verdicts = self.store.apply(batches).await;
        self.wait().await;
        verdicts
    }

    fn hints(&self) -> &Arc<Hints> {
        self.store.hints()
    }
}

/// Everything that takes part, and what has happened so far. The seed decides everything.
struct Town {
    worlds: [World; 2],
    shelf: Shelf,
    dice: RefCell<Dice>,
    accepted: Cell<usize>,
    removed: Cell<usize>,
}

impl Town {
    async fn new(seed: u64) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let shelf = Shelf::new(clock.clone());
        let store = Unsure::over(MemoryStore::new(clock.clone()), seed);
        let store = Arc::new(Slow { store, dice: Mutex::new(Dice(seed ^ 0x510e)) });
        let settings = || Settings { retention_ms: KEPT_MS, seed: Some(seed), ..collecting() };
        let world = World::keeping(store, clock, Arc::new(shelf.clone()), settings()).await;
        let other = world.beside(Settings { seed: Some(!seed), ..settings() });
        let dice = RefCell::new(Dice(seed));
        Self { worlds: [world, other], shelf, dice, accepted: Cell::default(), removed: Cell::default() }
    }

    fn below(&self, bound: u64) -> u64 {
        self.dice.borrow_mut().below(bound)
    }

    fn any_world(&self) -> &World {
        &self.worlds[self.below(2) as usize]
    }

    fn is_open(&self) -> bool {
        self.worlds[0].now() < START.plus_ms(DURATION_MS)
    }

    async fn wait(&self, most_turns: u64) {
        for _ in 0..self.below(most_turns) {
            yield_now().await;
        }
    }

    async fn time(&self) {
        while self.is_open() {
            self.worlds[0].clock.advance_ms(self.below(STEP_MS));
            self.wait(30).await;
        }
    }

    /// A coordinator that dies now and then in the middle of a pass.
    async fn coordinator(&self, world: &World) {
        while self.is_open() {
            world.sweep().await;
            let lifetime = if self.below(4) == 0 { self.below(400) } else { u64::MAX };
            let dies = async {
                for _ in 0..lifetime {
                    yield_now().await;
                }
            };
            tokio::select! {
                biased;
                () = dies => {}
                collected = world.engine.collect(&self.shelf) => {
                    let removed = collected.map_or(0, |collected| collected.removed);
                    self.removed.set(self.removed.get() + removed);
                }
            }
            self.wait(50).await;
        }
    }

    async fn upload(&self, content: &[u8]) -> Result<ObjectRef, Refusal> {
        let (world, object) = (self.any_world(), ObjectRef::of(content));
        world.engine.reuse_one(&world.tenant, &object.digest).await?;
        let is_there = self.shelf.has(&object);
        self.wait(20).await;
        Ok(if is_there { object } else { self.shelf.put(content.to_vec()) })
    }

    /// A client that uploads missing objects and submits a job, or sometimes removes a name instead.
    async fn client(&self) {
        while self.is_open() {
            self.wait(400).await;
            if self.below(4) == 0 {
                self.remove_a_name().await;
            } else if let Err(refusal) = self.session().await {
                assert_eq!(refusal.code, ErrorCode::StorageUnavailable, "{refusal}");
            }
        }
    }

    async fn session(&self) -> Result<(), Refusal> {
        let begun = self.worlds[0].now();
        let photos: BTreeSet<String> = (0..=self.below(3)).map(|_| format!("photo {}", self.below(5))).collect();
        let photos: Vec<&str> = photos.iter().map(String::as_str).collect();
        let objects: Vec<ObjectRef> = photos.iter().map(|photo| ObjectRef::of(photo.as_bytes())).collect();
        let lacking = missing(self.any_world(), &self.shelf, &objects.iter().collect::<Vec<_>>()).await;
        for photo in photos.iter().filter(|photo| lacking.contains(&Digest::of(photo.as_bytes()))) {
            self.upload(photo.as_bytes()).await?;
        }
        let source = self.upload(&list(&photos)).await?;
        self.wait(300).await;
        let world = self.any_world();
        if world.now().ms_since(begun) > PATIENCE_MS {
            return Ok(());
        }
        world.accept(request(ingest("stamps", &source))).await?;
        self.accepted.set(self.accepted.get() + 1);
        self.assert_whole(&source);
        Ok(())
    }

    async fn names(&self) -> Vec<v1::Dataset> {
        let (world, all) = (self.any_world(), v1::ListDatasetsRequest { page_size: 1_000, ..Default::default() });
        world.engine.list_datasets(&world.tenant, all).await.expect("the store answers").datasets
    }

    async fn remove_a_name(&self) {
        let world = self.any_world();
        let names = self.names().await;
        if !names.is_empty() {
            let name = &names[self.below(names.len() as u64) as usize].name;
            // The other client may have removed the name first.
            let _ = world.engine.delete_dataset(&world.tenant, name).await;
        }
    }

    /// A worker that checks that the photos of its jobs exist, and makes datasets that often share their shards.
    async fn worker(&self, id: &str) {
        let mut worker = Worker::new(id, 1);
        while self.is_open() {
            worker.poll(&self.any_world().engine).await;
            self.wait(20).await;
            let Some(lease) = worker.request.leases.first().filter(|lease| lease.outcome.is_none()) else { continue };
            let Some(Kind::Ingest(spec)) = worker.assignment(lease).spec.clone().and_then(|spec| spec.kind) else {
                panic!("no other job was submitted")
            };
            let source: ObjectRef = spec.source.expect("it has one").try_into().expect("valid");
            self.assert_whole(&source);
            let shard = self.shelf.put(format!("shard {}", self.below(3)));
            self.wait(200).await;
            let manifest = self.shelf.put(json!({ "shards": [shard], "source": source }).to_string());
            self.wait(20).await;
            let made = v1::TaskSucceeded { manifest: Some(manifest.into()), summary: String::new() };
            worker.request.leases[0].outcome = Some(v1::TaskOutcome { outcome: Some(Outcome::Succeeded(made)) });
        }
    }

    /// Asserts that the object and everything that it names exist.
    fn assert_whole(&self, document: &ObjectRef) {
        let content = self.shelf.content(document).unwrap_or_else(|| panic!("{} is gone", document.digest));
        let Ok(content) = serde_json::from_slice::<Value>(&content) else { return };
        let parts = ["files", "shards"].iter().filter_map(|field| content[field].as_array()).flatten();
        for part in parts.chain(content.get("source")) {
            self.assert_whole(&serde_json::from_value(part.clone()).expect("a reference"));
        }
    }

    /// Checks that every name leads to complete data, and that all objects are removed once all names are removed and all jobs are
    /// forgotten.
    async fn close(&self) {
        let world = &self.worlds[0];
        for dataset in self.names().await {
            self.assert_whole(&dataset.manifest.expect("it has one").try_into().expect("valid"));
            let _ = world.engine.delete_dataset(&world.tenant, &dataset.name).await;
        }
        for job in world.index("jobs:local").await {
            world.engine.cancel(&world.tenant, &job.parse().expect("a job id")).await.expect("it exists");
        }
        world.clock.advance_ms(10 * GRACE_MS);
        for _ in 0..20 {
            world.sweep().await;
            world.clock.advance_ms(GRACE_MS);
            let _ = world.engine.collect(&self.shelf).await;
        }
        world.forget_everything(KEPT_MS).await;
        for _ in 0..20 {
            world.clock.advance_ms(GRACE_MS);
            let _ = world.engine.collect(&self.shelf).await;
        }
        assert_eq!(self.shelf.len(), 0, "some object is never removed");
    }
}

#[tokio::test]
async fn whatever_happens_concurrently_every_referenced_object_is_kept_and_no_other_is() {
    let (mut accepted, mut removed) = (0, 0);
    for seed in 0..SEEDS {
        // The output is shown if the test fails.
        println!("seed {seed}");
        let town = Town::new(seed).await;
        let coordinators = join_all(town.worlds.iter().map(|world| town.coordinator(world)));
        let clients = join(town.client(), town.client());
        let workers = join(town.worker("w1"), town.worker("w2"));
        tokio::join!(town.time(), coordinators, clients, workers);
        town.close().await;
        accepted += town.accepted.get();
        removed += town.removed.get();
    }
    assert!(accepted > 0 && removed > 0, "{accepted} jobs, {removed} objects");
    println!("{accepted} jobs, {removed} objects removed");
}
