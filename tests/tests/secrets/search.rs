//! The search for secrets.

use std::{fs, path::Path, process::Output};

use regex::bytes::Regex;

use super::pem;

/// Every secret of these tests has this in it.
const MARK: &str = "c4n4ry";

/// A secret with this name.
pub(crate) fn secret(name: &str) -> String {
    format!("{MARK}-{name}-0123456789abcdef")
}

/// Looks for secrets, and remembers where it has found one.
pub(crate) struct Search {
    secrets: Regex,
    found: Vec<String>,
    searched: usize,
}

impl Search {
    pub(crate) fn new() -> Self {
        let key = fs::read_to_string(pem("key.pem")).expect("it is committed");
        let lines = key.lines().filter(|line| !line.starts_with("-----"));
        let text = lines.chain([MARK]).map(regex::escape);
        // A message that shows bytes in the way that programs debug them shows a secret as well.
        let debugged = format!("{:?}", MARK.as_bytes()).trim_matches(['[', ']']).to_owned();
        let all: Vec<String> = text.chain([regex::escape(&debugged)]).collect();
        let search = Self { secrets: Regex::new(&all.join("|")).expect("texts"), found: Vec::new(), searched: 0 };
        for seen in [key.as_bytes(), secret("x").as_bytes(), format!("{:?}", secret("x").as_bytes()).as_bytes()] {
            assert!(search.secrets.is_match(seen), "the search finds what it is for");
        }
        search
    }

    /// Searches bytes.
    pub(crate) fn bytes(&mut self, place: &str, bytes: &[u8]) {
        self.searched += bytes.len();
        for found in self.secrets.find_iter(bytes).take(3) {
            let around = &bytes[found.start().saturating_sub(200)..(found.end() + 60).min(bytes.len())];
            self.found.push(format!("{place}: ...{}...", String::from_utf8_lossy(around)));
        }
    }

    /// Searches what programs have printed.
    pub(crate) fn outputs<'n>(&mut self, outputs: impl IntoIterator<Item = (&'n str, Output)>) {
        for (name, output) in outputs {
            self.bytes(&format!("the data of {name}"), &output.stdout);
            self.bytes(&format!("the messages of {name}"), &output.stderr);
        }
    }

    /// Searches all files below a folder and their names, except the folder `secrets`.
    pub(crate) fn folder(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            self.bytes("the name of a file", path.as_os_str().as_encoded_bytes());
            match path.is_dir() {
                true if path.ends_with("secrets") => {}
                true => self.folder(&path),
                // A file may be gone by now, and a socket has no content.
                false => self.bytes(&path.display().to_string(), &fs::read(&path).unwrap_or_default()),
            }
        }
    }

    pub(crate) fn assert_clean(&self) {
        assert!(self.searched > 100, "something was searched");
        assert!(self.found.is_empty(), "secrets show:\n{}", self.found.join("\n"));
    }
}
