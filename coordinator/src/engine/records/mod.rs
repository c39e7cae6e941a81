//! What is stored, under which names, and how it is read.
//!
//! Every other room reads and writes records through this room. [`keys`] is the only file that spells a name, and [`stored`] the only one that
//! says what a record holds.

mod failures;
mod filter;
pub(crate) mod keys;
mod paging;
mod rank;
mod read;
mod stored;

pub(crate) use failures::Failures;
pub(crate) use filter::JobFilter;
pub(crate) use paging::{bad_token, page_size};
pub(crate) use rank::{QueueName, Rank};
pub(crate) use read::{Records, Versioned, decode_readable, expectation};
pub(crate) use stored::{
    AcceptedRecord, ArtifactRecord, AttemptEvents, EventRecord, HistoryPage, Input, JobLinks, JobProgress, JobRecord,
    JobRequest, LastVersionRecord, RemainsRecord, ShardStage, ShardTally, ShardsRecord, Stop, StoredAttempt,
    TaskRecord, decode, encode, hand_over,
};
