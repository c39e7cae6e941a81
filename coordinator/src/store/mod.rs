//! The stores of the queue's state: one trait of a few methods, and the stores that implement it.
//!
//! A store knows records with versions, ordered indexes and counters. It does not know what a job or a lease is: those rules exist
//! once, in [`queue`](crate::queue) and [`engine`](crate::engine). Every store passes the checks in [`conformance`].

mod batch;
mod clock;
pub mod conformance;
mod embedded;
mod hints;
mod memory;
mod redis;

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use sortinghat_proto::time::UnixMs;

pub use batch::{Batch, Expectation, MAX_BATCH_BYTES, MAX_BATCH_OPERATIONS};
pub use clock::{Clock, ManualClock, SystemClock};
pub use embedded::EmbeddedStore;
pub use hints::{Hints, Listener};
pub use memory::MemoryStore;
pub use redis::{RedisOptions, RedisServer, RedisStore};

/// A durable store of records, indexes and counters.
///
/// Records, indexes and counters have separate name spaces. What [`apply`](Self::apply) reported as applied is durable, and
/// every later read sees it.
#[async_trait]
pub trait Store: Debug + Send + Sync + 'static {
    /// Reads records at one moment, in the order of `keys`; `None` for those that do not exist.
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Record>>, StoreError>;

    /// Reads counters at one moment, in the order of `keys`; 0 for those that were never incremented.
    async fn counters(&self, keys: &[String]) -> Result<Vec<i64>, StoreError>;

    /// Reads a part of an ordered index.
    async fn range(&self, range: Range) -> Result<Vec<String>, StoreError>;

    /// Reads parts of ordered indexes, in the order of `ranges`; not necessarily at one moment.
    async fn ranges(&self, ranges: Vec<Range>) -> Result<Vec<Vec<String>>, StoreError> {
        futures::future::try_join_all(ranges.into_iter().map(|range| self.range(range))).await
    }

    /// The store's own time. It never goes back, neither between callers nor over restarts.
    async fn now(&self) -> Result<UnixMs, StoreError>;

    /// Applies independent batches, each as a whole or not at all, and returns their verdicts in order.
    ///
    /// A later batch sees the changes of the earlier batches in the same call. An error means that no batch was tried.
    async fn apply(&self, batches: Vec<Batch>) -> Result<Vec<Verdict>, StoreError>;

    /// The hints that applied batches send. A store that may have lost a hint wakes every listener. A listener must look at intervals all the
    /// same.
    fn hints(&self) -> &Arc<Hints>;
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The version that the store gave to this write. It is greater than every version that was given before, to any record.
    pub version: u64,
    /// The bytes that were written.
    pub value: Bytes,
}

/// Entries of one index, compared as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The index.
    pub index: String,
    /// The least entry that may be returned.
    pub from: String,
    /// The least entry that is beyond the range; `None` for no bound.
    pub until: Option<String>,
    /// The most entries that may be returned.
    pub limit: usize,
    /// The end to start from.
    pub order: Order,
}

/// The order in which entries are returned, and the end that a limit counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The least entry first.
    Ascending,
    /// The greatest entry first.
    Descending,
}

impl Range {
    /// The first `limit` entries of an index.
    pub fn first(index: impl Into<String>, limit: usize) -> Self {
        Self { index: index.into(), from: String::new(), until: None, limit, order: Order::Ascending }
    }

    /// Leaves out the entries from `until` on.
    pub fn until(self, until: impl Into<String>) -> Self {
        Self { until: Some(until.into()), ..self }
    }

    /// Leaves out the entries below `from`.
    pub fn from(self, from: impl Into<String>) -> Self {
        Self { from: from.into(), ..self }
    }

    /// Starts from the greatest entry.
    pub fn descending(self) -> Self {
        Self { order: Order::Descending, ..self }
    }
}

/// The result of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was applied and is durable. Holds the values of its counters after their increments, in the order of the batch.
    Applied(Vec<i64>),
    /// A check did not hold, so nothing was applied.
    Conflict,
    /// The store failed in the meantime. The batch was applied as a whole or not at all; a read tells which.
    Unknown,
}

/// Why a store cannot answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A batch breaks the rules of [`Batch::validate`], which is a defect of the caller.
    #[error("a batch for the store is malformed: {reason}")]
    Malformed {
        /// The rule that it breaks.
        reason: String,
    },
    /// The store failed or cannot be reached.
    #[error("the queue's store failed to {action}: {reason}")]
    Unavailable {
        /// The action that failed.
        action: &'static str,
        /// The store's explanation.
        reason: String,
    },
    /// The store may lose, or has lost, writes that it acknowledged. It is not used until that is put right.
    #[error("the queue's store is not safe: {reason}")]
    Unsafe {
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The store was closed.
    #[error("the queue's store is closed")]
    Closed,
}
