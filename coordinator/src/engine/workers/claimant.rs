//! A worker that asks for tasks.

use sortinghat_proto::{WorkerId, v1};

use crate::{engine::context::bounded, queue::Capabilities};

/// The worker that a claim is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claimant {
    pub(crate) id: WorkerId,
    pub(crate) host: String,
    pub(crate) capabilities: Capabilities,
}

impl Claimant {
    /// The worker with this id, as its message describes it.
    pub(crate) fn new(id: WorkerId, description: &v1::WorkerDescription) -> Self {
        Self { id, host: bounded(description.host.clone()), capabilities: description.into() }
    }
}
