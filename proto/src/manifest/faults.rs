//! What can be wrong with an upload manifest, as the refusal of a job that reads it tells.

use std::collections::HashMap;

use super::UploadManifest;
use crate::{Refusal, Violation, limits, words};

impl UploadManifest {
    /// What is wrong with the list, apart from its objects. `field` names the manifest in the request.
    pub fn faults(&self, field: &str) -> Faults {
        let mut faults = Faults::of(field, "the upload manifest");
        match self.files.len() {
            0 => faults.add("files", "lists no file"),
            1..=limits::MAX_UPLOAD_FILES => {}
            many => faults.add("files", format!("lists {many} files, more than {}", limits::MAX_UPLOAD_FILES)),
        }
        let mut first = HashMap::with_capacity(self.files.len());
        for (place, file) in self.files.iter().enumerate() {
            if let Some(fault) = path_fault(&file.path) {
                faults.add(format!("files[{place}].path"), fault);
            } else if let Some(before) = first.insert(file.path.as_str(), place) {
                faults.add(
                    format!("files[{place}].path"),
                    format!("{} is also the path of files[{before}]", words::quoted(&file.path)),
                );
            }
        }
        faults
    }
}

/// Why `path` cannot be the path of an uploaded file; `None` if it can.
fn path_fault(path: &str) -> Option<String> {
    if path.is_empty() {
        return Some("is empty".to_owned());
    }
    if path.len() > limits::MAX_PATH_BYTES {
        return Some(format!("has {} bytes, more than {}", path.len(), limits::MAX_PATH_BYTES));
    }
    if path.starts_with('/') {
        return Some(format!("{} is absolute: give it relative to the folder that is uploaded", words::quoted(path)));
    }
    match path.split('/').find(|part| matches!(*part, "" | "." | "..")) {
        Some("") => Some(format!("{} has an empty part", words::quoted(path))),
        Some(part) => Some(format!(
            "{path} has the part {part}: give the path without it",
            path = words::quoted(path),
            part = words::quoted(part)
        )),
        None => None,
    }
}

/// The faults of a document that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    field: String,
    /// What the document is called.
    document: &'static str,
    count: u64,
    /// The first faults.
    first: Vec<Violation>,
}

impl Faults {
    /// No faults yet in the document that this field of a request names.
    pub(super) fn of(field: &str, document: &'static str) -> Self {
        Self { field: field.to_owned(), document, count: 0, first: Vec::new() }
    }

    /// Adds the fault of a part of the document, such as `files[7].path`.
    pub fn add(&mut self, part: impl AsRef<str>, message: impl Into<String>) {
        self.count += 1;
        if self.first.len() < limits::MAX_VIOLATIONS {
            let field = format!("{}.{}", self.field, part.as_ref());
            self.first.push(Violation { field, message: message.into() });
        }
    }

    /// # Errors
    /// A [`Refusal`] that counts the faults and tells the first of them, if there is any.
    pub fn into_result(self) -> Result<(), Refusal> {
        let Some(first) = self.first.first() else { return Ok(()) };
        let rest = match self.count - 1 {
            0 => String::new(),
            more => format!("; and {}", words::counted(more, "more fault", "more faults")),
        };
        let message = format!("{} cannot be used: {} {}{rest}", self.document, first.field, first.message);
        Err(Refusal { violations: self.first, ..Refusal::invalid(self.field, message) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ObjectRef, manifest::UploadedFile};

    fn refusal(paths: &[&str]) -> Option<Refusal> {
        let file = |path: &&str| UploadedFile::new(*path, ObjectRef::of(path.as_bytes()));
        let manifest = UploadManifest::of(paths.iter().map(file).collect());
        manifest.faults("ingest.source").into_result().err()
    }

    #[test]
    fn paths_of_any_script_that_stay_inside_the_upload_are_right() {
        assert_eq!(refusal(&["cats/a.png", "a.png", "猫/写真 1.jpg", "a..b/...c", ".hidden", "C:\\x.png"]), None);
    }

    #[test]
    fn a_path_that_names_no_file_inside_the_upload_is_a_fault() {
        let long = "a".repeat(limits::MAX_PATH_BYTES + 1);
        let paths = ["", "/etc/passwd", "../a", "a/../b", "a/./b", "a//b", "a/", ".", "..", long.as_str()];
        for path in paths {
            let refusal = refusal(&["fine.png", path]).unwrap_or_else(|| panic!("{path:?} is taken"));
            let [fault] = refusal.violations.as_slice() else { panic!("one fault: {refusal:?}") };
            assert_eq!(fault.field, "ingest.source.files[1].path", "{path:?}");
            assert!(refusal.message.contains(&fault.message), "{}", refusal.message);
        }
    }

    #[test]
    fn a_path_that_is_listed_twice_names_the_first_place() {
        let refusal = refusal(&["a.png", "b.png", "a.png"]).expect("a.png is listed twice");
        assert_eq!(refusal.field, "ingest.source");
        assert_eq!(refusal.violations[0].message, "\"a.png\" is also the path of files[0]");
    }

    #[test]
    fn an_empty_list_is_a_fault_and_of_many_faults_the_first_are_told_and_all_are_counted() {
        assert!(refusal(&[]).expect("nothing is listed").message.ends_with("ingest.source.files lists no file"));
        let refusal = refusal(&[""; 20]).expect("all are empty");
        assert_eq!(refusal.violations.len(), limits::MAX_VIOLATIONS);
        assert!(refusal.message.ends_with("files[0].path is empty; and 19 more faults"), "{}", refusal.message);
    }
}
