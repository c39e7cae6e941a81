//! Processes that a test starts, disturbs and ends.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait_until;

/// A process of the test. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command`. Its output is appended to the file `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let open = || File::options().create(true).append(true).open(log).expect("the test's folder is writable");
        command.stdin(Stdio::null()).stdout(open()).stderr(open());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        Self { child }
    }

    /// The id of the process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("process ids fit in 32 bits"))
    }

    /// The first of its child processes.
    pub fn child(&self) -> Option<Pid> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).ok()?;
        threads.filter_map(Result::ok).find_map(|thread| {
            let children = std::fs::read_to_string(thread.path().join("children")).ok()?;
            children.split_whitespace().next()?.parse().ok().map(Pid::from_raw)
        })
    }

    /// Sends the process a signal. Nothing happens if it has ended.
    pub fn signal(&self, signal: Signal) {
        // The process may have ended by itself, which the caller notices elsewhere.
        let _ = kill(self.pid(), signal);
    }

    /// Kills the process with SIGKILL and waits until it has ended.
    pub fn kill(&mut self) {
        // An error means that the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The exit status; `None` while the process runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// Terminates the process with SIGTERM and returns its exit status.
    ///
    /// # Panics
    /// If the process does not end within [`PATIENCE`](crate::PATIENCE).
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        wait_until("the process to end", || self.ended())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
