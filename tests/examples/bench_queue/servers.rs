//! A Redis server for other queues.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
};

use sortinghat_tests::{Process, redis_command, wait_until};

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
    let process = Process::start(redis_command(folder, port).args(["--appendfsync", sync]), &folder.join("redis.log"));
    wait_until("Redis to listen", || TcpStream::connect(("127.0.0.1", port)).ok());
    Ok((process, port))
}
