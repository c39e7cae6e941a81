//! Drives the real binaries like their users: a coordinator and a worker as processes on loopback, and `hat` as the client.
//!
//! No test sleeps for a guessed time. Every wait polls a fact (an address is written, a job runs) until a deadline.

mod background;
pub mod certificates;
mod deployment;
mod dice;
mod gatekeeper;
mod hat;
pub mod odd_photos;
pub mod photos;
mod ports;
mod process;
mod proxy;
mod redis;
mod s3;
mod simulated;
mod terminal;
mod web;

pub use background::Background;
pub use deployment::{Deployment, Options, Programs, Victim, start_coordinator};
pub use dice::Dice;
pub use gatekeeper::{Call, Gatekeeper};
pub use hat::{Answer, Hat};
pub use ports::lasting_address;
pub use process::Process;
pub use proxy::{Proxy, Weather};
pub use redis::{redis_command, start_redis};
pub use s3::{Bucket, S3Server};
pub use simulated::{Identity, SIMULATED_HOST, SIMULATED_LABEL, SimulatedWorker, Work, inputs, output};
pub use terminal::Screen;
pub use web::{Asked, Reply, Web};

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

/// How long anything that must happen may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The path of a built binary, in the target folder of the test.
///
/// # Panics
/// If a binary is missing, with the command that builds it.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its executable");
    let target = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps");
    let binary = target.join(name);
    assert!(binary.exists(), "{} is not built: run `cargo build --workspace --bins`", binary.display());
    binary
}

/// The folder of a part that `make test-deps` installs: `~/.cache/sortinghat/<part>`, or the same below `SORTINGHAT_CACHE`.
///
/// # Panics
/// If it is missing, with the command that installs it.
pub fn cache(part: &str) -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/sortinghat");
    let path = std::env::var_os("SORTINGHAT_CACHE").map_or_else(home, PathBuf::from).join(part);
    assert!(path.exists(), "{} is missing: run `make test-deps`", path.display());
    path
}

/// Polls until `fact` holds and returns it.
///
/// # Panics
/// If it does not hold within [`PATIENCE`].
pub fn wait_until<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = fact() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "{what} did not happen within {} s", PATIENCE.as_secs());
        #[expect(clippy::disallowed_methods, reason = "tests of processes have no async runtime")]
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The answer of a page for operators, with its head.
///
/// # Panics
/// If nobody serves it.
pub fn page(address: SocketAddr, path: &str) -> String {
    let mut connection = TcpStream::connect(address).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("it answers");
    answer
}

/// The metrics that the sources of a package name, such as `sortinghat_tasks`.
///
/// # Panics
/// If the sources cannot be read.
pub fn metrics_in(sources: &Path) -> BTreeSet<String> {
    let (mut folders, mut found) = (vec![sources.to_owned()], BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path).expect("readable");
                let texts = source.split('"').skip(1).step_by(2).filter(|text| text.starts_with("sortinghat_"));
                let names = texts.filter(|text| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
                found.extend(names.map(str::to_owned));
            }
        }
    }
    found
}
