//! The store's time.

use redis::RedisResult;
use sortinghat_proto::time::UnixMs;

use super::link::Link;
use crate::store::StoreError;

/// The time of the server's clock, or a later one if that clock went back behind a time that it or this process had reported.
///
/// Each commit stores the greatest time that was reported; a time that no commit followed has had no lasting effect.
pub(super) async fn now(link: &Link) -> Result<UnixMs, StoreError> {
    let connection = link.connection().await?;
    let mut question = redis::pipe();
    // In this order, a commit between the two commands does not look like a clock that went back.
    question.cmd("GET").arg(link.layout.time()).cmd("TIME");
    let answer: RedisResult<(Option<u64>, (u64, u64))> = question.query_async(&mut connection.commands.clone()).await;
    let (greatest, (seconds, microseconds)) =
        answer.map_err(|error| link.failed(&connection, "tell the time", &error))?;
    let clock_ms = seconds * 1000 + microseconds / 1000;
    Ok(UnixMs(link.seen.time_at(clock_ms, greatest.unwrap_or_default())))
}
