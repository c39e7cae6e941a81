//! The contract of every store: the conformance suite, equal answers from all stores, and the durability of the durable ones.

mod embedded;
mod failing_disk;
mod power_loss;
mod proxy;
mod random;
mod redis;
mod redis_checks;
mod redis_faults;
mod stalling_disk;

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use sortinghat_coordinator::store::{
    Batch, EmbeddedStore, Expectation, MemoryStore, RedisOptions, RedisServer, RedisStore, StoreError, SystemClock,
    conformance,
};

fn embedded(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(path, Arc::new(SystemClock::new())).expect("a new file opens")
}

/// The options for a Redis at this URL.
fn options(url: &str) -> RedisOptions {
    RedisOptions {
        url: url.parse().expect("a Redis"),
        password_file: None,
        deployment: "sortinghat".parse().expect("a name"),
        allow_data_loss: false,
    }
}

/// A store in this Redis.
async fn connect(server: &RedisServer) -> Result<RedisStore, StoreError> {
    RedisStore::open(options(&server.url())).await
}

/// The number in this variable, or else the default.
fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// A batch that creates a record whose value is its key.
fn create(key: &str) -> Batch {
    Batch {
        checks: vec![(key.to_owned(), Expectation::Absent)],
        writes: vec![(key.to_owned(), Bytes::from(key.to_owned()))],
        ..Batch::default()
    }
}

#[tokio::test]
async fn the_memory_store_keeps_the_contract() {
    conformance::check(Arc::new(MemoryStore::new(Arc::new(SystemClock::new())))).await;
}
