//! An object store in memory that uses the clock of the tests, and runs a given future before it answers a certain question.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use parking_lot::Mutex;
use sortinghat_coordinator::{
    engine::{ObjectInventory, ObjectPresence, StoredObject},
    store::{Clock as _, ManualClock},
};
use sortinghat_proto::{Digest, ObjectRef, Refusal, Tenant, time::UnixMs, v1::ErrorCode};

/// The moment before a question is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Moment {
    /// The engine asks whether an object exists.
    Holds,
    /// The engine asks for the content of a document.
    Document,
    /// The engine asks for the list of objects.
    List,
    /// The engine looks up a condemned object.
    Find,
    /// The engine removes the condemned object.
    Remove,
}

type Happening = BoxFuture<'static, ()>;

#[derive(Default)]
struct Contents {
    objects: BTreeMap<(Tenant, Digest), (Bytes, UnixMs)>,
    happenings: HashMap<Moment, Happening>,
    owner: Option<String>,
}

/// The store. It is cheap to clone, and a clone is the same store.
#[derive(Clone)]
pub(crate) struct Shelf {
    clock: Arc<ManualClock>,
    contents: Arc<Mutex<Contents>>,
    /// Objects are removed, but the answers to the removals are lost, as if the coordinator died before it heard them.
    pub(crate) removals_fail: Arc<AtomicBool>,
    /// By how much the clock of this store is ahead, in milliseconds.
    pub(crate) ahead_ms: Arc<AtomicU64>,
}

impl Shelf {
    pub(crate) fn new(clock: Arc<ManualClock>) -> Self {
        Self { clock, contents: Arc::default(), removals_fail: Arc::default(), ahead_ms: Arc::default() }
    }

    fn contents<T>(&self, look: impl FnOnce(&mut Contents) -> T) -> T {
        look(&mut self.contents.lock())
    }

    /// Sets the future that runs the next time that this question is asked.
    pub(crate) fn at(&self, moment: Moment, happening: impl Future<Output = ()> + Send + 'static) {
        self.contents(|contents| contents.happenings.insert(moment, Box::pin(happening)));
    }

    async fn happen(&self, moment: Moment) {
        // Other tasks may run first.
        tokio::task::yield_now().await;
        if let Some(happening) = self.contents(|contents| contents.happenings.remove(&moment)) {
            happening.await;
        }
    }

    /// Whether all futures that were set have run.
    pub(crate) fn is_calm(&self) -> bool {
        self.contents(|contents| contents.happenings.is_empty())
    }

    /// Writes an object without asking the engine, as workers do.
    pub(crate) fn put(&self, content: impl Into<Bytes>) -> ObjectRef {
        let (content, now) = (content.into(), self.clock.now());
        let object = ObjectRef::of(&content);
        let key = (Tenant::local(), object.digest.clone());
        self.contents(|contents| contents.objects.insert(key, (content, now)));
        object
    }

    /// Replaces an object's content by something that cannot be parsed.
    pub(crate) fn spoil(&self, object: &ObjectRef) {
        let (key, now) = ((Tenant::local(), object.digest.clone()), self.clock.now());
        self.contents(|contents| contents.objects.insert(key, (Bytes::from_static(b"spoiled"), now)));
    }

    pub(crate) fn has(&self, object: &ObjectRef) -> bool {
        self.contents(|contents| contents.objects.contains_key(&(Tenant::local(), object.digest.clone())))
    }

    /// An object's content.
    pub(crate) fn content(&self, object: &ObjectRef) -> Option<Bytes> {
        let key = (Tenant::local(), object.digest.clone());
        self.contents(|contents| contents.objects.get(&key).map(|(content, _)| content.clone()))
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> usize {
        self.contents(|contents| contents.objects.len())
    }

    fn stored(&self) -> Vec<(Tenant, StoredObject)> {
        let stored = |((tenant, digest), (content, written)): (&(Tenant, Digest), &(Bytes, UnixMs))| {
            let object = StoredObject {
                digest: digest.clone(),
                size_bytes: content.len() as u64,
                written: written.plus_ms(self.ahead_ms.load(Ordering::SeqCst)),
            };
            (tenant.clone(), object)
        };
        self.contents(|contents| contents.objects.iter().map(stored).collect())
    }
}

#[async_trait]
impl ObjectPresence for Shelf {
    async fn holds(&self, _: &Tenant, object: &ObjectRef) -> Result<bool, Refusal> {
        self.happen(Moment::Holds).await;
        Ok(self.has(object))
    }

    async fn is_sound(&self, tenant: &Tenant, digest: &Digest) -> Result<bool, Refusal> {
        self.happen(Moment::Holds).await;
        Ok(self.contents(|contents| contents.objects.contains_key(&(tenant.clone(), digest.clone()))))
    }

    async fn document(&self, tenant: &Tenant, digest: &Digest) -> Result<Option<Bytes>, Refusal> {
        self.happen(Moment::Document).await;
        let found = self.contents(|contents| contents.objects.get(&(tenant.clone(), digest.clone())).cloned());
        Ok(found.map(|(content, _)| content))
    }

    fn shows_outputs(&self) -> bool {
        false
    }
}

#[async_trait]
impl ObjectInventory for Shelf {
    async fn claim(&self, queue: &str) -> Result<String, Refusal> {
        Ok(self.contents(|contents| contents.owner.get_or_insert(queue.to_owned()).clone()))
    }

    async fn now(&self) -> Result<UnixMs, Refusal> {
        Ok(self.clock.now().plus_ms(self.ahead_ms.load(Ordering::SeqCst)))
    }

    async fn tenants(&self) -> Result<Vec<Tenant>, Refusal> {
        let mut tenants: Vec<Tenant> = self.stored().into_iter().map(|(tenant, _)| tenant).collect();
        tenants.dedup();
        Ok(tenants)
    }

    fn list(&self, tenant: &Tenant) -> BoxStream<'static, Result<StoredObject, Refusal>> {
        let (shelf, tenant) = (self.clone(), tenant.clone());
        let listed = async move {
            shelf.happen(Moment::List).await;
            let own = shelf.stored().into_iter().filter(move |(owner, _)| *owner == tenant);
            stream::iter(own.map(|(_, object)| Ok(object)))
        };
        stream::once(listed).flatten().boxed()
    }

    async fn find(&self, tenant: &Tenant, digest: &Digest) -> Result<Option<StoredObject>, Refusal> {
        self.happen(Moment::Find).await;
        let found = |(owner, object): &(Tenant, StoredObject)| owner == tenant && object.digest == *digest;
        Ok(self.stored().into_iter().find(found).map(|(_, object)| object))
    }

    async fn remove(&self, tenant: &Tenant, digest: &Digest) -> Result<(), Refusal> {
        self.happen(Moment::Remove).await;
        self.contents(|contents| contents.objects.remove(&(tenant.clone(), digest.clone())));
        if self.removals_fail.load(Ordering::SeqCst) {
            return Err(Refusal::new(ErrorCode::StorageUnavailable, "the answer is lost"));
        }
        Ok(())
    }

    async fn remove_unfinished(&self, _: &Tenant, _: UnixMs) -> Result<usize, Refusal> {
        Ok(0)
    }
}
