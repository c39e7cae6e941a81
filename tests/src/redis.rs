//! The Redis server that `make test-deps` installs.

use std::{path::Path, process::Command};

use crate::cache;

/// A server on this port of loopback with its files in `folder`, which syncs every write and evicts nothing. Settings that are
/// added win over these: `["--appendfsync", "everysec"]`.
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
