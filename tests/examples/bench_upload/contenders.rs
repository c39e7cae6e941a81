//! Who uploads, and where to.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sortinghat_tests::{Process, binary, lasting_address, start_coordinator, wait_until};
use tokio::time::Instant;

use crate::Failure;

/// A server that takes uploads.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

/// A program that uploads a folder to a server.
pub(crate) trait Contender {
    fn name(&self) -> &str;
    /// Starts a server that keeps everything in `store`.
    fn serve(&self, store: &Path) -> Result<Server, Failure>;
    /// The command that uploads `source` to the server at this address.
    fn command(&self, source: &Path, store: &Path, address: SocketAddr) -> Command;

    /// Uploads `source` and returns how many seconds that took.
    fn upload(&self, source: &Path, store: &Path, address: SocketAddr) -> Result<f64, Failure> {
        let mut command = self.command(source, store, address);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let begun = Instant::now();
        let output = command.output()?;
        let seconds = begun.elapsed().as_secs_f64();
        match output.status.success() {
            true => Ok(seconds),
            false => Err(format!("{}: {}", self.name(), String::from_utf8_lossy(&output.stderr)).into()),
        }
    }
}

/// `hat` and a coordinator.
pub(crate) struct Ours;

impl Contender for Ours {
    fn name(&self) -> &str {
        "hat"
    }

    fn serve(&self, store: &Path) -> Result<Server, Failure> {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (process, address) = start_coordinator(&store.join("coordinator"), listen, &store.join("log"), |_| {});
        Ok(Server { process, address })
    }

    fn command(&self, source: &Path, store: &Path, address: SocketAddr) -> Command {
        let mut command = Command::new(binary("hat"));
        command.args(["--server", &format!("http://{address}"), "--detach", "--quiet", "ingest", "set"]).arg(source);
        command.env("XDG_CACHE_HOME", store.join("cache"));
        command
    }
}

/// The user and the password of rclone's server.
const USER: &str = "bench";
const PASSWORD: &str = "bench";

/// `rclone copy` to `rclone serve sftp`.
pub(crate) struct Rclone {
    program: PathBuf,
    name: String,
    transfers: String,
    /// The password, as rclone's client takes it.
    password: String,
}

impl Rclone {
    /// rclone, if this program is there.
    pub(crate) fn find(program: &Path, transfers: usize) -> Option<Self> {
        let output = Command::new(program).arg("version").stderr(Stdio::null()).output().ok()?;
        let version = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or("rclone").to_owned();
        let name = format!("{version}, {transfers} at a time");
        let obscured = Command::new(program).args(["obscure", PASSWORD]).output().ok()?;
        let password = String::from_utf8_lossy(&obscured.stdout).trim().to_owned();
        let rclone = Self { program: program.to_owned(), name, transfers: transfers.to_string(), password };
        output.status.success().then_some(rclone)
    }

    fn rclone(&self, store: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(store.join("rclone.conf")).env("XDG_CACHE_HOME", store.join("cache"));
        command
    }
}

impl Contender for Rclone {
    fn name(&self) -> &str {
        &self.name
    }

    fn serve(&self, store: &Path) -> Result<Server, Failure> {
        let (files, address) = (store.join("files"), lasting_address());
        fs::create_dir_all(&files)?;
        let mut command = self.rclone(store);
        command.args(["serve", "sftp"]).arg(&files).args(["--addr", &address.to_string()]);
        command.args(["--user", USER, "--pass", PASSWORD]);
        let process = Process::start(&mut command, &store.join("log"));
        wait_until("rclone to serve", || TcpStream::connect(address).ok());
        Ok(Server { process, address })
    }

    fn command(&self, source: &Path, store: &Path, address: SocketAddr) -> Command {
        let mut command = self.rclone(store);
        command.args(["copy", "--transfers", &self.transfers, "--checkers", &self.transfers]);
        command.args(["--sftp-host", &address.ip().to_string(), "--sftp-port", &address.port().to_string()]);
        command.args(["--sftp-user", USER, "--sftp-pass", &self.password]);
        command.arg(source).arg(":sftp:");
        command
    }
}
