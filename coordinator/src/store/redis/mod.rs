//! The durable store of many coordinators: a Redis (or Valkey) that syncs every write before it answers.
//!
//! One script applies batches; it knows versions, indexes and counters, and no rule of the queue. What Redis has acknowledged is on
//! its disk, which is checked at the start and again and again. A reply that is lost makes a verdict unknown; nothing is sent twice.

mod checks;
mod clock;
mod hints;
mod layout;
mod link;
mod merged;
mod packed;
mod server;
mod writer;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use redis::RedisResult;
use sortinghat_proto::{Name, time::UnixMs};
use tokio::task::JoinSet;

use super::{Batch, Hints, Order, Range, Record, Store, StoreError, Verdict};
use crate::config::RedisUrl;
use link::Link;
use writer::Writer;

pub use server::RedisServer;

/// How long the start waits for a Redis that cannot be reached or still loads its file.
const OPEN_PATIENCE: Duration = Duration::from_secs(30);

/// Which Redis, and which deployment in it.
#[derive(Clone)]
pub struct RedisOptions {
    /// Where it is.
    pub url: RedisUrl,
    /// For the user that the URL names, else for the default one.
    pub password: Option<String>,
    /// The hash tag of every key: two deployments in one Redis do not see each other.
    pub deployment: Name,
    /// Go on although Redis may lose, or has lost, what it acknowledged. Loud.
    pub allow_data_loss: bool,
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, password: _, deployment, allow_data_loss } = self;
        f.debug_struct("RedisOptions")
            .field("url", url)
            .field("deployment", deployment)
            .field("allow_data_loss", allow_data_loss)
            .finish_non_exhaustive()
    }
}

/// A store in a Redis. Several processes may use the same one at once.
pub struct RedisStore {
    link: Arc<Link>,
    writer: Writer,
    hints: Arc<Hints>,
    /// The tasks behind it, which end with it.
    _tasks: JoinSet<()>,
}

impl RedisStore {
    /// Connects, waiting for a while if Redis cannot be reached, and checks that it keeps what it acknowledges.
    ///
    /// # Errors
    /// [`StoreError::Unsafe`], which names the setting and how to set it; [`StoreError::Unavailable`].
    pub async fn open(options: RedisOptions) -> Result<Self, StoreError> {
        metrics::gauge!("sortinghat_store_data_loss_allowed").set(f64::from(u8::from(options.allow_data_loss)));
        if options.allow_data_loss {
            tracing::warn!(
                "--allow-data-loss: Redis is not asked whether it keeps what it acknowledges; acknowledged jobs may be lost"
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

    /// Runs one reading command.
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
                // Some were applied, so the call has not failed; these were not tried, and a read tells.
                Err(_) => verdicts.resize(verdicts.len() + count, Verdict::Unknown),
            }
        }
        Ok(verdicts)
    }

    fn hints(&self) -> &Arc<Hints> {
        &self.hints
    }
}
