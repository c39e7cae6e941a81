//! The server that a command acts on.

use std::{fmt, path::PathBuf, time::Duration};

use sortinghat_client::RESTART_PATIENCE;

use super::{data_dir::DataDir, record::Record};
use crate::failure::Failure;

/// Where a server is usually, if nobody says where.
const USUAL_URL: &str = "http://127.0.0.1:7878";

/// The server that a command acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) url: String,
    /// How long to keep trying while the server refuses connections.
    pub(crate) patience: Duration,
    /// The folder of the `hat up` that runs the server; `None` if the server's address was named, or nothing was.
    folder: Option<PathBuf>,
}

impl Server {
    /// The server at the address that was named.
    pub(crate) fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), patience: RESTART_PATIENCE, folder: None }
    }

    /// The server that `hat up` runs in the folder that was named. Another server is never taken for it.
    ///
    /// # Errors
    /// [`Failure::NothingRuns`].
    pub(crate) fn of(data_dir: &DataDir) -> Result<Self, Failure> {
        match Record::read(data_dir) {
            Some(record) if record.serves() => {
                Ok(Self { folder: Some(data_dir.path().to_owned()), ..Self::at(record.url) })
            }
            former => Err(Failure::NothingRuns { folder: data_dir.path().to_owned(), has_run: former.is_some() }),
        }
    }

    /// The server if neither an address nor a folder was named: the one that `hat up` runs in the usual folder. If nothing was started
    /// there, it is the server at the usual address; there may never have been one, so it is tried only once.
    ///
    /// # Errors
    /// [`Failure::NothingRuns`] if the server of the usual folder has ended without being stopped.
    pub(crate) fn usual(data_dir: Option<&DataDir>) -> Result<Self, Failure> {
        match data_dir.map(Self::of) {
            None | Some(Err(Failure::NothingRuns { has_run: false, .. })) => {
                Ok(Self { patience: Duration::ZERO, ..Self::at(USUAL_URL) })
            }
            Some(found) => found,
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)?;
        self.folder.as_ref().map_or(Ok(()), |folder| write!(f, " (the server of {})", folder.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::process::ProcessMark, *};

    /// A folder in which `hat up` has written this record.
    fn folder(hat: Option<ProcessMark>, children: Vec<ProcessMark>) -> (tempfile::TempDir, DataDir) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data_dir = DataDir::find(Some(folder.path().to_owned())).expect("absolute");
        if let Some(hat) = hat {
            let record = Record { hat, children, ..Record::at("http://127.0.0.1:1") };
            record.write(&data_dir).expect("writable");
        }
        (folder, data_dir)
    }

    #[test]
    fn a_folder_that_was_named_never_leads_to_another_server() {
        let alive = ProcessMark::of(std::process::id()).expect("we run");
        let dead = ProcessMark::ended();
        let has_run = |hat, children| match Server::of(&folder(hat, children).1) {
            Err(Failure::NothingRuns { has_run, .. }) => has_run,
            other => panic!("{other:?}"),
        };
        assert!(!has_run(None, vec![]));
        assert!(has_run(Some(dead), vec![]));
        assert!(has_run(Some(dead), vec![dead, alive]), "a worker alone is no server");
        for (hat, children) in [(alive, vec![]), (dead, vec![alive])] {
            let (kept, data_dir) = folder(Some(hat), children);
            let server = Server::of(&data_dir).expect("it runs");
            assert_eq!(server.url, "http://127.0.0.1:1");
            assert!(server.to_string().contains(&kept.path().display().to_string()), "{server}");
        }
    }

    #[test]
    fn the_usual_address_is_tried_only_where_nothing_was_started() {
        let alive = ProcessMark::of(std::process::id()).expect("we run");
        let dead = ProcessMark::ended();
        assert_eq!(Server::usual(None).expect("the usual one").url, USUAL_URL);
        assert_eq!(Server::usual(Some(&folder(None, vec![]).1)).expect("the usual one").url, USUAL_URL);
        assert_eq!(Server::usual(Some(&folder(Some(alive), vec![]).1)).expect("it runs").url, "http://127.0.0.1:1");
        assert!(Server::usual(Some(&folder(Some(dead), vec![]).1)).is_err());
    }
}
