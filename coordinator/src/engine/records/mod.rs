//! The records of the queue: what is stored, under which keys, and how it is read and written.
//!
//! Every other room reads and writes records through [`Records`]. [`keys`] is the only file that spells the names of records, indexes,
//! counters and topics. [`stored`] is the only file that says what a record holds. [`JobRecord`] is the record that nearly everything else
//! is about.
//!
//! The room owns no state of its own.

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
pub(crate) use rank::{Demand, QueueName, Rank};
pub(crate) use read::{Records, Versioned, decode_readable, expectation};
pub(crate) use stored::{
    AcceptedRecord, ArtifactRecord, AttemptEvents, EventRecord, HistoryPage, Input, JobLinks, JobProgress, JobRecord,
    JobRequest, LastVersionRecord, RemainsRecord, SessionRecord, ShardStage, ShardTally, ShardsRecord, Stop,
    StoredAttempt, TaskRecord, decode, encode, hand_over,
};
