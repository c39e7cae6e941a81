//! What reaches a program over the API names no command line. `hat` adds its own next step, and other programs have other ones.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The sources whose texts reach callers: in refusals, in failures of jobs, in notices and in explanations.
const SOURCES: [&str; 15] = [
    "proto/src",
    "coordinator/src/api",
    "coordinator/src/auth",
    "coordinator/src/engine",
    "coordinator/src/objects",
    "coordinator/src/queue",
    "worker/src/batches",
    "worker/src/dataset",
    "worker/src/evaluation",
    "worker/src/jobs",
    "worker/src/models",
    "worker/src/prediction",
    "worker/src/regression",
    "worker/src/task",
    "worker/src/training",
];
/// The report is a page for a person. It shows the command that reads the decisions which were made on it.
const FOR_PEOPLE: &str = "worker/src/jobs/evaluate/mod.rs";
/// The beginnings of command lines and of their options, as a text in the sources has them.
const COMMANDS: [&str; 7] = ["`hat ", "(hat", "\"hat ", "`make ", "`sortinghat-", "SORTINGHAT_", "--"];

#[test]
fn no_text_that_reaches_a_program_names_a_command_line() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the packages lie in the checkout");
    let files: Vec<PathBuf> = SOURCES.iter().flat_map(|folder| rust_files(&root.join(folder))).collect();
    assert!(files.len() > 100, "the sources have moved: {files:?}");
    let mut found = Vec::new();
    for file in files.iter().filter(|file| !file.ends_with(FOR_PEOPLE)) {
        let source = fs::read_to_string(file).expect("readable");
        let code = source.split("#[cfg(test)]\nmod tests {").next().expect("a split has a first part");
        let names_command =
            |line: &&str| text(line).is_some_and(|text| COMMANDS.iter().any(|start| text.contains(start)));
        found.extend(code.lines().filter(names_command).map(|line| format!("{}: {}", file.display(), line.trim())));
    }
    assert!(found.is_empty(), "say it without a command line:\n{}", found.join("\n"));
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
