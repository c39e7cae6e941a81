//! Objects that nothing refers to any more are removed: marked, suspected, and half a grace later marked again and removed.
//!
//! What is referred to: the manifests of all names; of every job that is kept its spec, inputs and output, and unless it has
//! succeeded its checkpoints and what its shards made; and whatever documents among these name, and so on.
//!
//! A pass over a tenant's objects finds what is referred to, removes those that have been suspects for half a grace and
//! still nothing refers to, and makes suspects of the others to which nothing refers, if they are older than half a grace. Why it
//! never removes what somebody counts on:
//!
//! - **Whoever is told that an object is there** takes it off the suspects first, and so it is kept for half a grace. A job is to be
//!   submitted in that time.
//! - **Whoever commits a reference** checks the version of the tenant's [`CollectionRecord`] in the same batch. It changes before
//!   objects are removed and after. So what was found to be there is there at the commit. A commit while no pass runs is seen by
//!   the next one; one that runs may have gone by already, and then a job's uploads are taken off the suspects.
//! - **A worker writes objects without asking**, perhaps one that is just being removed. If any were removed since its lease
//!   began, its output is looked for, part by part, before it is committed. What was written since the oldest lease began is not
//!   removed. (A checkpoint is not looked for: an attempt that finds none begins anew.)
//! - **A reference that moves** while a pass reads cannot hide from it: names are read before jobs, and no job is forgotten
//!   meanwhile.
//! - **A coordinator that dies** leaves its pass to others, who wait until a removal that it has asked for is done or never will
//!   be. What it was removing are suspects as before.
//!
//! Memory is bounded: what is referred to is a filter that may take an object for one that is referred to, never the reverse.

mod inventory;
mod owner;
mod pass;
mod reuse;
mod roots;
mod suspects;

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

use pass::Pass;

pub use inventory::{ObjectInventory, ObjectPresence, StoredObject};

/// How often it is looked whether a pass is due, as parts of half a grace, and within which bounds.
const LOOKS_PER_HALF_GRACE: u64 = 16;
const SHORTEST_PAUSE_MS: u64 = 100;
const LONGEST_PAUSE_MS: u64 = 600_000;

/// Whether a tenant's objects are being collected. Absent until the first coordinator that collects has seen the tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CollectionRecord {
    stage: Stage,
    /// When objects were last being removed; 0 if they never were.
    last_removal: UnixMs,
}

/// What is going on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    /// Nothing.
    Idle {
        /// When the next pass may begin.
        due: UnixMs,
    },
    /// A pass.
    Busy {
        /// Which: a random number.
        pass: u64,
        /// When it is over, however it ended, unless it goes on and says so.
        until: UnixMs,
        /// Objects that are being removed at this moment.
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

    /// Whether objects may have been removed since then, or are being removed.
    fn has_removed_since(&self, since: UnixMs) -> bool {
        !self.condemned().is_empty() || self.last_removal >= since
    }
}

/// Lets a batch apply only if a tenant's objects are being collected or not, as they were when it was looked.
pub(crate) type Fence = (String, Expectation);

/// A tenant's record as it was last read.
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

/// The records of all tenants as they were last read. They hardly ever change, and a commit that relies on an old one does not apply.
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

/// What a round of collecting did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects that have become suspects: nothing refers to them.
    pub suspected: usize,
    /// Objects that were removed.
    pub removed: usize,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Files of unfinished uploads that were removed.
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

/// Collects the objects of all tenants, and protects those that somebody counts on.
pub(crate) struct Collection {
    context: Arc<Context>,
    records: Records,
    objects: Arc<dyn ObjectPresence>,
    seen: SeenRecords,
}

impl Collection {
    /// The collection of these objects.
    pub(crate) fn new(context: Arc<Context>, records: Records, objects: Arc<dyn ObjectPresence>) -> Self {
        Self { context, records, objects, seen: SeenRecords::default() }
    }

    /// A commit that relied on the tenant's record did not apply, and so the record is read again before the next commit.
    pub(crate) fn doubt(&self, tenant: &Tenant) {
        self.seen.forget(tenant);
    }

    /// Collects objects whenever it is due, until told to stop.
    pub(crate) async fn run_collection(&self, inventory: Arc<dyn ObjectInventory>, stop: CancellationToken) {
        let pause_ms = self.half_grace_ms() / LOOKS_PER_HALF_GRACE;
        let pause = Duration::from_millis(pause_ms.clamp(SHORTEST_PAUSE_MS, LONGEST_PAUSE_MS));
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

    /// Runs the passes that are due, one tenant after the other. A pass that fails keeps no other tenant's from being run; the last error is
    /// returned.
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

    /// How long an upload may take: half a grace. It is kept for no longer unless something refers to it.
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
            tracing::debug!(%tenant, suspected, "no object was to be removed");
        }
        Ok(collected)
    }

    fn half_grace_ms(&self) -> u64 {
        self.context.settings.object_grace_ms / 2
    }

    /// The tenant's record, as it was when a commit last failed or before; for what a fence protects.
    async fn collection(&self, tenant: &Tenant) -> Result<Seen, EngineError> {
        if let Some(known) = self.seen.known(tenant) {
            return Ok(known);
        }
        let seen = Seen::from(self.records.read::<CollectionRecord>(keys::collection(tenant)).await?);
        self.seen.note(tenant, seen.clone());
        Ok(seen)
    }
}
