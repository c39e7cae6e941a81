//! Checks that a Redis keeps what it acknowledges.

use redis::{RedisError, RedisResult, aio::MultiplexedConnection};

use crate::store::StoreError;

/// The settings that a Redis must have: name, value, and the consequence of any other value.
const REQUIRED: [(&str, &str, &str); 4] = [
    ("appendonly", "yes", "a restart loses every job"),
    ("appendfsync", "always", "a crash loses acknowledged writes"),
    ("no-appendfsync-on-rewrite", "no", "a crash while it rewrites its file loses acknowledged writes"),
    ("maxmemory-policy", "noeviction", "a full memory silently removes jobs"),
];

/// The second replication id of a server that was never a replica.
const NEVER_A_REPLICA: &str = "0000000000000000000000000000000000000000";

/// What a server says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// New with every start of the process.
    pub(super) run_id: String,
    is_primary: bool,
    /// Whether it was a replica and has been promoted since it was started.
    was_promoted: bool,
}

impl Identity {
    /// Asks the server.
    pub(super) async fn of(connection: &mut MultiplexedConnection) -> RedisResult<Self> {
        let server: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
        let replication: String = redis::cmd("INFO").arg("replication").query_async(connection).await?;
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_default().trim().to_owned()
        };
        let previous = field(&replication, "master_replid2");
        Ok(Self {
            run_id: field(&server, "run_id"),
            is_primary: field(&replication, "role") == "master",
            was_promoted: !previous.is_empty() && previous != NEVER_A_REPLICA,
        })
    }

    /// Refuses a replica, which cannot be written to, and a promoted replica, which may lack writes that its primary had acknowledged.
    pub(super) fn check(&self, allow_data_loss: bool) -> Result<(), StoreError> {
        if !self.is_primary {
            let reason = "this Redis is a replica: point --store at the primary".to_owned();
            return Err(StoreError::Unsafe { reason });
        }
        if self.was_promoted && !allow_data_loss {
            let reason = "this Redis was a replica and was promoted, so it may lack writes that were acknowledged: bring the \
                          old primary back, or start with --allow-data-loss to go on without them";
            return Err(StoreError::Unsafe { reason: reason.to_owned() });
        }
        Ok(())
    }
}

/// Checks that the server syncs a write before it acknowledges it, and that it never evicts one.
pub(super) async fn check_settings(connection: &mut MultiplexedConnection) -> Result<(), StoreError> {
    for (setting, required, consequence) in REQUIRED {
        let read: RedisResult<Vec<String>> = redis::cmd("CONFIG").arg("GET").arg(setting).query_async(connection).await;
        let found = match read {
            Ok(pair) => pair.into_iter().nth(1),
            Err(error) if error.is_io_error() => return Err(unreachable(&error)),
            Err(error) => return Err(unreadable(setting, &error.to_string())),
        };
        match found {
            Some(found) if found == required => {}
            Some(found) => {
                let reason = format!(
                    "Redis has `{setting} {found}`, with which {consequence}: set `{setting} {required}` in redis.conf (or \
                     `redis-cli CONFIG SET {setting} {required}`), or start with --allow-data-loss"
                );
                return Err(StoreError::Unsafe { reason });
            }
            None => return Err(unreadable(setting, "Redis does not know it")),
        }
    }
    Ok(())
}

/// The error for a setting that cannot be read, since the settings matter too much to be assumed.
fn unreadable(setting: &str, error: &str) -> StoreError {
    let reason = format!(
        "Redis does not tell its setting `{setting}` ({error}): allow this user CONFIG GET, or, if it is sure that `appendonly \
         yes`, `appendfsync always` and `maxmemory-policy noeviction` are set, start with --allow-data-loss"
    );
    StoreError::Unsafe { reason }
}

/// The error for a server that cannot be asked.
pub(super) fn unreachable(error: &RedisError) -> StoreError {
    StoreError::Unavailable { action: "connect", reason: error.to_string() }
}
