//! A server and a worker on this machine, as `hat up` starts them.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use nix::unistd::Pid;
use serde_json::Value;

use crate::binary;

/// A server and a worker that `hat up --background` keeps running, and `hat down` ends when this is dropped.
#[derive(Debug)]
pub struct Background {
    data_dir: PathBuf,
}

impl Background {
    /// Starts them on a free port, with all that they keep in `data_dir`. `prepare` sets what surrounds the command. Also returns what the
    /// command printed.
    ///
    /// # Panics
    /// If they do not start, with what the command said.
    pub fn start(data_dir: PathBuf, prepare: impl FnOnce(&mut Command)) -> (Self, Output) {
        let background = Self { data_dir };
        let mut command = background.hat();
        command.args(["up", "--background", "--listen", "127.0.0.1:0", "--device", "cpu"]);
        prepare(&mut command);
        let output = command.output().expect("hat starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (background, output)
    }

    /// `hat`, which finds this server by a variable, as no option names it.
    pub fn hat(&self) -> Command {
        let mut command = Command::new(binary("hat"));
        command.env("SORTINGHAT_DATA_DIR", &self.data_dir).env_remove("SORTINGHAT_SERVER").env_remove("NO_COLOR");
        command
    }

    /// The executor of the worker, which is the second process that `hat up` has started.
    pub fn executor(&self) -> Option<Pid> {
        let record: Value = serde_json::from_slice(&fs::read(self.data_dir.join("hat.json")).ok()?).ok()?;
        let worker = record["children"][1]["pid"].as_u64()?;
        let children = fs::read_to_string(format!("/proc/{worker}/task/{worker}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok().map(Pid::from_raw)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // A failed test has said more than this could.
        let _ = self.hat().arg("down").output();
    }
}
