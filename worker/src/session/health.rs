//! Whether this worker can work. Until it has proved that, and whenever it cannot, it asks for no tasks.

use sortinghat_proto::{executor::v1::Ready, limits::MAX_TEXT_BYTES, v1};

use crate::meters;

/// What keeps a worker from working.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// For everybody: without addresses and credentials.
    pub(super) reason: String,
    /// For operators.
    pub(super) detail: String,
}

/// A proof that the object store and the data folder can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    /// The store, for operators.
    pub(super) address: String,
    /// The id of the queue to which the store belongs; `None` if it belongs to none.
    pub(super) queue: Option<String>,
}

/// What is known about the store.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Storage {
    Unproven,
    Proven(Proof),
    Unusable(Trouble),
}

/// What is known about this worker.
#[derive(Debug)]
pub(super) struct Health {
    /// Why the last executor of each slot did not start; `None` if it did.
    executors: Vec<Option<String>>,
    storage: Storage,
    /// The id of the coordinator's queue; `None` before its first answer, empty if it does not tell.
    queue: Option<String>,
    /// What operators should know of a worker that can work: its executors are not confined. Empty if they are.
    warning: String,
    /// The detail of the trouble at the last change, which was logged; empty if there was none.
    logged: String,
}

impl Health {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            executors: vec![None; slots],
            storage: Storage::Unproven,
            queue: None,
            warning: String::new(),
            logged: String::new(),
        }
    }

    /// Notes why no executor starts in a slot, or that one has started. Returns whether that is new.
    pub(super) fn executor(&mut self, slot: usize, failure: Option<String>) -> bool {
        let before = std::mem::replace(&mut self.executors[slot], failure);
        self.log_new_trouble();
        before != self.executors[slot]
    }

    /// Notes how a new executor is confined.
    pub(super) fn confined(&mut self, ready: &Ready) {
        self.warning = match ready.is_fully_confined {
            true => String::new(),
            false => format!("its sandbox is {}", ready.sandbox),
        };
    }

    /// Notes what a proof has shown. Returns whether that is new.
    pub(super) fn prove(&mut self, proof: Result<Proof, Trouble>) -> bool {
        let after = proof.map_or_else(Storage::Unusable, Storage::Proven);
        let before = std::mem::replace(&mut self.storage, after);
        self.log_new_trouble();
        before != self.storage
    }

    /// A task has failed because of the store, so the proof counts no more.
    pub(super) fn doubt(&mut self) {
        if let Storage::Proven(_) = self.storage {
            self.storage = Storage::Unproven;
        }
    }

    /// Notes the queue whose tasks the coordinator gives.
    pub(super) fn serve(&mut self, queue: String) {
        if self.queue.as_ref() != Some(&queue) {
            self.queue = Some(queue);
            self.log_new_trouble();
        }
    }

    /// Logs what keeps the worker from working, if its detail is another one than before.
    fn log_new_trouble(&mut self) {
        let detail = self.trouble().map(|trouble| trouble.detail).unwrap_or_default();
        if !detail.is_empty() && detail != self.logged {
            tracing::error!(detail, "this worker cannot work, and takes no tasks");
        }
        self.logged = detail;
        meters::is_able(self.trouble().is_none());
    }

    /// What keeps the worker from working; `None` if it can work.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        if let Some(failure) = self.executors.iter().flatten().next() {
            // What an executor says has paths and addresses in it.
            return Some(Trouble { reason: "its executor does not start".to_owned(), detail: failure.clone() });
        }
        let unproven = |reason: &str| Some(Trouble { reason: reason.to_owned(), detail: String::new() });
        match (&self.storage, &self.queue) {
            (Storage::Unusable(trouble), _) => Some(trouble.clone()),
            (Storage::Unproven, _) => unproven("it has not proved yet that it can use the object store"),
            (Storage::Proven(_), None) => unproven("it has not heard from the coordinator yet"),
            // A coordinator that does not tell its queue is of an older version.
            (Storage::Proven(_), Some(expected)) if expected.is_empty() => None,
            (Storage::Proven(Proof { queue: Some(found), .. }), Some(expected)) if found == expected => None,
            (Storage::Proven(proof), Some(expected)) => Some(other_store(proof, expected)),
        }
    }

    /// The same for the coordinator.
    pub(super) fn report(&self) -> v1::WorkerHealth {
        let bounded = |mut text: String| {
            text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
            text
        };
        match self.trouble() {
            None => v1::WorkerHealth { is_able: true, reason: String::new(), detail: bounded(self.warning.clone()) },
            Some(Trouble { reason, detail }) => {
                v1::WorkerHealth { is_able: false, reason: bounded(reason), detail: bounded(detail) }
            }
        }
    }
}

/// The store is another one than the coordinator's. Its objects would not be found.
fn other_store(proof: &Proof, expected: &str) -> Trouble {
    let Proof { address, queue } = proof;
    let found = match queue {
        Some(found) => format!("belongs to the queue {found}"),
        None => "belongs to no queue".to_owned(),
    };
    Trouble {
        reason: "its object store is not the one of the coordinator".to_owned(),
        detail: format!(
            "its object store {address} {found}, and the coordinator's belongs to {expected}: start the worker with the coordinator's \
             --object-store"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};

    use super::*;

    /// What is logged meanwhile.
    fn logged(work: impl FnOnce()) -> String {
        let mut file = tempfile::tempfile().unwrap();
        let log = tracing_subscriber::fmt().with_writer(file.try_clone().unwrap()).with_ansi(false).finish();
        tracing::subscriber::with_default(log, work);
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }

    fn proof(queue: Option<&str>) -> Result<Proof, Trouble> {
        Ok(Proof { address: "file:///elsewhere".into(), queue: queue.map(str::to_owned) })
    }

    fn with(queue: &str, proof: Result<Proof, Trouble>) -> Health {
        let mut health = Health::new(2);
        health.serve(queue.to_owned());
        health.prove(proof);
        health
    }

    #[test]
    fn a_worker_can_work_once_it_has_found_the_coordinators_queue_in_its_store() {
        let mut health = Health::new(1);
        assert!(health.trouble().is_some(), "nothing is proved");
        health.prove(proof(Some("ours")));
        assert!(health.trouble().is_some(), "the coordinator has not said which queue it has");
        health.serve("ours".to_owned());
        assert_eq!(health.report(), v1::WorkerHealth { is_able: true, ..v1::WorkerHealth::default() });
    }

    #[test]
    fn another_store_is_told_to_operators_with_its_address_and_to_others_without() {
        for found in [Some("theirs"), None] {
            let report = with("ours", proof(found)).report();
            assert!(!report.is_able && report.reason.contains("not the one of the coordinator"), "{report:?}");
            assert!(!report.reason.contains("file://") && report.detail.contains("file:///elsewhere"), "{report:?}");
            assert!(report.detail.contains("--object-store"), "{report:?}");
        }
    }

    #[test]
    fn an_older_coordinator_that_does_not_tell_its_queue_is_served() {
        assert_eq!(with("", proof(None)).trouble(), None);
    }

    #[test]
    fn a_failure_of_the_store_has_to_be_disproved() {
        let mut health = with("ours", proof(Some("ours")));
        health.doubt();
        assert!(health.trouble().is_some());
        health.prove(proof(Some("ours")));
        assert_eq!(health.trouble(), None);
    }

    #[test]
    fn trouble_is_logged_whenever_its_detail_is_new_whoever_notes_it() {
        let mut health = Health::new(2);
        let full = |detail: &str| Err(Trouble { reason: "full".into(), detail: detail.into() });
        let mut lines = |change: &dyn Fn(&mut Health)| logged(|| change(&mut health)).lines().count();
        assert_eq!(lines(&|health| _ = health.prove(full("volume 1"))), 1);
        assert_eq!(lines(&|health| _ = health.prove(full("volume 1"))), 0, "the same again");
        assert_eq!(lines(&|health| _ = health.prove(full("volume 2"))), 1);
        assert_eq!(lines(&|health| _ = health.prove(proof(Some("theirs")))), 0, "nobody knows yet which queue is ours");
        assert_eq!(lines(&|health| health.serve("ours".into())), 1, "the store is another one");
        assert_eq!(lines(&|health| health.serve("ours".into())), 0);
        assert_eq!(lines(&|health| _ = health.executor(0, Some("no libtorch".into()))), 1);
        assert_eq!(lines(&|health| _ = health.executor(1, Some("no libtorch".into()))), 0, "one is told");
        assert_eq!(lines(&|health| health.doubt()), 0);
    }

    #[test]
    fn operators_are_told_that_photos_are_decoded_without_a_sandbox() {
        let mut health = with("ours", proof(Some("ours")));
        health.confined(&Ready { sandbox: "off".into(), ..Ready::default() });
        let report = health.report();
        assert!(report.is_able && report.reason.is_empty() && report.detail == "its sandbox is off", "{report:?}");
        health.confined(&Ready { sandbox: "on".into(), is_fully_confined: true, ..Ready::default() });
        assert_eq!(health.report().detail, "");
    }

    #[test]
    fn what_an_executor_said_that_does_not_start_is_for_operators_only() {
        let mut health = with("ours", proof(Some("ours")));
        let said = "the executor did not start: exited with code 1; it printed last:\nloading /srv/weights\nno cuda:7";
        assert!(health.executor(1, Some(said.to_owned())));
        let trouble = Trouble { reason: "its executor does not start".to_owned(), detail: said.to_owned() };
        assert_eq!(health.trouble(), Some(trouble));
        assert!(health.executor(1, None));
        assert_eq!(health.trouble(), None);
    }
}
