//! Which worker has the content of which manifests in its cache, as workers report it.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use sortinghat_proto::{Digest, WorkerId};

/// Which worker has the content of which manifests in its cache.
#[derive(Debug, Default)]
pub(crate) struct CacheBoard(Mutex<Board>);

#[derive(Debug, Default)]
struct Board {
    /// The manifests that each worker has reported last.
    reported: HashMap<WorkerId, Vec<String>>,
    holders: HashMap<String, HashSet<WorkerId>>,
}

impl CacheBoard {
    /// Replaces the manifests of a worker by those that it reports.
    pub(crate) fn note(&self, worker: &WorkerId, cached: &[String]) {
        let mut board = self.0.lock();
        if board.reported.get(worker).map_or(&[][..], Vec::as_slice) == cached {
            return;
        }
        board.forget(worker);
        for manifest in cached {
            board.holders.entry(manifest.clone()).or_default().insert(worker.clone());
        }
        board.reported.insert(worker.clone(), cached.to_vec());
    }

    /// Forgets the workers for which `is_known` is false.
    pub(crate) fn keep(&self, is_known: impl Fn(&WorkerId) -> bool) {
        let mut board = self.0.lock();
        let gone: Vec<WorkerId> = board.reported.keys().filter(|worker| !is_known(worker)).cloned().collect();
        gone.iter().for_each(|worker| board.forget(worker));
    }

    /// Finds another worker that has all of these manifests and passes `test`. `None` also if `own`, the worker that asks, has them all
    /// itself.
    pub(crate) fn another_with(
        &self,
        own: &WorkerId,
        manifests: &[Digest],
        test: impl Fn(&WorkerId) -> bool,
    ) -> Option<WorkerId> {
        let board = self.0.lock();
        let holders: Option<Vec<_>> = manifests.iter().map(|manifest| board.holders.get(manifest.as_str())).collect();
        let [first, others @ ..] = holders.as_deref()? else { return None };
        let has_all = |worker: &WorkerId| others.iter().all(|holders| holders.contains(worker));
        if first.contains(own) && has_all(own) {
            return None;
        }
        first.iter().find(|worker| has_all(worker) && test(worker)).cloned()
    }
}

impl Board {
    fn forget(&mut self, worker: &WorkerId) {
        for manifest in self.reported.remove(worker).unwrap_or_default() {
            if let Some(holders) = self.holders.get_mut(&manifest) {
                holders.remove(worker);
                if holders.is_empty() {
                    self.holders.remove(&manifest);
                }
            }
        }
    }
}
