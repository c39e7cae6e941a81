//! The Redis server that `make test-deps` installs.

use std::{net::TcpStream, path::Path, process::Command};

use crate::{Process, cache, lasting_address, wait_until};

/// Starts a server on a free port of loopback, waits until it listens, and returns it with its port. `settings` are added to those of
/// [`redis_command`].
///
/// # Panics
/// If the server does not listen within [`PATIENCE`](crate::PATIENCE).
pub fn start_redis(folder: &Path, settings: &[&str]) -> (Process, u16) {
    let port = lasting_address().port();
    let process = Process::start(redis_command(folder, port).args(settings), &folder.join("redis.log"));
    wait_until("Redis to listen", || TcpStream::connect(("127.0.0.1", port)).ok());
    (process, port)
}

/// The command of a server on this port of loopback with its files in `folder`. It syncs every write and evicts nothing. Added settings, such as
/// `["--appendfsync", "everysec"]`, replace these.
pub fn redis_command(folder: &Path, port: u16) -> Command {
    let mut command = Command::new(cache("redis").join("bin/valkey-server"));
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(folder).args([
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--maxmemory-policy",
        "noeviction",
    ]);
    command
}
