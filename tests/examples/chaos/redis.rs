//! The Redis of a run whose queue is kept in Redis.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use sortinghat_tests::{Process, lasting_address, redis_command};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::{Failure, PATIENCE, clock::WallClock};

/// A server, which may be down.
pub(crate) struct Redis {
    folder: PathBuf,
    pub(crate) address: SocketAddr,
    clock: Option<Rc<WallClock>>,
    pub(crate) process: Option<Process>,
}

impl Redis {
    /// Starts a server with its files in `folder`, and waits until it answers.
    pub(crate) async fn start(folder: PathBuf, clock: Option<Rc<WallClock>>) -> Result<Self, Failure> {
        fs::create_dir_all(&folder)?;
        let mut redis = Self { folder, address: lasting_address(), clock, process: None };
        redis.restart().await?;
        Ok(redis)
    }

    /// Starts the server again over the files in its folder, and waits until it answers.
    pub(crate) async fn restart(&mut self) -> Result<(), Failure> {
        self.spawn();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            // The server accepts connections before it has loaded its files.
            if answers(self.address).await.is_ok_and(|answer| &answer == b"+PONG") {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(format!("Redis does not answer: its log is {}", self.log().display()).into())
    }

    /// Starts the server again without waiting.
    pub(crate) fn spawn(&mut self) {
        let mut command = redis_command(&self.folder, self.address.port());
        self.clock.iter().for_each(|clock| clock.give_to(&mut command));
        self.process = Some(Process::start(&mut command, &self.log()));
    }

    /// Kills the server, which stays down until it is started.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// The files that the server appends its writes to.
    pub(crate) fn written_files(&self) -> Result<Vec<PathBuf>, Failure> {
        let entries = fs::read_dir(self.folder.join("appendonlydir"))?;
        let files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        Ok(files.into_iter().filter(|path| is_increment(path)).collect())
    }

    fn log(&self) -> PathBuf {
        self.folder.join("redis.log")
    }
}

/// `appendonly.aof.1.incr.aof`, beside its base and its manifest.
fn is_increment(path: &Path) -> bool {
    path.to_string_lossy().ends_with(".incr.aof")
}

async fn answers(address: SocketAddr) -> std::io::Result<[u8; 5]> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}
