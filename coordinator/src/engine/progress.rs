//! How far running attempts have come: ephemeral, replaced by what is newer, and never stored.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

use sortinghat_proto::{JobId, v1};
use tokio::sync::watch;

/// The newest progress of each running job.
#[derive(Debug)]
pub(super) struct ProgressBoard {
    jobs: Mutex<HashMap<JobId, v1::Progress>>,
    /// Counts changes, so that watchers wake.
    changes: watch::Sender<u64>,
}

impl Default for ProgressBoard {
    fn default() -> Self {
        Self { jobs: Mutex::default(), changes: watch::channel(0).0 }
    }
}

impl ProgressBoard {
    /// Replaces a job's progress.
    pub(super) fn set(&self, job: &JobId, progress: v1::Progress) {
        let before = self.jobs().insert(job.clone(), progress.clone());
        if before.as_ref() != Some(&progress) {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Forgets a job whose attempt has ended.
    pub(super) fn clear(&self, job: &JobId) {
        self.jobs().remove(job);
    }

    /// A job's newest progress.
    pub(super) fn of(&self, job: &JobId) -> Option<v1::Progress> {
        self.jobs().get(job).cloned()
    }

    /// Changes whenever any progress does.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, v1::Progress>> {
        self.jobs.lock().expect("no holder of the progress panics")
    }
}
