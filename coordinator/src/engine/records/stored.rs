//! The content of the records, and the format in which they are stored.
//!
//! A record is JSON with a version in front, so that a person can read it during an incident. An old reader ignores fields that it does not
//! know, and a new field has a default. A field with its default value is not written, which more than halves the record of a queued job.
//! Messages of the contract are stored inside a record as protobuf, which has the same properties.

use std::ops::Range;

use bytes::Bytes;
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use sortinghat_proto::{
    Digest, JobId, JobKind, Labels, Lane, Name, ObjectRef, Requirements, Retention, TaskId, Tenant, VersionedName,
    time::UnixMs,
    v1::{self, ErrorCode},
};

use super::rank::{Demand, QueueName, Rank};
use crate::{
    engine::error::EngineError,
    queue::{Division, Phase, Role, Task, TaskCounts, wire},
};

/// The version that is written, and the only one that can be read. Version 1, in which the fields of a job were not grouped, was never
/// released.
const FORMAT_VERSION: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    v: u32,
    record: T,
}

/// Encodes a record.
pub(crate) fn encode<T: Serialize>(record: &T) -> Bytes {
    let envelope = Envelope { v: FORMAT_VERSION, record };
    serde_json::to_vec(&envelope).expect("records have string keys only").into()
}

/// Decodes a record. An unreadable record is an error that names it: a guess would lose jobs.
pub(crate) fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, EngineError> {
    let corrupt = |reason: String| EngineError::Unreadable { key: key.to_owned(), reason };
    let other_version = |v: u32| {
        let advice = if v > FORMAT_VERSION { "upgrade this software" } else { "begin with an empty store" };
        corrupt(format!("it has version {v}, and this software knows {FORMAT_VERSION}: {advice}"))
    };
    match serde_json::from_slice::<Envelope<T>>(bytes) {
        Ok(Envelope { v: FORMAT_VERSION, record }) => Ok(record),
        Ok(Envelope { v, .. }) => Err(other_version(v)),
        // A record of another version may have a different shape. If so, its version is the better explanation.
        Err(error) => match serde_json::from_slice::<Envelope<IgnoredAny>>(bytes) {
            Ok(Envelope { v, .. }) if v != FORMAT_VERSION => Err(other_version(v)),
            Ok(_) | Err(_) => Err(corrupt(error.to_string())),
        },
    }
}

/// A job together with its task, since nearly all jobs consist of one task. The record changes with every event of the job's history.
///
/// A new field goes into the group that it belongs to and has a default: a trace context is part of the links. An old reader ignores such a field, and a new reader finds its default in an old record.
#[serde_with::apply(_ => #[serde(default, skip_serializing_if = "wire::is_default")])]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct JobRecord {
    #[serde_with(skip_apply)]
    pub(crate) id: JobId,
    #[serde_with(skip_apply)]
    pub(crate) tenant: Tenant,
    #[serde_with(skip_apply)]
    pub(crate) kind: JobKind,
    #[serde_with(skip_apply)]
    pub(crate) created: UnixMs,
    #[serde_with(skip_apply)]
    pub(crate) request: JobRequest,
    #[serde_with(skip_apply)]
    pub(crate) progress: JobProgress,
    pub(crate) links: JobLinks,
}

/// What was asked for. It does not change, with one exception: an input that a parent makes becomes an artifact when the parent has
/// succeeded.
#[serde_with::apply(_ => #[serde(default, skip_serializing_if = "wire::is_default")])]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct JobRequest {
    /// The spec, with defaults filled in and names resolved to versions.
    #[serde_with(skip_apply)]
    #[serde(with = "wire")]
    pub(crate) spec: v1::JobSpec,
    /// Where the dataset that the spec names comes from.
    pub(crate) dataset: Option<Input>,
    /// Where the model that the spec names comes from.
    pub(crate) model: Option<Input>,
    pub(crate) priority: i32,
    pub(crate) lane: Lane,
    pub(crate) requirements: Requirements,
    /// Empty for none.
    pub(crate) idempotency_key: String,
    /// The job must not start before this time.
    pub(crate) not_before: Option<UnixMs>,
    /// The job fails if it has not ended by this time.
    pub(crate) deadline: Option<UnixMs>,
    /// For the submitter's own use.
    pub(crate) labels: Labels,
    /// How long the job is kept after its end.
    pub(crate) retention: Retention,
}

/// How far the job has come.
#[serde_with::apply(_ => #[serde(default, skip_serializing_if = "wire::is_default")])]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct JobProgress {
    /// When the first attempt started.
    pub(crate) started: Option<UnixMs>,
    pub(crate) finished: Option<UnixMs>,
    /// The job's tasks by phase. Once all shards of a divided job have ended badly, they count as one task.
    #[serde_with(skip_apply)]
    pub(crate) counts: TaskCounts,
    /// The task that decides the state of the job: the whole job, or the finish of a divided job. While the shards of a divided job run, it
    /// is still the task that counted the job's items.
    #[serde_with(skip_apply)]
    pub(crate) task: TaskRecord,
    #[serde(with = "wire::optional")]
    pub(crate) failure: Option<v1::Failure>,
    #[serde(with = "wire::optional")]
    pub(crate) output: Option<v1::JobOutput>,
    /// The newest attempts, the oldest of them first.
    pub(crate) attempts: Vec<StoredAttempt>,
    /// The sequence of the newest event.
    #[serde_with(skip_apply)]
    pub(crate) last_event: u64,
    /// The newest events, the oldest of them first. Older events are in history pages.
    pub(crate) recent_events: Vec<EventRecord>,
    /// The job is being stopped, because its user has cancelled it or its deadline has passed.
    pub(crate) cancel_requested: bool,
    /// The job's shards, if the job was too large for one task.
    pub(crate) shards: Option<ShardStage>,
    /// The job has ended, and its user has deleted it. Nobody is shown it any more, and it is forgotten as soon as that is possible.
    pub(crate) deleted: bool,
}

/// The jobs that this job is related to.
#[serde_with::apply(_ => #[serde(default, skip_serializing_if = "wire::is_default")])]
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct JobLinks {
    /// The jobs that must succeed before this one starts.
    pub(crate) parents: Vec<JobId>,
    /// Another job has named this job as a parent.
    pub(crate) has_children: bool,
    /// The job that this job is a retry of.
    pub(crate) retry_of: Option<JobId>,
    /// The newest retry of this job.
    pub(crate) retried_as: Option<JobId>,
}

impl JobRecord {
    /// The job's state, derived from its tasks.
    pub(crate) fn state(&self) -> v1::JobState {
        match self.open_shards() {
            Some(_) => v1::JobState::Running,
            None => self.progress.counts.job_state(),
        }
    }

    /// The job's shards, as long as they decide the state of the job.
    pub(crate) fn open_shards(&self) -> Option<&ShardStage> {
        self.progress.shards.as_ref().filter(|stage| !stage.over)
    }

    /// How the job is divided into shards, if it is.
    pub(crate) fn division(&self) -> Option<Division> {
        self.progress.shards.as_ref().map(|stage| stage.division)
    }

    /// The indexes of the tasks of the job's shards, whether or not these tasks exist yet.
    pub(crate) fn shard_indexes(&self) -> Range<u32> {
        self.division().map_or(0..0, |division| division.shard_index(0)..division.finish_index())
    }

    /// The role of a task of the job.
    pub(crate) fn role(&self, task: &TaskId) -> Role {
        Role::of(task.index(), self.division())
    }

    /// The sequence of the newest event in a history page; 0 if there is no page.
    pub(crate) fn last_paged_event(&self) -> u64 {
        self.progress.last_event - self.progress.recent_events.len() as u64
    }

    /// What a worker must meet to run a task of the job.
    pub(crate) fn demand(&self) -> Demand<'_> {
        Demand { tenant: &self.tenant, requirements: &self.request.requirements }
    }

    /// The queue in which the job's ready tasks wait, and their place in it.
    pub(crate) fn rank(&self) -> Rank {
        let JobRequest { lane, requirements, priority, .. } = &self.request;
        let queue = QueueName { lane: *lane, tenant: self.tenant.clone(), requirements: requirements.clone() };
        Rank { queue, enqueued: self.created, priority: *priority, kind: self.kind }
    }

    /// Whether the job has ended. Its state does not change any more.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state(), v1::JobState::Succeeded | v1::JobState::Failed | v1::JobState::Cancelled)
    }
}

/// An attempt as a job shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredAttempt(#[serde(with = "wire")] pub(crate) v1::Attempt);

/// Where a dataset or a model that a job reads comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Input {
    /// An artifact. The job keeps the manifest, even after the artifact's name was removed.
    Artifact {
        /// The name, such as `stamps@1` or `stamps/1`.
        name: String,
        /// The artifact's manifest.
        manifest: ObjectRef,
    },
    /// The future output of a parent. It is replaced by the artifact once the parent has succeeded, so that the parent can be forgotten.
    Parent(JobId),
}

impl Input {
    /// Replaces the input by the output of `parent`, if the input waits for that parent.
    fn take_over(&mut self, parent: &JobRecord) {
        let Some(output) = parent.progress.output.as_ref().filter(|_| *self == Self::Parent(parent.id.clone())) else {
            return;
        };
        if let Some(Ok(manifest)) = output.manifest.clone().map(ObjectRef::try_from) {
            *self = Self::Artifact { name: output.name.clone(), manifest };
        }
    }
}

/// Replaces those inputs of a job that wait for `parent` by the output of `parent`.
pub(crate) fn hand_over<'a>(inputs: impl IntoIterator<Item = &'a mut Option<Input>>, parent: &JobRecord) {
    inputs.into_iter().flatten().for_each(|input| input.take_over(parent));
}

/// The progress of a divided job from the creation of its shards to their end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardStage {
    pub(crate) division: Division,
    /// How many shards have a task: shards 0 up to this number.
    pub(crate) created: u32,
    /// How many shards were told to stop, if the job is being stopped: shards 0 up to this number.
    pub(crate) told: u32,
    /// The states of the shards, as of the newest event.
    pub(crate) tally: ShardTally,
    /// Every shard has ended. The job has gone on to its finish, or has ended too.
    pub(crate) over: bool,
}

/// The shards by their state. Shards that are not counted here wait for a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardTally {
    pub(crate) running: u32,
    pub(crate) succeeded: u32,
    pub(crate) failed: u32,
    pub(crate) cancelled: u32,
    /// The items of the shards that have succeeded.
    pub(crate) items: u64,
}

impl ShardTally {
    /// How many shards have ended.
    pub(crate) fn ended(self) -> u32 {
        self.succeeded + self.failed + self.cancelled
    }
}

/// The record that all shards of a job share. Every change of a shard checks its version. The job's own record changes with every event, so
/// checking that record would make the shards conflict with each other. This record changes at most once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ShardsRecord {
    pub(crate) stop: Option<Stop>,
}

/// The order to stop a divided job: no shard starts any more, running shards stop, and then the job ends for this reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stop(#[serde(with = "wire")] pub(crate) v1::Failure);

impl Stop {
    /// How the job ends.
    pub(crate) fn phase(&self) -> Phase {
        if self.0.code() == ErrorCode::Cancelled { Phase::Cancelled } else { Phase::Failed }
    }
}

/// A task and its newest attempt. A shard's task is a record of its own. Any other task is a part of its job's record.
#[serde_with::apply(_ => #[serde(default, skip_serializing_if = "wire::is_default")])]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskRecord {
    #[serde_with(skip_apply)]
    pub(crate) task: Task,
    pub(crate) events: AttemptEvents,
    /// The host of the worker that claimed the newest attempt.
    pub(crate) host: String,
    /// Which events a shard has handed over to its job. Unused for other tasks.
    pub(crate) handed_over: HandedOver,
}

impl TaskRecord {
    /// A task without an attempt.
    pub(crate) fn new(task: Task) -> Self {
        Self { task, events: AttemptEvents::default(), host: String::new(), handed_over: HandedOver::default() }
    }
}

/// Which of its events a shard has handed over to its job.
#[serde_with::apply(_ => #[serde(default, skip_serializing_if = "wire::is_default")])]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandedOver {
    /// How many events were handed over.
    pub(crate) number: u64,
    /// The time of the newest of them. It never goes back, so that the keys of the events sort in the order in which the events happened.
    pub(crate) time: UnixMs,
}

/// What is recorded of the events of the newest attempt.
#[serde_with::apply(_ => #[serde(default, skip_serializing_if = "wire::is_default")])]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AttemptEvents {
    /// Events up to this sequence need not be reported again.
    pub(crate) acknowledged: u64,
    /// How many events were recorded in the job's history.
    pub(crate) recorded: u64,
    /// How many of the recorded events are log lines.
    pub(crate) log_lines: u64,
    /// How many events were dropped because a limit was reached.
    pub(crate) dropped: u64,
}

/// An event of a job's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EventRecord(#[serde(with = "wire")] pub(crate) v1::JobEvent);

/// A page of a job's history: successive events. The sequence of the last one is a part of the page's key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct HistoryPage(pub(crate) Vec<EventRecord>);

/// The job that was accepted under an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AcceptedRecord {
    pub(crate) job: JobId,
    /// The digest of the submission as it was sent.
    pub(crate) submission: Digest,
}

/// The records that a forgotten job may have left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemainsRecord {
    /// The job's shards, by the index of their tasks.
    pub(crate) shards: Range<u32>,
    /// The pages of the job's history, by the sequence of their last event.
    pub(crate) history: Range<u64>,
}

/// An immutable artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ArtifactRecord {
    pub(crate) name: VersionedName,
    pub(crate) manifest: ObjectRef,
    pub(crate) job: JobId,
    pub(crate) created: UnixMs,
    pub(crate) summary: String,
}

/// Whom the session of a worker process belongs to. Only a message from this identity and with this secret is the worker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    /// The `id` of the caller's token.
    pub(crate) identity: Name,
    /// The hash of the secret that the process has drawn.
    pub(crate) secret: Digest,
    /// When the session may be forgotten, unless it is written again.
    pub(crate) until: UnixMs,
}

/// The newest version of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastVersionRecord {
    pub(crate) version: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_an_old_reader_does_not_know_is_ignored() {
        let read: LastVersionRecord =
            decode("k", br#"{"v":2,"record":{"version":3,"added_later":true}}"#).expect("readable");
        assert_eq!(read.version, 3);
    }

    #[test]
    fn a_field_with_its_default_value_is_not_written_but_may_be_present() {
        let record = TaskRecord::new(Task::new("01m8dn5s3363va110ctm0zmhvr.0".parse().expect("a task id"), false));
        let written = br#"{"v":2,"record":{"task":{"id":"01m8dn5s3363va110ctm0zmhvr.0","state":{"ready":{}}}}}"#;
        assert_eq!(encode(&record), written.as_slice());
        assert_eq!(decode::<TaskRecord>("k", written).expect("readable"), record);
        let in_full = br#"{"v":2,"record":{"task":{"id":"01m8dn5s3363va110ctm0zmhvr.0","state":{"ready":{"not_before":null}},
            "last_epoch":0,"attempts":0,"deaths":0,"memory_failures":0,"transient_failures":0,"failing_since":null,"returns":0,
            "reported_epoch":0,"checkpoint":null,"cancel_requested":false,"not_before":null,"overdue":false},
            "events":{"acknowledged":0,"recorded":0,"log_lines":0,"dropped":0},"host":"","handed_over":{"number":0,"time":0}}}"#;
        assert_eq!(decode::<TaskRecord>("k", in_full).expect("readable"), record);
        decode::<TaskRecord>("k", br#"{"v":2,"record":{"host":"a"}}"#)
            .expect_err("a field without a default must be present");
    }

    #[test]
    fn a_record_of_another_version_is_refused_by_name_and_with_what_to_do() {
        for (version, advice) in [(1, "empty store"), (3, "upgrade")] {
            let bytes = format!(r#"{{"v":{version},"record":{{"version":3}}}}"#);
            let error =
                decode::<LastVersionRecord>("last-model:local:a", bytes.as_bytes()).expect_err("unknown version");
            let message = error.to_string();
            assert!(message.contains("last-model:local:a") && message.contains(advice), "{message}");
        }
    }

    #[test]
    fn a_message_inside_a_record_survives_encoding_and_decoding() {
        let event = v1::JobEvent {
            sequence: 7,
            event: Some(v1::job_event::Event::Log(v1::LogLine { text: "a line".into() })),
            ..v1::JobEvent::default()
        };
        let bytes = encode(&EventRecord(event.clone()));
        assert_eq!(decode::<EventRecord>("k", &bytes).expect("readable").0, event);
    }
}
