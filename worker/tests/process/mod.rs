//! Starts a real worker process, and a coordinator that says what the test wants it to say.

pub(crate) mod coordinator;
pub(crate) mod photos;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long anything may take on a busy machine before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// A worker process; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    process: Child,
}

/// The worker's binary, with everything that tests have in common.
pub(crate) fn worker_command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sortinghat-worker"));
    command
        .args(["run", "--threads", "1", "--object-store"])
        .arg(format!("file://{}", folder.join("objects").display()))
        .arg("--data-dir")
        .arg(folder.join("worker"))
        .stdin(Stdio::null());
    command
}

impl Worker {
    /// Starts a worker for the coordinator at `url`, with further flags; its files lie in `folder`.
    pub(crate) fn start(folder: &Path, url: &str, flags: &[&str]) -> Self {
        let mut command = worker_command(folder);
        command.args(["--device", "cpu", "--coordinator", url]).args(flags);
        Self::run(command)
    }

    /// Starts a worker by this command.
    pub(crate) fn run(mut command: Command) -> Self {
        Self { process: command.spawn().unwrap() }
    }

    /// Its executor: its only child.
    pub(crate) async fn executor(&self) -> Pid {
        let worker = self.process.id();
        let children = format!("/proc/{worker}/task/{worker}/children");
        wait_until("the worker to have an executor", || {
            fs::read_to_string(&children).ok()?.split_whitespace().next()?.parse().ok().map(Pid::from_raw)
        })
        .await
    }

    /// Sends a signal to the worker alone.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits until the worker has exited; returns its exit code.
    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        wait_until("the worker to exit", || self.process.try_wait().unwrap()).await.code()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // This fails only if the process is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a worker that is expected to end by itself.
pub(crate) fn run_to_end(mut command: Command) -> Output {
    command.output().unwrap()
}

/// Whether a process exists and has not ended.
pub(crate) fn is_alive(process: Pid) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

/// Asks again and again until there is an answer.
pub(crate) async fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let answer = async {
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| panic!("gave up waiting for {what}"))
}
