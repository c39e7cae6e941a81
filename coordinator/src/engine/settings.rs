//! The settings of the engine.

use std::{collections::HashMap, num::NonZeroU64};

use sortinghat_proto::{Tenant, limits};

/// The durations, the weights and the limits that the engine works with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The length of a lease, in milliseconds.
    pub lease_ttl_ms: u32,
    /// For how long failures of infrastructure are retried, counted from the first failure, in milliseconds.
    pub infrastructure_budget_ms: u64,
    /// The longest silence of a watch, in milliseconds.
    pub keepalive_ms: u64,
    /// How often a waiting call looks again although it has received no hint, in milliseconds.
    pub poll_ms: u64,
    /// The pause between two rounds of a sweep, in milliseconds.
    pub sweep_ms: u64,
    /// For how long a ready queue stays open after its last task has left, in milliseconds.
    pub queue_linger_ms: u64,
    /// For how long a task is left to an idle worker that has the task's dataset and model in its cache, in milliseconds.
    pub affinity_ms: u64,
    /// For how long a task whose attempt died is left to workers on other machines, in milliseconds.
    pub other_machine_ms: u64,
    /// The weights of tenants in fair sharing at the start, at least 1. A tenant that is not named has the weight 1.
    pub weights: HashMap<Tenant, u32>,
    /// The seed of ids and of choices among equals. Simulations set it; `None` stands for the system's randomness.
    pub seed: Option<u64>,
    /// The most items that one task processes. A job with more items is divided into shards of this size.
    pub shard_items: NonZeroU64,
    /// For how long a job is kept after its end, in milliseconds.
    pub retention_ms: u64,
    /// The grace period: for how long an object is kept that nothing refers to, in milliseconds. Half of it may pass between an upload and
    /// the submission of its job. All coordinators of a queue must have the same value.
    pub object_grace_ms: u64,
    /// How many jobs of one tenant may wait.
    pub max_waiting_jobs_per_tenant: u64,
    /// How many tasks of all tenants together may wait.
    pub max_waiting_tasks: u64,
    /// How many workers one identity may have.
    pub max_workers_per_identity: usize,
    /// Whether to prefetch the records that a worker's next message will need. A prefetch saves a round trip to a store in another process.
    /// A store in this process has no round trip to save.
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
            max_workers_per_identity: limits::DEFAULT_MAX_OPEN_PER_IDENTITY,
            reads_ahead: false,
        }
    }
}
