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
    let arguments = batches.clone().map(|batch| 7 + 2 * batch.operations() + batch.topics.len()).sum::<usize>();
    let bytes = batches.clone().map(Batch::bytes).sum::<usize>();
    let mut call = Cmd::with_capacity(arguments + 10, bytes + arguments * KEY_OVERHEAD_BYTES);
    call.arg("EVALSHA").arg(SCRIPT.get_hash()).arg(2).arg(layout.version()).arg(layout.time());
    call.arg(seen.version()).arg(seen.time_ms()).arg(versions).arg(layout.hints()).arg(count);
    batches.for_each(|batch| add(&mut call, layout, batch));
    call
}

/// The prefix of a key, or a number: a guess that saves growing the buffer.
const KEY_OVERHEAD_BYTES: usize = 20;

fn add(call: &mut Cmd, layout: &Layout, batch: &Batch) {
    call.arg(batch.checks.len()).arg(batch.writes.len()).arg(batch.deletes.len()).arg(batch.removals.len());
    call.arg(batch.insertions.len()).arg(batch.increments.len()).arg(batch.topics.len());
    for (key, expectation) in &batch.checks {
        call.arg(layout.record(key)).arg(layout::expected(*expectation));
    }
    for (key, value) in &batch.writes {
        call.arg(layout.record(key)).arg(value.as_ref());
    }
    for key in &batch.deletes {
        call.arg(layout.record(key));
    }
    for (index, entry) in batch.removals.iter().chain(&batch.insertions) {
        call.arg(layout.index(index)).arg(entry);
    }
    for (key, amount) in &batch.increments {
        call.arg(layout.counter(key)).arg(*amount);
    }
    for topic in &batch.topics {
        call.arg(topic.as_ref());
    }
}

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
