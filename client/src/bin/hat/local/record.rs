//! The record that `hat up` writes for the other commands.

use std::{fs, io, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{data_dir::DataDir, process::ProcessMark};
use crate::{
    failure::Failure,
    show::line::{print_line, print_whole},
};

/// What `hat up` writes down once its server is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The server's address.
    pub(crate) url: String,
    /// `hat up` itself.
    pub(crate) hat: ProcessMark,
    /// The processes that it started, in the order of their start: the coordinator, and then the worker.
    pub(crate) children: Vec<ProcessMark>,
    /// The device that it was started with. A record of an older version does not say.
    #[serde(default)]
    pub(crate) device: Option<String>,
    /// The folder of weights that it was started with.
    #[serde(default)]
    pub(crate) weights_dir: Option<PathBuf>,
}

impl Record {
    /// The record of this folder, if there is one that can be parsed.
    pub(crate) fn read(data_dir: &DataDir) -> Option<Self> {
        serde_json::from_slice(&fs::read(data_dir.record()).ok()?).ok()
    }

    /// Replaces the record. Readers see the former record or the whole new one.
    pub(crate) fn write(&self, data_dir: &DataDir) -> Result<(), Failure> {
        let path = data_dir.record();
        let staged = path.with_extension("json.new");
        let json = serde_json::to_vec(self).expect("numbers and strings");
        fs::write(&staged, json).and_then(|()| fs::rename(&staged, &path)).map_err(Failure::file("write", path))
    }

    /// Removes the record.
    pub(crate) fn remove(data_dir: &DataDir) -> Result<(), Failure> {
        match fs::remove_file(data_dir.record()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::file("remove", data_dir.record())(error))
            }
            _ => Ok(()),
        }
    }

    /// Whether the `hat up` that wrote this record still runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.hat.is_alive()
    }

    /// Whether the server of this record still runs. If `hat up` was killed, its coordinator goes on.
    pub(crate) fn serves(&self) -> bool {
        self.is_alive() || self.children.first().is_some_and(ProcessMark::is_alive)
    }

    /// Whether the server can be reached at this address; port 0 stands for any.
    pub(crate) fn listens_on(&self, address: SocketAddr) -> bool {
        let own = self.url.strip_prefix("http://").and_then(|own| own.parse::<SocketAddr>().ok());
        own.is_some_and(|own| own.ip() == address.ip() && (own.port() == address.port() || address.port() == 0))
    }

    /// Prints where the server, the data and the logs are.
    pub(crate) fn print(&self, data_dir: &DataDir, json: bool) {
        if json {
            let data_dir = data_dir.path().display().to_string();
            print_whole(&serde_json::json!({ "url": self.url, "pid": self.hat.pid, "data_dir": data_dir }).to_string());
            return;
        }
        print_line(&format!("server   {}", self.url));
        print_line(&format!("data     {}", data_dir.path().display()));
        print_line(&format!("logs     {}", data_dir.logs().display()));
    }
}

#[cfg(test)]
impl Record {
    /// A record of this process, as if it served at `url`.
    pub(super) fn at(url: &str) -> Self {
        let hat = ProcessMark::of(std::process::id()).expect("we run");
        Self { url: url.to_owned(), hat, children: Vec::new(), device: None, weights_dir: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_half_a_record_is_none() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data_dir = DataDir::find(Some(folder.path().to_owned())).expect("absolute");
        assert_eq!(Record::read(&data_dir), None);
        let record = Record::at("http://127.0.0.1:1");
        record.write(&data_dir).expect("writable");
        assert_eq!(Record::read(&data_dir), Some(record));
        fs::write(data_dir.record(), b"{\"url\":").expect("writable");
        assert_eq!(Record::read(&data_dir), None);
        Record::remove(&data_dir).expect("removable");
        Record::remove(&data_dir).expect("gone is fine");
    }

    #[test]
    fn an_address_is_had_only_with_its_port_or_with_any_port() {
        let record = Record::at("http://127.0.0.1:7878");
        for (address, had) in
            [("127.0.0.1:7878", true), ("127.0.0.1:0", true), ("127.0.0.1:7879", false), ("0.0.0.0:7878", false)]
        {
            assert_eq!(record.listens_on(address.parse().expect("an address")), had, "{address}");
        }
    }
}
