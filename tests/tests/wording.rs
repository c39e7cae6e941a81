//! What reaches a program over the API names no command line, since `hat` adds its own next step, and other programs have other ones. And
//! what a worker says to tenants names none of its folders, which are its operator's.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The sources whose texts reach callers: in refusals, in failures of jobs, in notices and in explanations.
const SOURCES: [&str; 18] = [
    "proto/src",
    "coordinator/src/api",
    "coordinator/src/auth",
    "coordinator/src/engine",
    "coordinator/src/objects",
    "coordinator/src/queue",
    "worker/src/batches",
    "worker/src/broker",
    "worker/src/dataset",
    "worker/src/evaluation",
    "worker/src/executor",
    "worker/src/jobs",
    "worker/src/models",
    "worker/src/objects",
    "worker/src/prediction",
    "worker/src/regression",
    "worker/src/task",
    "worker/src/training",
];
/// The report is a page for a person: it shows the command that reads the decisions which were made on it. Why no executor starts, only
/// operators are told.
const FOR_PEOPLE: [&str; 2] = ["worker/src/jobs/evaluate/mod.rs", "worker/src/executor/sandbox/mod.rs"];
/// The sources whose errors only operators are told, since no worker or no executor starts then.
const FOR_OPERATORS: [&str; 3] =
    ["worker/src/broker/mod.rs", "worker/src/executor/child.rs", "worker/src/executor/supervisor/mod.rs"];
/// The beginnings of command lines and of their options, as a text in the sources has them.
const COMMANDS: [&str; 7] = ["`hat ", "(hat", "\"hat ", "`make ", "`sortinghat-", "SORTINGHAT_", "--"];

#[test]
fn no_text_that_reaches_a_program_names_a_command_line() {
    let names_command = |line: &str| text(line).is_some_and(|text| COMMANDS.iter().any(|start| text.contains(start)));
    let found = lines(&SOURCES, &FOR_PEOPLE, names_command);
    assert!(found.is_empty(), "say it without a command line:\n{}", found.join("\n"));
}

#[test]
fn no_text_of_a_worker_that_reaches_a_tenant_names_a_folder() {
    let worker: Vec<&str> = SOURCES.into_iter().filter(|folder| folder.starts_with("worker/")).collect();
    // A field of a log line is written `path = %path.display()`.
    let names_folder = |line: &str| line.contains(".display()") && !line.contains("= %");
    let found = lines(&worker, &FOR_OPERATORS, names_folder);
    assert!(found.is_empty(), "log the folder, and tell the tenant whom to ask:\n{}", found.join("\n"));
}

/// The lines that a rule finds in the code below these folders, outside of tests and of the files that are left out.
fn lines(folders: &[&str], left_out: &[&str], rule: impl Fn(&str) -> bool) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the packages lie in the checkout");
    let files: Vec<PathBuf> = folders.iter().flat_map(|folder| rust_files(&root.join(folder))).collect();
    assert!(files.len() > 60, "the sources have moved: {files:?}");
    let is_left_out = |file: &&PathBuf| left_out.iter().any(|name| file.ends_with(name));
    let mut found = Vec::new();
    for file in files.iter().filter(|file| !is_left_out(file)) {
        let source = fs::read_to_string(file).expect("readable");
        let code = source.split("#[cfg(test)]\nmod tests {").next().expect("a split has a first part");
        let matching = code.lines().filter(|line| rule(line));
        found.extend(matching.map(|line| format!("{}: {}", file.display(), line.trim())));
    }
    found
}

/// A line without its comment; `None` if it is a comment or an attribute. Code has no command lines, so it may stay beside the texts.
fn text(line: &str) -> Option<&str> {
    let line = line.trim();
    let is_code = !line.starts_with("//") && !line.starts_with("#[");
    is_code.then(|| line.split(" // ").next().unwrap_or(line))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("readable").path();
        match path.is_dir() {
            true => files.extend(rust_files(&path)),
            false if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") => {
                files.push(path);
            }
            false => {}
        }
    }
    files
}
