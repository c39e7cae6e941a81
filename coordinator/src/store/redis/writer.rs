//! Gathers the batches of many callers into one call of the script: Redis syncs its file once for all that it did in one turn,
//! so many batches cost little more than one.

use std::sync::{Arc, LazyLock};

use redis::{Cmd, ErrorKind, RedisError, RedisResult, Script, ServerErrorKind, Value, aio::MultiplexedConnection};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    layout::{self, Layout},
    link::{Connection, Link, Seen},
};
use crate::store::{Batch, StoreError, Verdict};

/// Batches of one call of the script, during which Redis does nothing else.
pub(super) const MAX_GROUP_BATCHES: usize = 256;
/// Bytes of one call of the script; reached, the next batches wait for the next call.
const MAX_GROUP_BYTES: usize = 4 << 20;
/// Calls of the script on their way: while Redis syncs one, the next is written and read.
const CALLS_IN_FLIGHT: usize = 2;

/// The script's code for a store that has given fewer versions than were seen.
pub(super) const LOST_WRITES: &str = "LOSTWRITES";

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("apply.lua")));

/// Batches of one caller, and where their verdicts go.
pub(super) struct Request {
    pub(super) batches: Vec<Batch>,
    pub(super) reply: oneshot::Sender<Result<Vec<Verdict>, StoreError>>,
}

/// Makes the script known to the server.
pub(super) async fn load_script(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    SCRIPT.prepare_invoke().load_async(connection).await.map(drop)
}

/// Works until every sender is gone.
pub(super) async fn run(link: Arc<Link>, mut queue: mpsc::UnboundedReceiver<Request>) {
    let in_flight = Arc::new(Semaphore::new(CALLS_IN_FLIGHT));
    while let Some(first) = queue.recv().await {
        // Whatever is queued while all calls are in flight goes with the next one.
        let permit = in_flight.clone().acquire_owned().await.expect("the semaphore is never closed");
        let group = gather(first, &mut queue);
        let link = link.clone();
        tokio::spawn(async move {
            commit(&link, group).await;
            drop(permit);
        });
    }
}

/// What has queued up, up to the limits; always the first.
fn gather(first: Request, queue: &mut mpsc::UnboundedReceiver<Request>) -> Vec<Request> {
    let bytes_of = |request: &Request| request.batches.iter().map(Batch::bytes).sum::<usize>();
    let (mut batches, mut bytes) = (first.batches.len(), bytes_of(&first));
    let mut group = vec![first];
    while batches < MAX_GROUP_BATCHES
        && bytes < MAX_GROUP_BYTES
        && let Ok(request) = queue.try_recv()
    {
        batches += request.batches.len();
        bytes += bytes_of(&request);
        group.push(request);
    }
    metrics::histogram!("sortinghat_store_group_batches").record(batches as f64);
    group
}

async fn commit(link: &Link, group: Vec<Request>) {
    let result = apply(link, &group).await;
    let mut verdicts = match result {
        Ok(verdicts) => verdicts.into_iter(),
        Err(error) => {
            for request in group {
                // A caller that has gone away does not mind.
                let _ = request.reply.send(Err(error.clone()));
            }
            return;
        }
    };
    for request in group {
        let own = verdicts.by_ref().take(request.batches.len()).collect();
        // A caller that has gone away reads what became of its batch when it comes back.
        let _ = request.reply.send(Ok(own));
    }
}

/// The verdicts of all batches of a group, in order. An error means that none was tried.
async fn apply(link: &Link, group: &[Request]) -> Result<Vec<Verdict>, StoreError> {
    let connection = link.connection().await?;
    let batches = || group.iter().flat_map(|request| &request.batches);
    let count = batches().count();
    let call = call(&link.layout, &link.seen, batches(), count);
    match send(&connection, &call).await {
        Ok(reply) => Ok(verdicts(&link.seen, reply, count)),
        Err(error) => {
            let failure = link.failed(&connection, "commit", &error);
            if was_not_tried(&error) {
                return Err(failure);
            }
            metrics::counter!("sortinghat_store_commit_failures_total").increment(1);
            tracing::error!(%error, "it is not known whether a commit reached the queue's store");
            Ok(vec![Verdict::Unknown; count])
        }
    }
}

/// Calls the script. A server that does not know it has not run it: then it is sent, and called again.
async fn send(connection: &Connection, call: &Cmd) -> RedisResult<Vec<Value>> {
    let mut commands = connection.commands.clone();
    match call.query_async(&mut commands).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            load_script(&mut commands).await?;
            call.query_async(&mut commands).await
        }
        result => result,
    }
}

/// Whether the server refused the call before the script wrote anything. All it refuses by itself it refuses at the first write;
/// an error without a code of its own may be a defect of the script, and an error of the connection says nothing.
fn was_not_tried(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => kind != ServerErrorKind::ResponseError,
        ErrorKind::Extension => true,
        _ => false,
    }
}

/// The call of the script, as its head describes it.
fn call<'a>(layout: &Layout, seen: &Seen, batches: impl Iterator<Item = &'a Batch> + Clone, count: usize) -> Cmd {
    let versions: usize = batches.clone().map(|batch| batch.writes.len()).sum();
    let mut packed = Packed::default();
    packed.list(count);
    batches.for_each(|batch| packed.batch(layout, batch));
    let mut call = redis::cmd("EVALSHA");
    call.arg(SCRIPT.get_hash()).arg(2).arg(layout.version()).arg(layout.time());
    call.arg(seen.version()).arg(seen.time_ms()).arg(versions).arg(layout.hints()).arg(packed.0);
    call
}

/// MessagePack.
#[derive(Default)]
struct Packed(Vec<u8>);

impl Packed {
    fn batch(&mut self, layout: &Layout, batch: &Batch) {
        self.list(7);
        self.list(2 * batch.checks.len());
        for (key, expectation) in &batch.checks {
            self.text(&layout.record(key)).text(&layout::expected(*expectation));
        }
        self.list(2 * batch.writes.len());
        for (key, value) in &batch.writes {
            self.text(&layout.record(key)).bytes(value);
        }
        self.list(batch.deletes.len());
        for key in &batch.deletes {
            self.text(&layout.record(key));
        }
        for moved in [&batch.removals, &batch.insertions] {
            self.list(2 * moved.len());
            for (index, entry) in moved {
                self.text(&layout.index(index)).text(entry);
            }
        }
        self.list(2 * batch.increments.len());
        for (key, amount) in &batch.increments {
            self.text(&layout.counter(key)).text(&amount.to_string());
        }
        self.list(batch.topics.len());
        for topic in &batch.topics {
            self.text(topic);
        }
    }

    /// Begins a list of so many items.
    fn list(&mut self, items: usize) {
        let items = items.try_into().expect("a call and its batches are bounded");
        rmp::encode::write_array_len(&mut self.0, items).expect(IN_MEMORY);
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// As text, which need not be UTF-8: the decoder of scripts knows no other bytes.
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let length = bytes.len().try_into().expect("a batch is bounded");
        rmp::encode::write_str_len(&mut self.0, length).expect(IN_MEMORY);
        self.0.extend_from_slice(bytes);
        self
    }
}

/// Why nothing fails to be packed.
const IN_MEMORY: &str = "a vector takes any length";

fn verdicts(seen: &Seen, reply: Vec<Value>, count: usize) -> Vec<Verdict> {
    let mut reply = reply.into_iter();
    let last_version = reply.next().and_then(|value| redis::from_redis_value::<u64>(value).ok());
    seen.note_version(last_version.unwrap_or_default());
    let mut verdicts: Vec<Verdict> = reply.map(verdict).collect();
    // A reply of another length is not the script's.
    verdicts.resize(count, Verdict::Unknown);
    verdicts
}

fn verdict(reply: Value) -> Verdict {
    match reply {
        Value::Int(0) => Verdict::Conflict,
        Value::Array(counters) => {
            let counters: Result<Vec<i64>, _> = counters.into_iter().map(redis::from_redis_value).collect();
            counters.map_or(Verdict::Unknown, Verdict::Applied)
        }
        other => {
            tracing::error!(reply = ?other, "something else writes below the prefix of the queue's store");
            Verdict::Unknown
        }
    }
}
