//! The script that applies batches.

use std::sync::LazyLock;

use redis::{RedisResult, Script, aio::MultiplexedConnection};

/// The script's error code for a store that has given fewer versions than its caller has seen.
pub(super) const LOST_WRITES: &str = "LOSTWRITES";

/// The script, which describes its arguments and its reply.
pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("apply.lua")));

/// Loads the script into the server, which can then be called by the script's hash.
pub(super) async fn load_script(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    SCRIPT.prepare_invoke().load_async(connection).await.map(drop)
}
