//! Gathers the batches of many callers into one call of the script. Redis syncs its file once for all commands of one turn of its event
//! loop, so many batches cost little more than one.

use std::sync::Arc;

use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    link::{Connection, Link},
    merged::{Merged, Outcome},
    packed::Packed,
    script::{SCRIPT, load_script},
    seen::Seen,
};
use crate::store::{Batch, StoreError, Verdict};

/// The most batches in one call of the script, during which Redis does nothing else.
pub(super) const MAX_GROUP_BATCHES: usize = 256;
/// Once one call of the script has this many bytes, further batches wait for the next call.
const MAX_GROUP_BYTES: usize = 4 << 20;
/// How many calls of the script may be in flight: while Redis syncs one, the next is sent and read.
const CALLS_IN_FLIGHT: usize = 2;
/// The most batches that are merged: in the first call, and in the calls for the batches that it left undecided. Where a check fails, none of
/// the merged batches is applied, nor any batch after them. A batch that is not merged is always decided.
const MERGED_AT_MOST: [usize; 3] = [MAX_GROUP_BATCHES, MAX_GROUP_BATCHES, 1];

/// The batches of one caller, and the channel for their verdicts.
struct Request {
    batches: Vec<Batch>,
    reply: oneshot::Sender<Result<Vec<Verdict>, StoreError>>,
}

/// Sends the batches of many callers to Redis together.
pub(super) struct Writer {
    link: Arc<Link>,
    in_flight: Arc<Semaphore>,
    queue: mpsc::UnboundedSender<Request>,
}

impl Writer {
    /// A writer, and the work that must run beside it, which ends once the writer is dropped.
    pub(super) fn new(link: Arc<Link>) -> (Self, impl Future<Output = ()> + use<>) {
        let in_flight = Arc::new(Semaphore::new(CALLS_IN_FLIGHT));
        let (queue, requests) = mpsc::unbounded_channel();
        let work = run(link.clone(), in_flight.clone(), requests);
        (Self { link, in_flight, queue }, work)
    }

    /// Applies at most [`MAX_GROUP_BATCHES`] batches and returns their verdicts in order. An error means that none was tried.
    pub(super) async fn apply(&self, batches: Vec<Batch>) -> Result<Vec<Verdict>, StoreError> {
        // Without a call to wait for, the detour through another task is saved.
        if let Ok(_permit) = self.in_flight.try_acquire() {
            return apply(&self.link, &batches.iter().collect::<Vec<_>>()).await;
        }
        let (reply, verdicts) = oneshot::channel();
        self.queue.send(Request { batches, reply }).map_err(|_| StoreError::Closed)?;
        verdicts.await.map_err(|_| StoreError::Closed)?
    }
}

/// Sends the queued requests until every sender is gone.
async fn run(link: Arc<Link>, in_flight: Arc<Semaphore>, mut queue: mpsc::UnboundedReceiver<Request>) {
    while let Some(first) = queue.recv().await {
        // The requests that queue up while all calls are in flight go with the next call.
        let permit = in_flight.clone().acquire_owned().await.expect("the semaphore is never closed");
        let group = gather(first, &mut queue);
        let link = link.clone();
        tokio::spawn(async move {
            commit(&link, group).await;
            drop(permit);
        });
    }
}

/// The first request and those that have queued up behind it, up to the limits.
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
    group
}

async fn commit(link: &Link, group: Vec<Request>) {
    let batches: Vec<&Batch> = group.iter().flat_map(|request| &request.batches).collect();
    let mut verdicts = match apply(link, &batches).await {
        Ok(verdicts) => verdicts.into_iter(),
        Err(error) => {
            for request in group {
                // The caller may have gone away.
                let _ = request.reply.send(Err(error.clone()));
            }
            return;
        }
    };
    for request in group {
        let own = verdicts.by_ref().take(request.batches.len()).collect();
        // A caller that has gone away reads the records when it comes back.
        let _ = request.reply.send(Ok(own));
    }
}

/// Applies all batches of a group and returns their verdicts in order. An error means that none was tried.
async fn apply(link: &Link, batches: &[&Batch]) -> Result<Vec<Verdict>, StoreError> {
    metrics::histogram!("sortinghat_store_group_batches").record(batches.len() as f64);
    let connection = link.connection().await?;
    let mut verdicts: Vec<Option<Verdict>> = vec![None; batches.len()];
    for most in MERGED_AT_MOST {
        let open = verdicts.iter().zip(batches).enumerate().filter(|(_, (verdict, _))| verdict.is_none());
        let merged = Merged::all(open.map(|(place, (_, batch))| (place, *batch)), most);
        if merged.is_empty() {
            break;
        }
        match send(&connection, &call(link, &merged)).await {
            Ok(reply) => {
                for (place, verdict) in decided(&link.seen, &merged, reply) {
                    verdicts[place] = Some(verdict);
                }
            }
            Err(error) => {
                let failure = link.failed(&connection, "commit", &error);
                let was_first = verdicts.iter().all(Option::is_none);
                if was_first && was_not_tried(&error) {
                    return Err(failure);
                }
                metrics::counter!("sortinghat_store_commit_failures_total").increment(1);
                tracing::error!(%error, "it is not known whether a commit reached the queue's store");
                break;
            }
        }
    }
    Ok(verdicts.into_iter().map(|verdict| verdict.unwrap_or(Verdict::Unknown)).collect())
}

/// Calls the script. A server that does not know the script has not run it, so the script is loaded and called again.
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

/// Whether the server refused the call before the script wrote anything. The server refuses a script at its first write, if at all. An error
/// without a code may come from a defect of the script, and an error of the connection says nothing about the call.
fn was_not_tried(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Server(kind) => kind != ServerErrorKind::ResponseError,
        ErrorKind::Extension => true,
        _ => false,
    }
}

/// The command that calls the script, with the arguments that the head of the script describes.
fn call(link: &Link, merged: &[Merged<'_>]) -> Cmd {
    let Link { layout, seen, .. } = link;
    let mut packed = Packed::default();
    packed.list(merged.len());
    merged.iter().for_each(|merged| merged.pack(layout, &mut packed));
    let versions: usize = merged.iter().map(Merged::writes).sum();
    let mut call = redis::cmd("EVALSHA");
    call.arg(SCRIPT.get_hash()).arg(2).arg(layout.version()).arg(layout.time());
    call.arg(seen.version()).arg(seen.time_ms()).arg(versions).arg(layout.hints()).arg(packed.into_bytes());
    call
}

/// The verdicts that a reply of the script decides, with the places of the batches in the group.
fn decided(seen: &Seen, merged: &[Merged<'_>], reply: Vec<Value>) -> Vec<(usize, Verdict)> {
    let mut reply = reply.into_iter();
    let last_version = reply.next().and_then(|value| redis::from_redis_value::<u64>(value).ok());
    seen.note_version(last_version.unwrap_or_default());
    let outcomes = reply.map(|reply| outcome(&reply).ok_or(reply));
    let verdicts = merged.iter().zip(outcomes).flat_map(|(merged, outcome)| match outcome {
        Ok(outcome) => merged.verdicts(outcome),
        Err(reply) => {
            if merged.is_single() {
                tracing::error!(?reply, "something else writes below the prefix of the queue's store");
            }
            Vec::new()
        }
    });
    verdicts.collect()
}

/// The outcome of merged batches; `None` if the script says why they cannot be tried, or not together.
fn outcome(reply: &Value) -> Option<Outcome> {
    let Value::Array(items) = reply else { return None };
    let (is_applied, rest) = items.split_first()?;
    Some(match is_applied {
        Value::Int(1) => Outcome::Applied(numbers(rest)?),
        _ => Outcome::Failed(numbers(rest)?),
    })
}

fn numbers<T: FromRedisValue>(items: &[Value]) -> Option<Vec<T>> {
    items.iter().map(|item| redis::from_redis_value_ref(item).ok()).collect()
}
