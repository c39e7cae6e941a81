//! A worker that asks for tasks, and which tasks it may run.

use sortinghat_proto::{WorkerId, v1};

use crate::{
    auth::{Caller, Served},
    engine::{context::bounded, records::Demand},
    queue::Capabilities,
};

/// What decides which tasks a worker may run: the tenants that its identity serves, and what its machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ability {
    pub(crate) serves: Served,
    pub(crate) capabilities: Capabilities,
}

impl Ability {
    /// Whether a task that demands this may be run.
    pub(crate) fn meets(&self, demand: Demand<'_>) -> bool {
        self.serves.has(demand.tenant) && self.capabilities.meet(demand.requirements)
    }
}

/// The worker that a claim is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claimant {
    pub(crate) id: WorkerId,
    pub(crate) host: String,
    pub(crate) ability: Ability,
}

impl Claimant {
    /// The worker with this id, as its message describes it. The message came from this caller.
    pub(crate) fn new(id: WorkerId, caller: &Caller, description: &v1::WorkerDescription) -> Self {
        let ability = Ability { serves: caller.serves.clone(), capabilities: description.into() };
        Self { id, host: bounded(description.host.clone()), ability }
    }
}
