//! What the engine can be set to.

use std::{collections::HashMap, num::NonZeroU64};

use sortinghat_proto::{Tenant, limits};

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
