//! The sessions that this process has seen in the store, so that a worker's next message costs no read.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use sortinghat_proto::{Digest, Name, WorkerId};
use tokio::time::Instant;

/// For how long the store is not asked again. It is far below the time for which it keeps a session.
const TRUSTED: Duration = Duration::from_secs(3_600);

/// What the id of a worker is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) identity: Name,
    /// The hash of the secret. The secret itself is kept by the worker alone.
    pub(crate) secret: Digest,
}

/// The bindings that were read or written lately.
#[derive(Debug, Default)]
pub(crate) struct Bindings(Mutex<HashMap<WorkerId, (Binding, Instant)>>);

impl Bindings {
    /// What a worker is bound to; `None` if the store has to be asked.
    pub(crate) fn of(&self, worker: &WorkerId) -> Option<Binding> {
        let known = self.0.lock();
        known.get(worker).filter(|(_, since)| since.elapsed() < TRUSTED).map(|(binding, _)| binding.clone())
    }

    /// How many other workers an identity has.
    pub(crate) fn others_of(&self, identity: &Name, worker: &WorkerId) -> usize {
        let known = self.0.lock();
        known.iter().filter(|(other, (binding, _))| *other != worker && binding.identity == *identity).count()
    }

    /// Notes what the store says.
    pub(crate) fn note(&self, worker: &WorkerId, binding: Binding) {
        self.0.lock().insert(worker.clone(), (binding, Instant::now()));
    }

    /// Forgets the workers for which `is_known` is false.
    pub(crate) fn keep(&self, is_known: impl Fn(&WorkerId) -> bool) {
        self.0.lock().retain(|worker, _| is_known(worker));
    }
}
