//! What the engine asks the object store.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use sortinghat_proto::{Digest, ObjectRef, Refusal, Tenant, time::UnixMs};

/// Says which objects exist, so that no job is accepted without its photos, and no name is committed for a missing artifact. An error means
/// that the object store could not be asked.
#[async_trait]
pub trait ObjectPresence: Send + Sync + 'static {
    /// Whether the tenant has this object with this size.
    async fn holds(&self, tenant: &Tenant, object: &ObjectRef) -> Result<bool, Refusal>;

    /// Whether the tenant has an object with this digest, and all of its content can be read and matches the digest.
    async fn is_sound(&self, tenant: &Tenant, digest: &Digest) -> Result<bool, Refusal>;

    /// The content of an object that may be a JSON document, checked against its digest. `None` if the object is missing, is no such
    /// document, or is too long for one.
    async fn document(&self, tenant: &Tenant, digest: &Digest) -> Result<Option<Bytes>, Refusal>;

    /// Whether the content of outputs can be read and so be checked. An object store that is made up for a test may only know that they exist.
    fn shows_outputs(&self) -> bool {
        true
    }
}

/// An object as the object store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// The object's name: the digest of its content.
    pub digest: Digest,
    /// The object's length in bytes.
    pub size_bytes: u64,
    /// When the object was last written, by the clock of the object store.
    pub written: UnixMs,
}

/// Lists and removes objects. An error means that the object store could not be asked, or that the result of the request is not known.
#[async_trait]
pub trait ObjectInventory: ObjectPresence {
    /// Claims the objects for the queue with this id, unless they belong to a queue already. Returns the id of the queue that they belong
    /// to.
    async fn claim(&self, queue: &str) -> Result<String, Refusal>;

    /// The time by the clock of the object store.
    async fn now(&self) -> Result<UnixMs, Refusal>;

    /// The tenants that have objects.
    async fn tenants(&self) -> Result<Vec<Tenant>, Refusal>;

    /// The tenant's objects, in no particular order.
    fn list(&self, tenant: &Tenant) -> BoxStream<'static, Result<StoredObject, Refusal>>;

    /// Finds one object; `None` if it does not exist.
    async fn find(&self, tenant: &Tenant, digest: &Digest) -> Result<Option<StoredObject>, Refusal>;

    /// Removes an object. It is no error if the object does not exist.
    async fn remove(&self, tenant: &Tenant, digest: &Digest) -> Result<(), Refusal>;

    /// Removes the files of the tenant's unfinished uploads to which nothing was written since `before`. Returns how many files were
    /// removed.
    async fn remove_unfinished(&self, tenant: &Tenant, before: UnixMs) -> Result<usize, Refusal>;
}
