//! Runs the real `hat`, and compares what it prints and how it ends with snapshots. Ids, times and digests are left out of them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// The exit code if no server answers.
const NO_SERVER: i32 = 4;

/// The real binary, alone in a folder of its own: it finds no other program, no home and no settings.
pub(crate) struct Hat {
    folder: TempDir,
    server: String,
}

impl Hat {
    /// `hat` that talks to the server at `url`.
    pub(crate) fn at(url: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let hat = Self { folder, server: url.to_owned() };
        fs::create_dir(hat.folder.path().join("bin")).expect("writable");
        let built = env!("CARGO_BIN_EXE_hat");
        // `hat` looks for the other programs beside its own file, which a symbolic link would lead back to.
        fs::hard_link(built, hat.program()).or_else(|_| fs::copy(built, hat.program()).map(drop)).expect("copied");
        hat
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("bin/hat")
    }

    /// Where `hat` runs.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file below the folder in which `hat` runs.
    pub(crate) fn write(&self, path: &str, content: &[u8]) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("writable");
        fs::write(path, content).expect("writable");
    }

    /// Writes a shell script beside `hat` that stands for another program.
    pub(crate) fn write_program(&self, name: &str, script: &str) {
        self.write(&format!("bin/{name}"), format!("#!/bin/sh\n{script}\n").as_bytes());
        let path = self.path().join("bin").join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("just written");
    }

    /// Photos of two classes in the folder `photos`.
    pub(crate) fn write_photos(&self) {
        for path in ["green/1.png", "green/2.png", "red/1.png", "red/2.png", "red/broken.png"] {
            self.write(&format!("photos/{path}"), path.as_bytes());
        }
    }

    /// Runs one command line, with arguments between spaces.
    pub(crate) fn run(&self, line: &str) -> Output {
        self.command(line).output().expect("hat starts")
    }

    /// One command line, with arguments between spaces, to be started. Words such as NAME=value before the arguments set variables.
    pub(crate) fn command(&self, line: &str) -> Command {
        let (variables, arguments) = parts(line);
        let mut command = Command::new(self.program());
        command.args(arguments).current_dir(self.path()).env_clear().envs(variables);
        command.env("HOME", self.path().join("home")).env("SORTINGHAT_SERVER", &self.server).stdin(Stdio::null());
        command
    }

    /// What fish is told when somebody presses the tabulator behind this line: a candidate and what it is on each line.
    pub(crate) fn completed(&self, line: &str) -> Vec<String> {
        let mut command = self.command("");
        let output = command.env("COMPLETE", "fish").arg("--").args(line.split(' ')).output().expect("hat starts");
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
    }

    /// Runs command lines one after the other, and returns what a person would see, and the exit codes.
    pub(crate) fn transcript(&self, lines: &[&str]) -> String {
        lines.iter().map(|line| self.told(line)).collect::<Vec<_>>().join("\n")
    }

    fn told(&self, line: &str) -> String {
        let output = self.run(line);
        let (variables, arguments) = parts(line);
        let variables: String = variables.iter().map(|(name, value)| format!("{name}={value} ")).collect();
        let mut told = format!("$ {variables}hat {}\n", arguments.join(" "));
        told += &String::from_utf8(output.stdout).expect("text");
        let errors = String::from_utf8(output.stderr).expect("text");
        let code = output.status.code().expect("no signal ends it");
        // On a busy machine, a server that is there can be slow to answer, and a job can wait for a worker, too.
        let is_slow = |line: &&str| {
            line.starts_with("waiting for the server") && code != NO_SERVER || line.starts_with("waiting: ")
        };
        let is_told = |line: &&str| !is_slow(line);
        errors.lines().filter(is_told).for_each(|line| told += &format!("! {line}\n"));
        if code != 0 {
            told += &format!("exit code {code}\n");
        }
        told
    }

    /// The id of the newest job.
    pub(crate) fn newest_job(&self) -> String {
        let output = self.run("jobs -n 1 --json");
        let job: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one job");
        job["id"].as_str().expect("a job has an id").to_owned()
    }

    /// Compares a transcript with the snapshot of this name, without what differs from run to run.
    pub(crate) fn assert_snapshot(&self, name: &str, transcript: &str) {
        let mut settings = insta::Settings::clone_current();
        settings.add_filter(&regex_of(&self.path().display().to_string()), "[folder]");
        settings.add_filter(&(regex_of(self.server.trim_start_matches("http://")) + r"\b"), "[server]");
        for (pattern, replacement) in VOLATILE {
            settings.add_filter(pattern, *replacement);
        }
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name, transcript));
    }
}

/// The variables that a line sets, and its arguments.
fn parts(line: &str) -> (Vec<(&str, &str)>, Vec<&str>) {
    let words = line.split_whitespace();
    let variable = |word: &&'_ str| word.starts_with("SORTINGHAT_");
    let variables = words.clone().take_while(variable).filter_map(|word| word.split_once('=')).collect();
    (variables, words.skip_while(variable).collect())
}

/// What differs from run to run.
const VOLATILE: &[(&str, &str)] = &[
    (r"\b[0-9a-hjkmnp-tv-z]{26}\b", "[job]"),
    (r"(?m)^[0-9a-hjkmnp-tv-z]{6}(  (?:ingest|finetune|evaluate|classify|audit) )", "[id]$1"),
    (r"(jobs why) [0-9a-hjkmnp-tv-z]{6}\b", "$1 [id]"),
    (r"\bhat-[0-9a-f]{32}\b", "[key]"),
    (r"\b[0-9a-f]{64}\b", "[digest]"),
    (r#""size_bytes":\d+"#, r#""size_bytes":[size]"#),
    (r#"(_unix_ms"):[1-9]\d+"#, "$1:[time]"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "[time]"),
    (r"\d+(\.\d)? (s|min) ago", "[some time] ago"),
    (r"(  +)\d+(\.\d)? s(  +)", "$1[some time]$3"),
    (r"(took +)\d+(\.\d)? s", "$1[some time]"),
    (r"(ok|warn|fail) +disk space .*", "[verdict] disk space [free]"),
    (r"(SUBMITTED|TOOK|HEARD|MADE|JOB) +", "$1  "),
    (r"paused for \d+(\.\d)? m?s", "paused for [some time]"),
    (r#""epoch":\d{6,}"#, r#""epoch":[epoch]"#),
    (r#"\{"check":"disk space".*"#, r#"{"check":"disk space",...}"#),
];

fn regex_of(text: &str) -> String {
    text.replace('.', r"\.")
}
