//! How things look: wire values and manifests as lines for people and as JSON for programs. Nothing here talks to a server, and only
//! [`line`](mod@line) prints.

pub(crate) mod audit;
pub(crate) mod dataset;
pub(crate) mod evaluation;
pub(crate) mod gathered;
pub(crate) mod identity;
pub(crate) mod job;
pub(crate) mod json;
pub(crate) mod line;
pub(crate) mod model;
pub(crate) mod numbers;
pub(crate) mod paper;
pub(crate) mod prediction;
pub(crate) mod progress;
pub(crate) mod queue;
pub(crate) mod sorting;
pub(crate) mod table;
pub(crate) mod training;
pub(crate) mod worker;

pub(crate) use sortinghat_proto::plain;

#[cfg(test)]
mod tests;
