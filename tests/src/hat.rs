//! `hat`, in the way that a user or a script runs it.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The command line for one coordinator.
#[derive(Debug, Clone)]
pub struct Hat {
    program: PathBuf,
    server: String,
    folder: PathBuf,
}

/// The result of one command.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The exit code; -1 if a signal ended the command.
    pub code: i32,
    /// The data that the command printed.
    pub stdout: String,
    /// The progress and the errors that the command printed.
    pub stderr: String,
}

impl Hat {
    pub(crate) fn new(program: PathBuf, server: String, folder: &Path) -> Self {
        Self { program, server, folder: folder.to_owned() }
    }

    /// Runs `hat` with these arguments.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Answer {
        let output = self.command().args(arguments).env("NO_COLOR", "1").output().expect("hat starts");
        Answer {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--server", &self.server]).current_dir(&self.folder);
        // What it remembers of files goes with the folder.
        command.env("XDG_CACHE_HOME", self.folder.join("cache"));
        command
    }

    /// Runs `hat`, which must succeed, and returns its standard output.
    pub fn ok<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        let answer = self.run(arguments);
        assert_eq!(answer.code, 0, "stdout:\n{}\nstderr:\n{}", answer.stdout, answer.stderr);
        answer.stdout
    }

    /// Runs `hat --json`, which must succeed, and returns the JSON documents that it printed, one on each line.
    pub fn json<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Vec<Value> {
        let mut all: Vec<std::ffi::OsString> = vec!["--json".into()];
        all.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        let stdout = self.ok(all);
        stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }
}
