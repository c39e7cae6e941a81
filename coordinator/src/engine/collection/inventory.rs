//! What the engine asks of the object store.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use sortinghat_proto::{Digest, ObjectRef, Refusal, Tenant, time::UnixMs};


/// Says which objects exist, so that no job is accepted without its photos and no name points at nothing. An error means that
/// the object store could not be asked.
#[async_trait]
pub trait ObjectPresence: Send + Sync + 'static {
    /// Whether the tenant has this object with this size.
    async fn holds(&self, tenant: &Tenant, object: &ObjectRef) -> Result<bool, Refusal>;

    /// The object's content, if it may be a JSON document of a length that anybody reads; checked against its digest.
    async fn document(&self, tenant: &Tenant, digest: &Digest) -> Result<Option<Bytes>, Refusal>;
}

/// An object as the object store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// When it was last written, by the clock of the object store.
    pub written: UnixMs,
}

/// Lists and removes objects. An error means that the object store could not be asked, or that it is not known what became of
/// what was asked of it.
#[async_trait]
pub trait ObjectInventory: ObjectPresence {
    /// Notes that the objects belong to the queue with this id, unless they belong to one already; returns the id of theirs.
    async fn claim(&self, queue: &str) -> Result<String, Refusal>;

    /// The time by the clock of the object store.
    async fn now(&self) -> Result<UnixMs, Refusal>;

    /// Whoever has objects.
    async fn tenants(&self) -> Result<Vec<Tenant>, Refusal>;

    /// The tenant's objects, in no order.
    fn list(&self, tenant: &Tenant) -> BoxStream<'static, Result<StoredObject, Refusal>>;

    /// One object; `None` if there is none.
    async fn find(&self, tenant: &Tenant, digest: &Digest) -> Result<Option<StoredObject>, Refusal>;

    /// Removes an object. That there is none is no error.
    async fn remove(&self, tenant: &Tenant, digest: &Digest) -> Result<(), Refusal>;

    /// Removes what unfinished uploads of the tenant have left, if nothing was written to it since `before`; returns how many
    /// files.
    async fn remove_unfinished(&self, tenant: &Tenant, before: UnixMs) -> Result<usize, Refusal>;
}
