//! A Redis server for other queues.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
};

use sortinghat_tests::{Process, cache, wait_until};

use crate::Failure;

/// When Redis syncs what it acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    Always,
    EverySecond,
}

/// Starts a server with its files in `folder` and returns its port as well.
pub(crate) fn redis(folder: &Path, sync: Sync) -> Result<(Process, u16), Failure> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let sync = match sync {
        Sync::Always => "always",
        Sync::EverySecond => "everysec",
    };
    let mut command = Command::new(cache("redis").join("bin/valkey-server"));
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
        .args(["--appendfsync", sync, "--maxmemory-policy", "noeviction", "--dir"])
        .arg(folder);
    let process = Process::start(&mut command, &folder.join("redis.log"));
    wait_until("Redis to listen", || TcpStream::connect(("127.0.0.1", port)).ok());
    Ok((process, port))
}
