//! The file that shall hold what a job makes. It is checked before the job is submitted.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use sortinghat_client::{
    Existing,
    predictions::{Cells, Format, Style},
};
use sortinghat_proto::JobKind;

use crate::{failure::Failure, shell};

/// What a file can hold of a job's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// The predictions of a classify.
    Predictions(Format),
    /// The report of an evaluation: a page.
    Report,
    /// The predictions of an evaluation, with the label of each photo: CSV.
    Measured,
}

impl Content {
    /// What a file with this name holds of a job of this kind. The ending of the name decides.
    ///
    /// # Errors
    /// [`Failure::Usage`] if such a job makes nothing that has this ending.
    pub(crate) fn of(kind: JobKind, path: &Path) -> Result<Self, Failure> {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
        let (what, why) = match (kind, ending.as_str()) {
            (JobKind::Classify, _) => match Format::of_path(path) {
                Some(format) => return Ok(Self::Predictions(format)),
                None => ("predictions", "end its name in .csv, .jsonl or .parquet"),
            },
            (JobKind::Evaluate | JobKind::Audit, "html" | "htm") => return Ok(Self::Report),
            (JobKind::Evaluate | JobKind::Audit, "csv") => return Ok(Self::Measured),
            (JobKind::Audit, _) => ("an audit", "end its name in .html for the page, or in .csv for all labels"),
            (JobKind::Evaluate, _) => {
                ("an evaluation", "end its name in .html for the report, or in .csv for the predictions")
            }
            (JobKind::Ingest | JobKind::Gather | JobKind::Finetune, _) => {
                ("the result of the job", "only classify, evaluate and audit make files")
            }
        };
        Err(Failure::usage(format!("{what} cannot be written to {}: {why}", path.display())))
    }
}

/// What shall become of what a job makes, which decides what command goes on with the job.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Aim<'a> {
    /// It is told.
    Tell,
    /// It is told and saved to a file.
    Save(&'a Output),
    /// Photos are sorted by it. These are the words behind the job's id.
    Sort(&'a str),
}

impl<'a> From<Option<&'a Output>> for Aim<'a> {
    fn from(out: Option<&'a Output>) -> Self {
        out.map_or(Self::Tell, Self::Save)
    }
}

/// A file that a command shall write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    path: PathBuf,
    content: Content,
    existing: Existing,
    /// Whether CSV has a column for each class.
    class_columns: bool,
    /// Whether `hat` chose the path itself. Such a file never stands in the way of another one.
    is_default: bool,
}

impl Output {
    /// The file that `option` names for the result of a job of this kind. See [`named`](Self::named).
    ///
    /// # Errors
    /// [`Failure::Usage`] if such a job makes nothing that has this ending, or what [`named`](Self::named) returns.
    pub(crate) fn of_job(kind: JobKind, option: &str, path: PathBuf, force: bool) -> Result<Self, Failure> {
        let content = Content::of(kind, &path)?;
        Self::named(option, path, content, force)
    }

    /// The page of photos that `--gallery` names. See [`named`](Self::named).
    ///
    /// # Errors
    /// [`Failure::Usage`] if the name does not end as that of a page, or what [`named`](Self::named) returns.
    pub(crate) fn gallery(path: PathBuf, force: bool) -> Result<Self, Failure> {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
        match ending.as_str() {
            "html" | "htm" => Self::named("--gallery", path, Content::Report, force),
            _ => Err(Failure::usage(format!("--gallery {}: this is a page: end its name in .html", path.display()))),
        }
    }

    /// Writes a text that is in memory, all at once. Returns the whole path.
    ///
    /// # Errors
    /// [`Failure::File`] if it cannot be written.
    pub(crate) fn write(&self, text: impl FnOnce(&Path) -> String) -> Result<PathBuf, Failure> {
        let path = std::path::absolute(self.path()).map_err(Failure::file("find", &self.path))?;
        let folder = folder_of(&path);
        let written = tempfile::Builder::new()
            .prefix(".hat-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(folder)
            .and_then(|mut file| {
                std::io::Write::write_all(&mut file, text(folder).as_bytes())?;
                let named = match self.existing {
                    Existing::Keep => file.persist_noclobber(&path),
                    Existing::Replace => file.persist(&path),
                };
                named.map(drop).map_err(|error| error.error)
            });
        written.map_err(Failure::file("write", &path))?;
        Ok(path)
    }

    /// The file that `option` names. It exists already only if `force` is set, and can be written.
    ///
    /// # Errors
    /// [`Failure::Usage`] with what is wrong with the path, [`Failure::File`] if the folder cannot be written to.
    fn named(option: &str, path: PathBuf, content: Content, force: bool) -> Result<Self, Failure> {
        let refuse = |why: String| Err(Failure::usage(format!("{option} {}: {why}", path.display())));
        let folder = folder_of(&path);
        match fs::metadata(folder) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return refuse(format!("{} is not a folder", folder.display())),
            Err(_) if is_link(folder) => {
                return refuse(format!("{} is a link that leads nowhere: name another folder", folder.display()));
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return refuse(format!("there is no folder {}: make it, or name another one", folder.display()));
            }
            Err(error) => return Err(Failure::file("look into", folder)(error)),
        }
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => return refuse("this is a folder: name a file in it".to_owned()),
            Ok(found) if !found.is_file() => return refuse("this is not a regular file".to_owned()),
            Ok(_) if !force => {
                return refuse("this file exists: name another one, or overwrite it with --force".to_owned());
            }
            // A link stays a link to the file that is overwritten.
            Ok(_) => {
                return Self::checked(fs::canonicalize(&path).map_err(Failure::file("find", path))?, content, force);
            }
            // A link is there even if its target is not, and would become a file.
            Err(_) if is_link(&path) => {
                return refuse("this is a link that leads nowhere: remove it, or name another file".to_owned());
            }
            Err(_) => {}
        }
        Self::checked(path, content, force)
    }

    /// The file for the report of `model` if none was named. It has a number if that is needed for a name of its own, unless `force` is
    /// set.
    ///
    /// # Errors
    /// [`Failure::File`] if the current folder cannot be written to.
    pub(crate) fn report_of(model: &str, force: bool) -> Result<Self, Failure> {
        let name: String = model.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
        let output = Self::checked(format!("{name}-report.html").into(), Content::Report, force)?;
        Ok(Self { is_default: true, ..output })
    }

    /// Makes sure that a file can be made in the folder, by making one that goes at once.
    fn checked(path: PathBuf, content: Content, force: bool) -> Result<Self, Failure> {
        let folder = folder_of(&path);
        tempfile::Builder::new().prefix(".hat-").tempfile_in(folder).map_err(Failure::file("write to", folder))?;
        let existing = if force { Existing::Replace } else { Existing::Keep };
        Ok(Self { path, content, existing, class_columns: false, is_default: false })
    }

    /// The options that name this file for `hat jobs watch`.
    pub(crate) fn options(&self) -> String {
        let force = if self.existing == Existing::Replace { " --force" } else { "" };
        let class_columns = if self.class_columns { " --class-columns" } else { "" };
        format!("--out {}{class_columns}{force}", shell::word(self.path()))
    }

    /// The same file, with a column for each class if `class_columns` is set.
    ///
    /// # Errors
    /// [`Failure::Usage`] if they are wanted in a file that is no CSV of predictions.
    pub(crate) fn with_class_columns(self, class_columns: bool) -> Result<Self, Failure> {
        if class_columns && self.content != Content::Predictions(Format::Csv) {
            let path = self.path.display();
            return Err(Failure::usage(format!(
                "--class-columns: only the predictions of a classify in a .csv file have a column for each class, and {path} is none"
            )));
        }
        Ok(Self { class_columns, ..self })
    }

    /// How predictions are written to the file.
    pub(crate) fn style(&self, format: Format, cells: Cells) -> Style {
        Style { format, cells, class_columns: self.class_columns }
    }

    pub(crate) fn content(&self) -> Content {
        self.content
    }

    /// What shall become of a file that has the path when this one is written.
    pub(crate) fn existing(&self) -> Existing {
        self.existing
    }

    /// Where to write. A file for which `hat` chose the name takes the first one that is free now.
    pub(crate) fn path(&self) -> PathBuf {
        if !self.is_default || self.existing == Existing::Replace {
            return self.path.clone();
        }
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy();
        let numbered = (2..u32::MAX).map(|number| self.path.with_file_name(format!("{stem}-{number}.html")));
        let mut names = std::iter::once(self.path.clone()).chain(numbered);
        names.find(|path| fs::symlink_metadata(path).is_err()).unwrap_or_else(|| self.path.clone())
    }
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

/// The folder in which a file lies.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::exit::Exit;

    fn named(path: &Path, force: bool) -> Result<Output, Failure> {
        Output::named("--out", path.to_owned(), Content::Report, force)
    }

    #[test]
    fn the_ending_of_a_name_says_what_the_file_holds_and_never_another_thing() {
        let of = |kind, name: &str| Content::of(kind, Path::new(name)).map_err(|failure| failure.exit());
        assert_eq!(of(JobKind::Classify, "p.csv"), Ok(Content::Predictions(Format::Csv)));
        assert_eq!(of(JobKind::Classify, "p.Parquet"), Ok(Content::Predictions(Format::Parquet)));
        assert_eq!(of(JobKind::Evaluate, "x.csv"), Ok(Content::Measured));
        assert_eq!(of(JobKind::Evaluate, "x.HTML"), Ok(Content::Report));
        assert_eq!(of(JobKind::Audit, "x.html"), Ok(Content::Report));
        assert_eq!(of(JobKind::Audit, "x.pdf"), Err(Exit::Usage));
        for name in ["x.jsonl", "x.parquet", "x", "x.pdf"] {
            assert_eq!(of(JobKind::Evaluate, name), Err(Exit::Usage), "{name}");
        }
        assert_eq!(of(JobKind::Classify, "p.html"), Err(Exit::Usage));
        assert_eq!(of(JobKind::Ingest, "p.csv"), Err(Exit::Usage));
    }

    #[test]
    fn a_file_that_could_not_be_written_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("there.html"), b"mine").expect("writable");
        for (name, why) in [
            ("nowhere/r.html", "there is no folder"),
            ("there.html/r.html", "is not a folder"),
            ("there.html", "--force"),
            ("", "this is a folder"),
        ] {
            let failure = named(&path(name), false).expect_err(name);
            assert_eq!(failure.exit(), Exit::Usage, "{failure}");
            assert!(failure.to_string().contains(why), "{failure}");
        }
        let device = named(Path::new("/dev/null"), true).expect_err("a device is no file to replace");
        assert!(device.to_string().contains("not a regular file"), "{device}");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1, "checking leaves nothing behind");
    }

    #[test]
    fn a_link_to_a_file_that_is_overwritten_stays_a_link() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (file, link) = (folder.path().join("file.html"), folder.path().join("link.html"));
        fs::write(&file, b"mine").expect("writable");
        symlink(&file, &link).expect("links are supported");
        let output = named(&link, true).expect("it may be overwritten");
        assert_eq!(output.path(), fs::canonicalize(file).expect("it exists"));
    }

    #[test]
    fn a_link_that_leads_nowhere_is_refused_and_stays() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let link = folder.path().join("link.html");
        symlink(folder.path().join("nowhere"), &link).expect("links are supported");
        for force in [false, true] {
            for path in [link.clone(), link.join("r.html")] {
                let failure = named(&path, force).expect_err("nothing can be written there");
                assert_eq!(failure.exit(), Exit::Usage, "{failure}");
                assert!(failure.to_string().contains("link that leads nowhere"), "{failure}");
            }
        }
        assert!(is_link(&link));
    }

    #[test]
    fn a_report_without_a_name_takes_one_that_is_free() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("stamps-1-report.html");
        let output = |existing| Output {
            path: path.clone(),
            content: Content::Report,
            existing,
            class_columns: false,
            is_default: true,
        };
        assert_eq!(output(Existing::Keep).path(), path);
        fs::write(&path, b"an earlier report").expect("writable");
        assert_eq!(output(Existing::Keep).path(), folder.path().join("stamps-1-report-2.html"));
        assert_eq!(output(Existing::Replace).path(), path);
    }
}
