//! The durable store of many coordinators: a Redis (or Valkey) that syncs every write before it answers.
//!
//! ```text
//!   coordinator A                      coordinator B
//!     Store::apply   Store::read         ...
//!        |               |
//!      Writer            |      at most 2 calls in flight; the calls that queue up share the next one
//!        | merged,       |
//!        | packed        |
//!        v               v
//!   ---- Link: one multiplexed connection, checked every second ----       hints: a connection of its own
//!        |               |                                                        ^
//!        | EVALSHA       | MGET, ZRANGEBYLEX                                      | PUBLISH
//!        v               v                                                        |
//!   Redis: apply.lua --> {deployment}:r:KEY  records   "version:value"            |
//!             |          {deployment}:i:NAME indexes   sorted sets                |
//!             |          {deployment}:c:KEY  counters  digits                     |
//!             |          {deployment}:version, :time, :format                     |
//!             |               appendonly yes, appendfsync always                  |
//!             +-------------------------------------------------------------------+
//! ```
//!
//! - **Commit** (`writer`, `script`, `apply.lua`). One script applies batches. It compares the versions of records, writes them, moves index
//!   entries, adds to counters, and knows no rule of the queue. All of Redis waits while a script runs, and Redis syncs its append-only file
//!   once for all commands of one turn of its event loop. So one call carries the batches of many callers, and one sync serves them all.
//! - **Merged batches** (`merged`, `packed`). Successive batches that do not depend on each other are merged, so that the script checks each record,
//!   changes each index and adds to each counter once. If a check fails, none of the merged batches is applied: those that rely on the check
//!   are conflicts, and the others go with the next call, at last one by one.
//! - **Trust** (`checks`, `link`, `seen`). At the start, and again and again, Redis is asked whether it syncs every write, evicts nothing and is a
//!   primary. Versions only grow, so a Redis that has given fewer versions than this process has seen has lost writes; the script and the
//!   health check both refuse it. `--allow-data-loss` turns these refusals into log lines.
//! - **Lost replies** (`writer`). A reply that is lost makes the verdicts unknown, and the caller reads the records. No batch is sent twice, and
//!   a batch that a caller repeats cannot apply twice, since it changes a record that it checks.
//! - **Connection** (`link`). All commands share one connection. A failed one is given up and made again; commands wait a moment for it.
//! - **Time** (`clock`). The server's clock, bent so that it never goes back; commits store the greatest time that was reported.
//! - **Hints** (`hints`). Topics of applied batches are published to every coordinator. Hints may be lost; then every listener is woken.
//! - **Keys** (`layout`). All keys carry the deployment's hash tag, so that a cluster keeps them in one slot.
//!
//! Imports go from right to left: `layout`, `packed`, `options`, `script`, `seen`, `checks` <- `merged`, `link` <- `writer`, `hints`, `clock`.

mod checks;
mod clock;
mod hints;
mod layout;
mod link;
mod merged;
mod options;
mod packed;
mod script;
mod seen;
mod server;
mod writer;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use redis::RedisResult;
use sortinghat_proto::time::UnixMs;
use tokio::task::JoinSet;

use super::{Batch, Hints, Order, Range, Record, Store, StoreError, Verdict};
use link::Link;
use writer::Writer;

pub use options::RedisOptions;
pub use server::RedisServer;

/// How long a start waits for a Redis that cannot be reached or still loads its file.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);

/// A store in a Redis. Several processes may use the same store at once.
pub struct RedisStore {
    link: Arc<Link>,
    writer: Writer,
    hints: Arc<Hints>,
    /// The background tasks of the store, which end with it.
    _tasks: JoinSet<()>,
}

impl RedisStore {
    /// Connects and checks that Redis keeps what it acknowledges. Waits for a while if Redis cannot be reached.
    ///
    /// # Errors
    /// [`StoreError::Unsafe`], which names the setting and how to set it; [`StoreError::Unavailable`].
    pub async fn open(options: RedisOptions) -> Result<Self, StoreError> {
        metrics::gauge!("sortinghat_store_data_loss_allowed").set(f64::from(u8::from(options.allow_data_loss)));
        if options.allow_data_loss {
            tracing::warn!(
                "--allow-data-loss: it is not checked whether Redis keeps what it acknowledges; acknowledged jobs may be lost"
            );
        }
        let link = Link::open(options, OPEN_PATIENCE).await?;
        let (writer, writing) = Writer::new(link.clone());
        let hints = Arc::<Hints>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(writing);
        tasks.spawn(hints::run(link.clone(), hints::subscribe(&link).await, hints.clone()));
        let watched = link.clone();
        tasks.spawn(async move { watched.run().await });
        Ok(Self { link, writer, hints, _tasks: tasks })
    }

    /// Runs one command that reads.
    async fn query<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, StoreError> {
        let connection = self.link.connection().await?;
        let answer: RedisResult<T> = command.query_async(&mut connection.commands.clone()).await;
        answer.map_err(|error| self.link.failed(&connection, "read", &error))
    }

    /// Reads strings at one moment.
    async fn strings<T: redis::FromRedisValue>(
        &self,
        keys: impl Iterator<Item = String>,
    ) -> Result<Vec<Option<T>>, StoreError> {
        let keys: Vec<String> = keys.collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.query(redis::cmd("MGET").arg(keys)).await
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Record>>, StoreError> {
        let stored = self.strings(keys.iter().map(|key| self.link.layout.record(key))).await?;
        let records: Result<Vec<Option<Record>>, _> =
            stored.into_iter().map(|stored| stored.map(layout::record).transpose()).collect();
        let records = records?;
        let newest = records.iter().flatten().map(|record| record.version).max();
        self.link.seen.note_version(newest.unwrap_or_default());
        Ok(records)
    }

    async fn counters(&self, keys: &[String]) -> Result<Vec<i64>, StoreError> {
        let values = self.strings(keys.iter().map(|key| self.link.layout.counter(key))).await?;
        Ok(values.into_iter().map(Option::unwrap_or_default).collect())
    }

    async fn range(&self, range: Range) -> Result<Vec<String>, StoreError> {
        let from = if range.from.is_empty() { "-".to_owned() } else { format!("[{}", range.from) };
        let until = range.until.map_or("+".to_owned(), |until| format!("({until}"));
        let mut command = match range.order {
            Order::Ascending => redis::cmd("ZRANGEBYLEX"),
            Order::Descending => redis::cmd("ZREVRANGEBYLEX"),
        };
        command.arg(self.link.layout.index(&range.index));
        match range.order {
            Order::Ascending => command.arg(from).arg(until),
            Order::Descending => command.arg(until).arg(from),
        };
        command.arg("LIMIT").arg(0).arg(i64::try_from(range.limit).unwrap_or(i64::MAX));
        self.query(&command).await
    }

    async fn now(&self) -> Result<UnixMs, StoreError> {
        clock::now(&self.link).await
    }

    async fn apply(&self, mut batches: Vec<Batch>) -> Result<Vec<Verdict>, StoreError> {
        batches.iter().try_for_each(Batch::validate)?;
        let mut verdicts = Vec::with_capacity(batches.len());
        while !batches.is_empty() {
            let rest = batches.split_off(batches.len().min(writer::MAX_GROUP_BATCHES));
            let count = batches.len();
            match self.writer.apply(std::mem::replace(&mut batches, rest)).await {
                Ok(own) => verdicts.extend(own),
                Err(error) if verdicts.is_empty() => return Err(error),
                // Some batches were applied, so the call has not failed. These were not tried; a read tells that.
                Err(_) => verdicts.resize(verdicts.len() + count, Verdict::Unknown),
            }
        }
        Ok(verdicts)
    }

    fn hints(&self) -> &Arc<Hints> {
        &self.hints
    }
}
