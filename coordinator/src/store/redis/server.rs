//! A private Redis server for tests and benchmarks: a child process with the settings that the coordinator requires.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::Instant;

/// How long the server may take to answer after it was started.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many ports are tried, as another process may take a free port first.
const PORTS_TO_TRY: usize = 5;

/// A Redis server on a free port of loopback. It ends when this is dropped; its files stay in the folder that it was given.
#[derive(Debug)]
pub struct RedisServer {
    child: Child,
    port: u16,
    folder: PathBuf,
    settings: Vec<String>,
}

impl RedisServer {
    /// Starts a server that syncs every write and evicts nothing, and waits until it answers.
    ///
    /// # Panics
    /// If the server is not installed, with the command that installs it, or does not answer.
    pub fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[])
    }

    /// Starts a server with more settings, as on the server's command line: `["--appendfsync", "everysec"]`. The last value of a setting wins.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_with(folder: &Path, settings: &[&str]) -> Self {
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        for _ in 0..PORTS_TO_TRY {
            let port = free_port();
            let child = spawn(folder, port, &settings);
            let mut server = Self { child, port, folder: folder.to_owned(), settings: settings.clone() };
            if server.answers() {
                return server;
            }
        }
        panic!("no Redis server starts: its log is {}", log(folder).display())
    }

    /// The server's URL, as the value of `--store`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The port that the server listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The id of the server's process, for signals.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the server with SIGKILL. Its folder holds what it has acknowledged.
    pub fn kill(&mut self) {
        // An error means that the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts the server again at the same port over the files in its folder, and waits until it answers.
    ///
    /// # Panics
    /// If the server does not answer.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.folder, self.port, &self.settings);
        assert!(self.answers(), "Redis does not start again: its log is {}", log(&self.folder).display());
    }

    /// Sends one command, whose words hold no blanks or quotes, such as `["CONFIG", "SET", "appendfsync", "no"]`. Returns the beginning
    /// of the raw answer.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub fn command(&self, words: &[&str]) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(format!("{}\r\n", words.join(" ")).as_bytes())?;
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    /// Waits until the server has loaded its files; `false` if it ends instead. The process id tells it from another server at its port.
    fn answers(&mut self) -> bool {
        let (start, own) = (Instant::now(), format!("process_id:{}\r", self.child.id()));
        while start.elapsed() < PATIENCE {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return false;
            }
            let is_it = || self.command(&["INFO", "server"]).is_ok_and(|info| info.contains(&own));
            if self.command(&["PING"]).is_ok_and(|answer| answer.starts_with("+PONG")) && is_it() {
                return true;
            }
            #[expect(clippy::disallowed_methods, reason = "a test starts its server before anything else")]
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The server that `SORTINGHAT_REDIS_SERVER` names, or else the one that `deploy/install.sh redis` installs.
fn binary() -> PathBuf {
    if let Some(binary) = std::env::var_os("SORTINGHAT_REDIS_SERVER") {
        return binary.into();
    }
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/sortinghat");
    let cache = std::env::var_os("SORTINGHAT_CACHE").map_or_else(home, PathBuf::from);
    let binary = cache.join("redis/bin/valkey-server");
    assert!(binary.exists(), "{} is missing: run `deploy/install.sh redis`", binary.display());
    binary
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}

fn log(folder: &Path) -> PathBuf {
    folder.join("redis.log")
}

fn spawn(folder: &Path, port: u16, settings: &[String]) -> Child {
    let log = File::options().create(true).append(true).open(log(folder)).expect("the folder is writable");
    Command::new(binary())
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(folder)
        .args(["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"])
        .args(settings)
        .stdin(Stdio::null())
        .stderr(log.try_clone().expect("a file can be shared"))
        .stdout(log)
        .spawn()
        .expect("the Redis server starts")
}
