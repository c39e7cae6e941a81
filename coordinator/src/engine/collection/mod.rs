//! The collection of garbage in the object store: objects to which nothing refers any more are removed.
//!
//! Every commit that makes something refer to an object takes a [`Fence`] from this room. The room owns one table, the newest
//! [`CollectionRecord`] of each tenant, which is a cache. Its face is [`Collection`].
//!
//! An object is referred to (is live) if it is the manifest of a name, or if a stored job refers to it: by its spec, its inputs or its
//! output, and, unless the job has succeeded, by its checkpoints and the outputs of its shards. If a live object is a document, the objects
//! that the document names are live, too.
//!
//! A pass over a tenant's objects first marks the live objects. Then it removes the suspects, which are objects that an earlier pass has
//! found not to be live, if they have been suspects for half a grace period and still are not live. Last, it makes suspects of the other
//! objects that are not live and are older than half a grace period. A pass never removes an object that somebody relies on, for these
//! reasons:
//!
//! - **A caller that is told that an object exists** has it cleared of suspicion first, so that the object is kept for half a grace period.
//!   The caller must submit its job in that time.
//! - **A commit of a reference** checks the version of the tenant's [`CollectionRecord`] in the same batch. The version changes before
//!   objects are removed, and after. So an object that was found to exist before the commit still exists at the commit. If no pass runs,
//!   the next pass sees the reference. A running pass may have read past its place already, so the uploads of a job are then cleared of
//!   suspicion.
//! - **A worker writes objects without asking**, perhaps an object that is just being removed. If any objects were removed since the
//!   worker's lease began, every part of its output is checked before the output is committed. And an object that was written after the
//!   start of the oldest lease is not removed. (Checkpoints are not checked: an attempt that does not find its checkpoint begins anew.)
//! - **A reference that moves** while a pass reads does not escape the pass: names are read before jobs, and no job is forgotten during a
//!   pass.
//! - **A coordinator that dies** leaves its pass to another coordinator. That one waits until every removal that the dead coordinator has
//!   requested is done or can no longer happen. The objects that were to be removed are suspects as before.
//!
//! Superfluous checkpoints are removed at once, without a pass; see `discards`. Objects whose tenant asks for it are removed without the grace;
//! see `erasure`. A pass decides only about wishes from before its beginning, so that what the tenant has removed before is not marked. An object
//! that was written since its wish is left to the next pass: a task that began after the marking may have written and committed it.
//!
//! Memory is bounded, because the live objects are kept in a Bloom filter. The filter may take an object for live that is not, but never
//! the reverse.

mod discards;
mod erasure;
mod inventory;
mod outputs;
mod owner;
mod pass;
mod reuse;
mod roots;
mod suspects;
mod uploads;

use std::{collections::HashMap, ops::AddAssign, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sortinghat_proto::{Digest, Tenant, time::UnixMs};
use tokio_util::sync::CancellationToken;

use super::{
    context::Context,
    error::EngineError,
    records::{Records, Versioned, expectation, keys},
};
use crate::store::Expectation;

use outputs::Outputs;
use pass::Pass;
use uploads::Manifests;

pub(crate) use outputs::Expected;

pub use inventory::{ObjectInventory, ObjectPresence, StoredObject};

/// How often to check whether a pass is due: so many times in half a grace period, within the bounds below.
const LOOKS_PER_HALF_GRACE: u64 = 16;
const SHORTEST_PAUSE_MS: u64 = 100;
const LONGEST_PAUSE_MS: u64 = 600_000;

/// Says whether a tenant's objects are being collected. The record is absent until a collecting coordinator has seen the tenant for the
/// first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CollectionRecord {
    stage: Stage,
    /// When objects were removed last; 0 if none ever was.
    last_removal: UnixMs,
}

/// The stage of a tenant's collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    /// No pass is running.
    Idle {
        /// The time from which on the next pass may begin.
        due: UnixMs,
    },
    /// A pass is running.
    Busy {
        /// A random number that identifies the pass.
        pass: u64,
        /// The time at which others may treat the pass as over, unless the pass is renewed before.
        until: UnixMs,
        /// The objects that are being removed at this moment.
        condemned: Vec<Digest>,
    },
}

impl Default for CollectionRecord {
    fn default() -> Self {
        Self { stage: Stage::Idle { due: UnixMs::default() }, last_removal: UnixMs::default() }
    }
}

impl CollectionRecord {
    fn condemned(&self) -> &[Digest] {
        match &self.stage {
            Stage::Idle { .. } => &[],
            Stage::Busy { condemned, .. } => condemned,
        }
    }

    fn is_busy(&self) -> bool {
        matches!(self.stage, Stage::Busy { .. })
    }

    /// Whether objects may have been removed since this time, or are being removed now.
    fn has_removed_since(&self, since: UnixMs) -> bool {
        !self.condemned().is_empty() || self.last_removal >= since
    }
}

/// A check on a tenant's [`CollectionRecord`]: a batch with this check applies only if the record is still as it was read.
pub(crate) type Fence = (String, Expectation);

/// A tenant's record, as it was read last.
#[derive(Debug, Clone)]
struct Seen {
    record: CollectionRecord,
    expectation: Expectation,
}

impl From<Option<Versioned<CollectionRecord>>> for Seen {
    fn from(read: Option<Versioned<CollectionRecord>>) -> Self {
        Self { expectation: expectation(&read), record: read.map(|read| *read.value).unwrap_or_default() }
    }
}

/// The records of all tenants, as they were read last. They hardly ever change. A commit that relies on an outdated record does not apply.
#[derive(Debug, Default)]
struct SeenRecords(Mutex<HashMap<Tenant, Seen>>);

impl SeenRecords {
    fn forget(&self, tenant: &Tenant) {
        self.0.lock().remove(tenant);
    }

    fn known(&self, tenant: &Tenant) -> Option<Seen> {
        self.0.lock().get(tenant).cloned()
    }

    fn note(&self, tenant: &Tenant, seen: Seen) {
        self.0.lock().insert(tenant.clone(), seen);
    }
}

/// The result of a round of collection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many objects have become suspects, since nothing refers to them.
    pub suspected: usize,
    /// How many objects were removed.
    pub removed: usize,
    /// How many bytes the removed objects had.
    pub removed_bytes: u64,
    /// How many files of unfinished uploads were removed.
    pub unfinished: usize,
}

impl AddAssign for Collected {
    fn add_assign(&mut self, other: Self) {
        self.suspected += other.suspected;
        self.removed += other.removed;
        self.removed_bytes += other.removed_bytes;
        self.unfinished += other.unfinished;
    }
}

/// Collects the objects of all tenants, and protects the objects that somebody relies on.
pub(crate) struct Collection {
    context: Arc<Context>,
    records: Records,
    objects: Arc<dyn ObjectPresence>,
    seen: SeenRecords,
    /// The id of the queue, once the objects were found to belong to it.
    owner: Mutex<String>,
    manifests: Manifests,
    outputs: Outputs,
}

impl Collection {
    /// Creates the collection of these objects.
    pub(crate) fn new(context: Arc<Context>, records: Records, objects: Arc<dyn ObjectPresence>) -> Self {
        Self {
            context,
            records,
            objects,
            seen: SeenRecords::default(),
            manifests: Manifests::default(),
            outputs: Outputs::default(),
            owner: Mutex::default(),
        }
    }

    /// Forgets what was read of the tenant's record. To be called when a commit with a fence did not apply, so that the next commit reads
    /// the record again.
    pub(crate) fn invalidate(&self, tenant: &Tenant) {
        self.seen.forget(tenant);
    }

    /// Collects objects whenever a pass is due, until `stop` is cancelled.
    pub(crate) async fn run_collection(&self, inventory: Arc<dyn ObjectInventory>, stop: CancellationToken) {
        let pause = Duration::from_millis(self.pause_ms());
        let rounds = async {
            loop {
                tokio::time::sleep(pause).await;
                if let Err(error) = self.collect(&*inventory).await {
                    tracing::error!(%error, "objects cannot be collected");
                }
            }
        };
        tokio::select! {
            () = rounds => {}
            () = stop.cancelled() => {}
        }
    }

    /// Runs the passes that are due, one tenant after the other. A failed pass does not prevent the passes of other tenants. Returns the
    /// last error.
    pub(crate) async fn collect(&self, inventory: &dyn ObjectInventory) -> Result<Collected, EngineError> {
        let mut all = Ok(Collected::default());
        for tenant in inventory.tenants().await? {
            match self.collect_of(inventory, &tenant).await {
                Ok(collected) => {
                    if let Ok(all) = &mut all {
                        *all += collected;
                    }
                }
                Err(error) => {
                    metrics::counter!("sortinghat_collection_failures_total").increment(1);
                    tracing::error!(%tenant, %error, "a tenant's objects cannot be collected");
                    all = Err(error);
                }
            }
        }
        all
    }

    /// How long an upload may take: half a grace period. After that an object is kept only if something refers to it.
    pub(crate) fn longest_upload(&self) -> Duration {
        Duration::from_millis(self.half_grace_ms())
    }

    async fn collect_of(&self, inventory: &dyn ObjectInventory, tenant: &Tenant) -> Result<Collected, EngineError> {
        let Some(pass) = Pass::begin(self, inventory, tenant).await? else { return Ok(Collected::default()) };
        let collected = pass.run().await?;
        let Collected { suspected, removed, removed_bytes, unfinished } = collected;
        metrics::counter!("sortinghat_objects_suspected_total").increment(suspected as u64);
        metrics::counter!("sortinghat_objects_removed_total").increment(removed as u64);
        metrics::counter!("sortinghat_object_bytes_removed_total").increment(removed_bytes);
        metrics::counter!("sortinghat_unfinished_uploads_removed_total").increment(unfinished as u64);
        if removed > 0 || unfinished > 0 {
            tracing::info!(%tenant, removed, removed_bytes, unfinished, "removed objects that nothing refers to");
        } else {
            tracing::debug!(%tenant, suspected, "no object had to be removed");
        }
        Ok(collected)
    }

    /// How long to wait before looking again whether a pass is due.
    fn pause_ms(&self) -> u64 {
        (self.half_grace_ms() / LOOKS_PER_HALF_GRACE).clamp(SHORTEST_PAUSE_MS, LONGEST_PAUSE_MS)
    }

    /// After this time an object is gone to which nothing refers any more, unless a pass was held up: it becomes a suspect in the next pass,
    /// half a grace period later at most, and is removed in the pass after that one. The last part is for the passes themselves.
    pub(crate) fn longest_life_ms(&self) -> u64 {
        3 * self.half_grace_ms()
    }

    fn half_grace_ms(&self) -> u64 {
        self.context.settings.object_grace_ms / 2
    }

    /// The tenant's record, possibly outdated: it is read again only after [`invalidate`](Self::invalidate). Only for commits that a fence protects.
    async fn collection(&self, tenant: &Tenant) -> Result<Seen, EngineError> {
        if let Some(known) = self.seen.known(tenant) {
            return Ok(known);
        }
        let seen = Seen::from(self.records.read::<CollectionRecord>(keys::collection(tenant)).await?);
        self.seen.note(tenant, seen.clone());
        Ok(seen)
    }
}
