//! A coordinator with an object store of its own, and the actions of users and workers on both.

use std::sync::Arc;

use serde_json::json;
use sortinghat_coordinator::{
    engine::{Collected, Settings},
    store::{ManualClock, MemoryStore},
};
use sortinghat_proto::{
    Digest, JobId, ObjectRef, Refusal,
    manifest::{self, UploadManifest, UploadedFile},
    v1::{self, JobState, job_spec::Kind, task_outcome::Outcome},
};

use crate::{
    interrupted::Interrupted,
    shelf::Shelf,
    unsure::Odd,
    world::{LEASE_MS, START, Worker, World, settings},
};

/// The grace period: for how long an object to which nothing refers is kept at least, in milliseconds.
pub(crate) const GRACE_MS: u64 = 200_000;
/// For how long a job is kept after its end, in milliseconds.
pub(crate) const KEPT_MS: u64 = 10 * GRACE_MS;

/// A coordinator and an object store.
pub(crate) struct Keeper {
    pub(crate) world: Arc<World>,
    pub(crate) shelf: Shelf,
    pub(crate) store: Arc<Odd<Interrupted>>,
}

impl Keeper {
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let shelf = Shelf::new(clock.clone());
        let store = Arc::new(Odd::new(MemoryStore::new(clock.clone()), Interrupted::default()));
        let world = World::keeping(store.clone(), clock, Arc::new(shelf.clone()), collecting()).await;
        Self { world: Arc::new(world), shelf, store }
    }

    pub(crate) async fn collect(&self) -> Collected {
        self.world.engine.collect(&self.shelf).await.expect("both stores answer")
    }

    /// Lets half a grace period pass, and collects.
    pub(crate) async fn pass(&self) -> Collected {
        self.world.clock.advance_ms(GRACE_MS / 2);
        self.collect().await
    }

    /// Collects until every object that may be removed is removed.
    pub(crate) async fn collect_all(&self) {
        for _ in 0..5 {
            self.pass().await;
        }
    }

    /// Makes everything to which nothing refers a suspect, and lets so much time pass that the next pass removes it. To be called once,
    /// since the first of its two rounds only notes that the tenant has objects.
    pub(crate) async fn ripen(&self) {
        for _ in 0..2 {
            self.pass().await;
        }
        self.world.clock.advance_ms(GRACE_MS / 2);
    }

    /// Returns the objects that must be uploaded, as the API does.
    pub(crate) async fn missing(&self, objects: &[&ObjectRef]) -> Vec<Digest> {
        missing(&self.world, &self.shelf, objects).await
    }

    /// Uploads an object as the API does.
    pub(crate) async fn upload(&self, content: &[u8]) -> Result<ObjectRef, Refusal> {
        let object = ObjectRef::of(content);
        self.world.engine.reuse_one(&self.world.tenant, &object.digest).await?;
        Ok(if self.shelf.has(&object) { object } else { self.shelf.put(content.to_vec()) })
    }

    /// Uploads photos and their list.
    pub(crate) async fn upload_set(&self, photos: &[&str]) -> ObjectRef {
        let list = list(photos);
        for photo in photos {
            self.upload(photo.as_bytes()).await.expect("nothing is being removed");
        }
        self.upload(&list).await.expect("nothing is being removed")
    }

    /// Ingests photos into a dataset that is stored in one shard.
    pub(crate) async fn ingest(&self, worker: &mut Worker, name: &str, photos: &[&str], shard: &'static str) -> JobId {
        let source = self.upload_set(photos).await;
        let job = self.world.submit(ingest(name, &source)).await;
        worker.start(&self.world.engine).await;
        let shard = self.shelf.put(shard);
        worker.end(&self.world.engine, self.made(json!({ "shards": [shard], "source": source }))).await;
        assert_eq!(self.world.state(&job).await, JobState::Succeeded);
        job
    }

    /// The outcome of an attempt that stores a document.
    pub(crate) fn made(&self, document: serde_json::Value) -> Outcome {
        let manifest = Some(self.shelf.put(document.to_string()).into());
        Outcome::Succeeded(v1::TaskSucceeded { manifest, summary: String::new() })
    }

    /// Lets this much time pass while a worker goes on with its work.
    pub(crate) async fn work(&self, worker: &mut Worker, ms: u64) {
        for _ in 0..ms.div_ceil(LEASE_MS / 3) {
            self.world.pass(LEASE_MS / 3).await;
            worker.poll(&self.world.engine).await;
        }
    }

    #[track_caller]
    pub(crate) fn assert_has(&self, contents: &[&str]) {
        for content in contents {
            assert!(self.shelf.has(&ObjectRef::of(content.as_bytes())), "{content} is gone");
        }
    }

    #[track_caller]
    pub(crate) fn assert_lacks(&self, contents: &[&str]) {
        for content in contents {
            assert!(!self.shelf.has(&ObjectRef::of(content.as_bytes())), "{content} is still there");
        }
    }
}

pub(crate) async fn missing(world: &World, shelf: &Shelf, objects: &[&ObjectRef]) -> Vec<Digest> {
    let digests: Vec<Digest> = objects.iter().map(|object| object.digest.clone()).collect();
    let leaving = world.engine.reuse(&world.tenant, &digests).await.expect("the store answers");
    let lacks = |object: &&&ObjectRef| leaving.contains(&object.digest) || !shelf.has(object);
    objects.iter().filter(lacks).map(|object| object.digest.clone()).collect()
}

pub(crate) fn collecting() -> Settings {
    Settings { object_grace_ms: GRACE_MS, retention_ms: KEPT_MS, ..settings() }
}

/// The upload manifest of these photos.
pub(crate) fn list(photos: &[&str]) -> Vec<u8> {
    let file = |photo: &&str| UploadedFile::new(format!("cats/{photo}"), ObjectRef::of(photo.as_bytes()));
    manifest::encode(&UploadManifest::of(photos.iter().map(file).collect()))
}

pub(crate) fn ingest(name: &str, source: &ObjectRef) -> Kind {
    let source = Some(source.clone().into());
    Kind::Ingest(v1::IngestSpec { dataset_name: name.into(), source, ..v1::IngestSpec::default() })
}
