//! The journal of a folder into which photos are sorted: what is about to happen is on the disk before it happens.
//!
//! It is a file of JSON lines in that folder, which only grows. A line that is cut off was written by a process that ended, and nothing of
//! what it announces has happened. Whether an announced photo without a later line lies at its place, the file system says.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sortinghat_proto::ObjectRef;

use super::{Mode, disk};
use crate::failure::Failure;

/// The journal's name. It begins with a dot, so that nobody takes it for a photo.
const NAME: &str = ".hat-sort.jsonl";
const FORMAT: &str = "sortinghat.sorting/1";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(super) enum Record {
    /// A run of `hat sort` begins.
    Run(Run),
    /// A folder is about to be made, relative to the journal's.
    Folder { path: PathBuf },
    /// A photo is about to be put into its place. Photos are numbered by these lines, from 0.
    Place(Place),
    /// The photo lies at its place.
    Placed { photo: usize },
    /// The photo was not put there, and never will be.
    Dropped { photo: usize },
    /// The photo is about to be taken back.
    Undoing { photo: usize },
    /// The photo is back where it was, or its copy is removed; or it stays, because it is somebody else's now.
    Undone { photo: usize },
}

/// What a run of `hat sort` goes by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) format: String,
    pub(super) model: String,
    pub(super) job: String,
    /// Which class each folder is for. Folders for no class are not listed.
    pub(super) folders: BTreeMap<String, String>,
    /// Whether the run made the journal's folder.
    pub(super) made: bool,
}

impl Run {
    pub(super) fn new(model: &str, job: &str, folders: BTreeMap<String, String>) -> Self {
        Self { format: FORMAT.to_owned(), model: model.to_owned(), job: job.to_owned(), folders, made: false }
    }
}

/// A photo and the place for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Where it was, as an absolute path.
    pub(super) from: PathBuf,
    /// Its place, relative to the journal's folder.
    pub(super) to: PathBuf,
    pub(super) mode: Mode,
    #[serde(flatten)]
    pub(super) content: ObjectRef,
    /// When it was changed last, in nanoseconds since 1970.
    pub(super) modified_ns: i64,
}

/// What is known of a photo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Announced,
    Placed,
    Dropped,
    Undoing,
    Undone,
}

/// What a journal says.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) runs: Vec<Run>,
    /// The folders that were made, in that order.
    pub(super) folders: Vec<PathBuf>,
    pub(super) photos: Vec<(Place, State)>,
}

impl Story {
    fn of(text: &str, path: &Path) -> Result<Self, Failure> {
        let mut story = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let told =
                serde_json::from_str(line).map_err(|error| error.to_string()).and_then(|record| story.tell(record));
            told.map_err(|why| {
                Failure::local(format!(
                    "line {number} of the journal {} cannot be used: {why}; it is damaged, or a newer hat wrote it, and hat \
                     changes nothing there",
                    path.display()
                ))
            })?;
        }
        Ok(story)
    }

    fn tell(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Run(run) if run.format != FORMAT => return Err(format!("its format is {}", run.format)),
            Record::Run(run) => self.runs.push(run),
            Record::Folder { path } => self.folders.push(inside(path)?),
            Record::Place(place) => {
                inside(place.to.clone())?;
                self.photos.push((place, State::Announced));
            }
            Record::Placed { photo } => self.set(photo, State::Placed)?,
            Record::Dropped { photo } => self.set(photo, State::Dropped)?,
            Record::Undoing { photo } => self.set(photo, State::Undoing)?,
            Record::Undone { photo } => self.set(photo, State::Undone)?,
        }
        Ok(())
    }

    fn set(&mut self, photo: usize, state: State) -> Result<(), String> {
        let (_, known) = self.photos.get_mut(photo).ok_or_else(|| format!("there is no photo {photo} before it"))?;
        *known = state;
        Ok(())
    }
}

/// The path, which must not lead out of the journal's folder.
fn inside(path: PathBuf) -> Result<PathBuf, String> {
    let is_inside = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if is_inside { Ok(path) } else { Err(format!("{} leads out of the folder", path.display())) }
}

/// A journal that this process alone writes.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    pub(super) story: Story,
}

impl Journal {
    /// What the journal of `folder` says; `None` if there is no journal.
    ///
    /// # Errors
    /// [`Failure::File`] or [`Failure::Local`] if it cannot be read.
    pub(super) fn read(folder: &Path) -> Result<Option<Story>, Failure> {
        let path = folder.join(NAME);
        match fs::read(&path) {
            Ok(bytes) => Story::of(whole_lines(&bytes, &path)?, &path).map(Some),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(Failure::file("read", path)(error)),
        }
    }

    /// Opens the journal of `folder`, which is made if `make` says so. `None` if there is no journal and none is made.
    ///
    /// # Errors
    /// [`Failure::Local`] if another process works in the folder, or as [`read`](Self::read).
    pub(super) fn open(folder: &Path, make: bool) -> Result<Option<Self>, Failure> {
        let path = folder.join(NAME);
        let options = OpenOptions::new().read(true).write(true).create(make).truncate(false).clone();
        let mut file = match disk::change(|| options.open(&path)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound && !make => return Ok(None),
            Err(error) => return Err(Failure::file("open", path)(error)),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::local(format!(
                    "another hat is sorting into {}: wait until it has ended",
                    folder.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(Failure::file("lock", path)(error)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Failure::file("read", &path))?;
        let text = whole_lines(&bytes, &path)?;
        let story = Story::of(text, &path)?;
        let whole = text.len() as u64;
        let cut = if whole < bytes.len() as u64 { disk::change(|| file.set_len(whole)) } else { Ok(()) };
        cut.and_then(|()| file.seek(SeekFrom::Start(whole))).map_err(Failure::file("write", &path))?;
        Ok(Some(Self { file, path, story }))
    }

    /// Adds lines and waits until they are on the disk: what they announce may happen now.
    ///
    /// # Errors
    /// [`Failure::File`] if they cannot be written.
    pub(super) fn announce(&mut self, records: Vec<Record>) -> Result<(), Failure> {
        self.note(records)?;
        self.file.sync_data().map_err(Failure::file("write", &self.path))
    }

    /// Adds lines about what has happened. If they are lost, the file system tells it.
    ///
    /// # Errors
    /// As [`announce`](Self::announce).
    pub(super) fn note(&mut self, records: Vec<Record>) -> Result<(), Failure> {
        let lines: io::Result<Vec<u8>> = records.iter().try_fold(Vec::new(), |mut lines, record| {
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
            Ok(lines)
        });
        let written = lines.and_then(|lines| disk::change(|| self.file.write_all(&lines)));
        written.map_err(Failure::file("write", &self.path))?;
        for record in records {
            self.story.tell(record).map_err(Failure::local)?;
        }
        Ok(())
    }

    /// Removes the journal.
    ///
    /// # Errors
    /// [`Failure::File`] if it cannot be removed.
    pub(super) fn remove(self) -> Result<(), Failure> {
        disk::remove_file(&self.path).map_err(Failure::file("remove", &self.path))
    }
}

/// The lines that were written whole.
fn whole_lines<'a>(bytes: &'a [u8], path: &Path) -> Result<&'a str, Failure> {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    str::from_utf8(&bytes[..end])
        .map_err(|error| Failure::local(format!("the journal {} is damaged: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_would_lead_out_of_its_folder_or_is_of_another_version_is_refused() {
        for (line, why) in [
            (r#"{"record":"folder","path":"../a"}"#, "leads out"),
            (r#"{"record":"folder","path":"/a"}"#, "leads out"),
            (r#"{"record":"placed","photo":0}"#, "no photo 0"),
            (r#"{"record":"later"}"#, "later"),
            (
                r#"{"record":"run","format":"sortinghat.sorting/2","model":"","job":"","folders":{},"made":false}"#,
                "sorting/2",
            ),
        ] {
            let failure = Story::of(line, Path::new("j")).expect_err(line).to_string();
            assert!(failure.contains(why) && failure.starts_with("line 1 of the journal j"), "{failure}");
        }
    }

    #[test]
    fn one_process_at_a_time_writes_a_journal_and_a_line_that_is_cut_off_goes() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(Journal::open(folder.path(), false).expect("readable").is_none());
        let mut journal = Journal::open(folder.path(), true).expect("writable").expect("made");
        assert!(Journal::open(folder.path(), true).expect_err("it is locked").to_string().contains("another hat"));
        journal.announce(vec![Record::Folder { path: "cats".into() }]).expect("writable");
        journal.file.write_all(b"{\"record\":\"fol").expect("writable");
        drop(journal);
        let journal = Journal::open(folder.path(), false).expect("readable").expect("it exists");
        assert_eq!(journal.story.folders, [PathBuf::from("cats")]);
        assert_eq!(fs::read(&journal.path).expect("readable"), b"{\"record\":\"folder\",\"path\":\"cats\"}\n");
    }
}
