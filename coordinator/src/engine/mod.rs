//! The queue as callers see it: each command reads records, asks the pure rules, and applies one batch with checks; a conflict
//! starts again from the read.
//!
//! It speaks the contract's types and knows neither transport nor credentials. All state that must last is in the store; what is
//! kept here (who polls, how far an attempt has come) may be lost at any moment.

mod artifacts;
mod assignment;
mod bulk_cancel;
mod change;
mod claim;
mod collection;
mod companions;
mod deadlines;
mod dependents;
mod explain;
mod failures;
mod filter;
mod history;
mod inventory;
mod jobs;
mod keys;
mod ledger;
mod load;
mod opening;
mod pins;
mod preemption;
mod preference;
mod progress;
mod quota;
mod rates;
mod ready;
mod records;
mod reports;
mod retention;
mod retry;
mod sessions;
mod settle;
mod shards;
mod stop;
mod submission;
mod submit;
mod sweeps;
mod synchronize;
mod tenant_queue;
mod waiting;
mod watch;
mod written;

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU64,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rand::{SeedableRng as _, rngs::StdRng};
use sortinghat_proto::{Refusal, Tenant, limits, v1::ErrorCode};
use tokio_util::sync::CancellationToken;

use crate::{
    queue::Rules,
    store::{Store, StoreError},
};

pub use collection::Collected;
pub use inventory::{ObjectInventory, ObjectPresence, StoredObject};
pub use submission::Submission;
pub use sweeps::Swept;
pub use watch::WatchStream;

/// The lengths of time, the weights and the bounds that the engine works with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Length of a lease, in milliseconds.
    pub lease_ttl_ms: u32,
    /// How long failures of infrastructure are retried, from the first on, in milliseconds.
    pub infrastructure_budget_ms: u64,
    /// The longest silence of a watch, in milliseconds.
    pub keepalive_ms: u64,
    /// How often whoever waits looks again although nothing was hinted, in milliseconds.
    pub poll_ms: u64,
    /// Pause between two rounds of a sweep, in milliseconds.
    pub sweep_ms: u64,
    /// How long a ready queue is still looked at after its last task has left, in milliseconds.
    pub queue_linger_ms: u64,
    /// How long a task is left to an idle worker that has its dataset and model already, in milliseconds.
    pub affinity_ms: u64,
    /// How long a task whose attempt died is left to workers of other machines, in milliseconds.
    pub other_machine_ms: u64,
    /// Weights of tenants among others, at least 1; those that are not named have 1.
    pub weights: HashMap<Tenant, u32>,
    /// Seed of ids and of choices among equals; `None` for the system's randomness. Simulations set it.
    pub seed: Option<u64>,
    /// Items of a job that are one task; a job with more is divided into shards of this many.
    pub shard_items: NonZeroU64,
    /// How long a job is kept after its end, in milliseconds.
    pub retention_ms: u64,
    /// How long an object is kept that nothing refers to, in milliseconds; half of it is how long an upload may take until its job is
    /// submitted. Others that serve the same queue go by the same time.
    pub object_grace_ms: u64,
    /// Jobs of one tenant that may wait.
    pub max_waiting_jobs_per_tenant: u64,
    /// Tasks of all tenants that may wait.
    pub max_waiting_tasks: u64,
    /// Read what a worker that is back at once will need while it is on its way. That saves a round trip to another process; a store in
    /// this one has none.
    pub reads_ahead: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease_ttl_ms: 10_000,
            infrastructure_budget_ms: 3_600_000,
            keepalive_ms: 10_000,
            poll_ms: 1_000,
            sweep_ms: 200,
            queue_linger_ms: 60_000,
            affinity_ms: 2_000,
            other_machine_ms: 10_000,
            weights: HashMap::new(),
            seed: None,
            shard_items: NonZeroU64::new(limits::DEFAULT_SHARD_ITEMS).expect("not 0"),
            retention_ms: 30 * 24 * 3_600_000,
            object_grace_ms: 24 * 3_600_000,
            max_waiting_jobs_per_tenant: limits::DEFAULT_MAX_WAITING_JOBS_PER_TENANT,
            max_waiting_tasks: limits::DEFAULT_MAX_WAITING_TASKS,
            reads_ahead: false,
        }
    }
}

/// The queue, the names of artifacts, and the conversation with workers. Cheap to clone; clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    objects: Arc<dyn ObjectPresence>,
    settings: Settings,
    rules: Rules,
    sessions: sessions::Sessions,
    progress: progress::ProgressBoard,
    expiry: sweeps::ExpiryGrace,
    claims: claim::Claims,
    expected: opening::Expected,
    last_open: ready::LastOpen,
    empty_queues: ready::EmptyQueues,
    cached: preference::CacheBoard,
    left: preference::LeftTasks,
    said: failures::Said,
    waiting: waiting::WaitingWorkers,
    waiting_heads: preemption::WaitingHeads,
    durations: rates::Durations,
    quota: quota::Quota,
    collections: collection::Collections,
    next_look: retention::NextLook,
    written: written::WrittenJobs,
    dice: Mutex<StdRng>,
    draining: CancellationToken,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine over a store. Nothing runs until it is called; see [`run`](Self::run).
    pub fn new(store: Arc<dyn Store>, objects: Arc<dyn ObjectPresence>, settings: Settings) -> Self {
        let rules = Rules {
            lease_ttl_ms: u64::from(settings.lease_ttl_ms),
            infrastructure_budget_ms: settings.infrastructure_budget_ms,
        };
        Self {
            shared: Arc::new(Shared {
                store,
                objects,
                dice: Mutex::new(
                    settings.seed.map_or_else(|| StdRng::from_rng(&mut rand::rng()), StdRng::seed_from_u64),
                ),
                settings,
                rules,
                sessions: sessions::Sessions::default(),
                progress: progress::ProgressBoard::default(),
                expiry: sweeps::ExpiryGrace::default(),
                claims: claim::Claims::default(),
                expected: opening::Expected::default(),
                last_open: ready::LastOpen::default(),
                empty_queues: ready::EmptyQueues::default(),
                cached: preference::CacheBoard::default(),
                left: preference::LeftTasks::default(),
                said: failures::Said::default(),
                waiting: waiting::WaitingWorkers::default(),
                waiting_heads: preemption::WaitingHeads::default(),
                durations: rates::Durations::default(),
                quota: quota::Quota::default(),
                collections: collection::Collections::default(),
                next_look: retention::NextLook::default(),
                written: written::WrittenJobs::default(),
                draining: CancellationToken::new(),
            }),
        }
    }

    /// Whether the store answers; for readiness probes.
    pub async fn check_store(&self) -> Result<(), Refusal> {
        self.shared.store.read(&["probe".to_owned()]).await?;
        Ok(())
    }

    /// Ends every held poll and every watch; polls that come later are answered at once. For a graceful end.
    pub fn drain(&self) {
        self.shared.draining.cancel();
    }
}

impl Shared {
    /// Where ids and choices among equals come from.
    fn dice(&self) -> MutexGuard<'_, StdRng> {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let code = match error {
            StoreError::Malformed { .. } => ErrorCode::Internal,
            StoreError::Unavailable { .. } | StoreError::Unsafe { .. } | StoreError::Closed => {
                ErrorCode::StorageUnavailable
            }
        };
        Self::new(code, error.to_string())
    }
}

/// How often a command starts again from its read before it gives up.
const MAX_TRIES: usize = 32;

/// The answer to a command that lost every race.
fn contended(what: impl fmt::Display) -> Refusal {
    metrics::counter!("sortinghat_contended_commands_total").increment(1);
    Refusal::new(ErrorCode::StorageUnavailable, format!("{what} is being changed by too many at once; try again"))
}

/// `text` without what exceeds the limit for kept messages.
fn bounded(mut text: String) -> String {
    let limit = sortinghat_proto::limits::MAX_TEXT_BYTES;
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
    }
    text
}
