//! Which datasets and models this machine has at hand, so that the coordinator can prefer it for tasks that read them.

use std::collections::VecDeque;

use sortinghat_proto::{limits::MAX_CACHED_MANIFESTS, v1};
use v1::task_outcome::Outcome;

/// Manifests whose content a task of this worker has read to its end. The worker does not know here what the cache has evicted since.
/// The coordinator prefers this worker only for a moment, so a wrong entry costs no more than that moment.
#[derive(Debug)]
pub(super) struct Cached {
    /// What the task of each slot reads.
    reading: Vec<Vec<String>>,
    /// Digests, the newest first.
    known: VecDeque<String>,
}

impl Cached {
    pub(super) fn new(slots: usize) -> Self {
        Self { reading: vec![Vec::new(); slots], known: VecDeque::new() }
    }

    /// A slot starts a task.
    pub(super) fn started(&mut self, slot: usize, assignment: &v1::Assignment) {
        let inputs = assignment.dataset.iter().chain(&assignment.model);
        self.reading[slot] = inputs.map(|manifest| manifest.digest.clone()).collect();
    }

    /// The task of a slot has ended. A task that failed may not have read its inputs.
    pub(super) fn ended(&mut self, slot: usize, outcome: &Outcome) {
        let read = std::mem::take(&mut self.reading[slot]);
        if !matches!(outcome, Outcome::Succeeded(_)) {
            return;
        }
        for digest in read {
            self.known.retain(|known| *known != digest);
            self.known.push_front(digest);
        }
        self.known.truncate(MAX_CACHED_MANIFESTS);
    }

    /// Digests, the newest first.
    pub(super) fn list(&self) -> Vec<String> {
        self.known.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(dataset: &str, model: &str) -> v1::Assignment {
        let manifest = |digest: &str| Some(v1::ObjectRef { digest: digest.to_owned(), size_bytes: 1 });
        v1::Assignment { dataset: manifest(dataset), model: manifest(model), ..v1::Assignment::default() }
    }

    #[test]
    fn what_was_read_last_comes_first_and_inputs_of_a_failed_task_are_not_listed() {
        let mut cached = Cached::new(2);
        cached.started(0, &reads("a", "m"));
        cached.started(1, &reads("b", "m"));
        cached.ended(1, &Outcome::Succeeded(v1::TaskSucceeded::default()));
        cached.ended(0, &Outcome::Crashed("killed".into()));
        assert_eq!(cached.list(), ["m", "b"]);
        for number in 0..=MAX_CACHED_MANIFESTS {
            cached.started(0, &reads(&number.to_string(), "m"));
            cached.ended(0, &Outcome::Succeeded(v1::TaskSucceeded::default()));
        }
        assert_eq!((cached.list().len(), cached.list()[0].as_str()), (MAX_CACHED_MANIFESTS, "m"));
    }
}
