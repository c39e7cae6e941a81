//! The contract between client, coordinator and worker: gRPC messages, the validated types they are parsed into, the
//! documents that are stored as objects, and every limit. No I/O.
//!
//! Messages arrive as [`v1`] types, are parsed at the edge ([`JobSpec::try_from`](JobSpec)) and are total from there on.

mod byte_count;
mod error;
mod ids;
pub mod json;
mod keeping;
mod kinds;
pub mod layout;
pub mod limits;
pub mod manifest;
mod names;
pub mod plain;
pub mod protocol;
mod scheduling;
pub mod secrets;
mod spec;
pub mod time;
pub mod words;

/// Generated from `sortinghat/v1/*.proto`, where every message and field is documented.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines, reason = "generated, documented there")]
pub mod v1 {
    tonic::include_proto!("sortinghat.v1");
}

/// The messages between a worker and its executor process.
pub mod executor {
    /// Generated from `sortinghat/executor/v1/executor.proto`, where every message and field is documented.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines, reason = "generated, documented there")]
    pub mod v1 {
        tonic::include_proto!("sortinghat.executor.v1");
    }
}

pub use byte_count::ByteCount;
pub use error::{Refusal, Violation, failure_of_status, retry_after};
pub use ids::{Digest, JobId, TaskId, Tenant, WorkerId};
pub use keeping::{Labels, Retention};
pub use kinds::{JobKind, JobSpec};
pub use names::{ArtifactKind, DatasetRef, ModelRef, Name, VersionedName};
pub use scheduling::{DeviceKind, Label, Lane, Requirements};
pub(crate) use spec::class_name_fault;
pub use spec::*;

/// The encoded descriptor set of every .proto file, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The encoded descriptor set of the messages that the details of a status consist of, beside ours, for gRPC reflection.
pub use tonic_types::pb::FILE_DESCRIPTOR_SET as STATUS_DESCRIPTORS;
