//! What is stored, and in which format.
//!
//! Records are JSON with a version in front: they can be read by a person in the middle of an incident, an old reader ignores
//! fields that it does not know, and a new field has a default. What has its default is not written, which more than halves a queued job.
//! Messages of the contract lie inside as protobuf, which has the same properties.

use std::ops::Range;

use bytes::Bytes;
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use sortinghat_proto::{
    Digest, JobId, JobKind, Lane, ObjectRef, Refusal, Requirements, TaskId, Tenant, VersionedName,
    time::UnixMs,
    v1::{self, ErrorCode},
};

use super::keys::{QueueName, Rank};
use crate::queue::{Division, Phase, Role, Task, TaskCounts, wire};

/// The version that is written, and the newest that can be read.
const FORMAT_VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    v: u32,
    record: T,
}

/// Encodes a record.
pub(super) fn encode<T: Serialize>(record: &T) -> Bytes {
    let envelope = Envelope { v: FORMAT_VERSION, record };
    serde_json::to_vec(&envelope).expect("records have string keys only").into()
}

/// Decodes a record. An unreadable one is an error that names it: guessing would lose jobs.
pub(super) fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, Refusal> {
    let corrupt = |reason: String| Refusal::new(ErrorCode::Internal, format!("record {key} cannot be read: {reason}"));
    let too_new = |v: u32| corrupt(format!("it has version {v}, this software knows {FORMAT_VERSION}: upgrade it"));
    match serde_json::from_slice::<Envelope<T>>(bytes) {
        Ok(Envelope { v, record }) if v <= FORMAT_VERSION => Ok(record),
        Ok(Envelope { v, .. }) => Err(too_new(v)),
        // A newer record need not even look like ours; then its version is what there is to say.
        Err(error) => match serde_json::from_slice::<Envelope<IgnoredAny>>(bytes) {
            Ok(Envelope { v, .. }) if v > FORMAT_VERSION => Err(too_new(v)),
            Ok(_) | Err(_) => Err(corrupt(error.to_string())),
        },
    }
}

/// A job and, as nearly all jobs are one task, that task. Changes with every event of its history.
#[serde_with::apply(_ => #[serde(default, skip_serializing_if = "wire::is_default")])]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct JobRecord {
    #[serde_with(skip_apply)]
    pub(super) id: JobId,
    #[serde_with(skip_apply)]
    pub(super) tenant: Tenant,
    #[serde_with(skip_apply)]
    pub(super) kind: JobKind,
    /// With defaults filled in and names pinned.
    #[serde_with(skip_apply)]
    #[serde(with = "wire")]
    pub(super) spec: v1::JobSpec,
    /// Where the dataset that the spec names comes from.
    pub(super) dataset: Option<Input>,
    /// Where the model that the spec names comes from.
    pub(super) model: Option<Input>,
    pub(super) parents: Vec<JobId>,
    pub(super) priority: i32,
    /// Bulk for jobs that were stored before there were lanes.
    pub(super) lane: Lane,
    /// None for jobs that were stored before there were any.
    pub(super) requirements: Requirements,
    pub(super) idempotency_key: String,
    #[serde_with(skip_apply)]
    pub(super) created: UnixMs,
    /// When the first attempt started.
    pub(super) started: Option<UnixMs>,
    pub(super) finished: Option<UnixMs>,
    /// Its tasks by phase; the shards of a divided job, once all have ended badly, as one.
    #[serde_with(skip_apply)]
    pub(super) counts: TaskCounts,
    /// The task that alone decides what becomes of it. While shards do, the one that has counted its items.
    #[serde_with(skip_apply)]
    pub(super) task: TaskRecord,
    #[serde(with = "wire::optional")]
    pub(super) failure: Option<v1::Failure>,
    #[serde(with = "wire::optional")]
    pub(super) output: Option<v1::JobOutput>,
    /// The newest attempts, oldest first.
    pub(super) attempts: Vec<StoredAttempt>,
    /// The sequence of the newest event.
    #[serde_with(skip_apply)]
    pub(super) last_event: u64,
    /// The newest events, oldest first; those before are in pages of their own.
    pub(super) recent_events: Vec<EventRecord>,
    /// It is being stopped: its user wants that, or its deadline has passed.
    pub(super) cancel_requested: bool,
    /// Some job named it as a parent.
    pub(super) has_children: bool,
    /// Its shards, if it was too large for one task.
    pub(super) shards: Option<ShardStage>,
    /// It shall not start before.
    pub(super) not_before: Option<UnixMs>,
    /// It fails if it has not ended by then.
    pub(super) deadline: Option<UnixMs>,
    /// The job that it is a retry of.
    pub(super) retry_of: Option<JobId>,
    /// The newest retry of it.
    pub(super) retried_as: Option<JobId>,
}

impl JobRecord {
    /// Derived from its tasks.
    pub(super) fn state(&self) -> v1::JobState {
        match self.open_shards() {
            Some(_) => v1::JobState::Running,
            None => self.counts.job_state(),
        }
    }

    /// Its shards, as long as they decide what becomes of it.
    pub(super) fn open_shards(&self) -> Option<&ShardStage> {
        self.shards.as_ref().filter(|stage| !stage.over)
    }

    /// How it is divided, if it is.
    pub(super) fn division(&self) -> Option<Division> {
        self.shards.as_ref().map(|stage| stage.division)
    }

    /// The indexes of its shards' tasks, whether or not they exist yet.
    pub(super) fn shard_indexes(&self) -> Range<u32> {
        self.division().map_or(0..0, |division| division.shard_index(0)..division.finish_index())
    }

    /// What a task of it does.
    pub(super) fn role(&self, task: &TaskId) -> Role {
        Role::of(task.index(), self.division())
    }

    /// The sequence of the newest event that is in a page; 0 if none is.
    pub(super) fn last_paged_event(&self) -> u64 {
        self.last_event - self.recent_events.len() as u64
    }

    /// Where its ready tasks wait.
    pub(super) fn rank(&self) -> Rank {
        let queue = QueueName { lane: self.lane, tenant: self.tenant.clone(), requirements: self.requirements.clone() };
        Rank { queue, enqueued: self.created, priority: self.priority, kind: self.kind }
    }

    /// Nothing can happen to it any more.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state(), v1::JobState::Succeeded | v1::JobState::Failed | v1::JobState::Cancelled)
    }
}

/// One attempt as a job shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredAttempt(#[serde(with = "wire")] pub(super) v1::Attempt);

/// Where something that a job reads by name comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Input {
    /// An artifact that existed at submission. The job keeps its manifest, also when the name is removed.
    Artifact {
        /// `stamps@1` or `stamps/1`.
        name: String,
        /// The artifact's manifest.
        manifest: ObjectRef,
    },
    /// What a parent will have made. Becomes an artifact once the parent has succeeded, so that the parent may be forgotten.
    Parent(JobId),
}

impl Input {
    /// Takes over what `parent` has made, if that is what this waits for.
    fn take_over(&mut self, parent: &JobRecord) {
        let Some(output) = parent.output.as_ref().filter(|_| *self == Self::Parent(parent.id.clone())) else { return };
        if let Some(Ok(manifest)) = output.manifest.clone().map(ObjectRef::try_from) {
            *self = Self::Artifact { name: output.name.clone(), manifest };
        }
    }
}

/// Lets the inputs of a job take over what `parent` has made.
pub(super) fn hand_over<'a>(inputs: impl IntoIterator<Item = &'a mut Option<Input>>, parent: &JobRecord) {
    inputs.into_iter().flatten().for_each(|input| input.take_over(parent));
}

/// The shards of a divided job while they are created, run and end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ShardStage {
    pub(super) division: Division,
    /// Shards whose tasks exist: the first ones.
    pub(super) created: u32,
    /// Shards that were told to stop, if they shall: the first ones.
    pub(super) told: u32,
    /// What became of them, as of the newest event.
    pub(super) tally: ShardTally,
    /// Every shard has ended, and the job goes on without them or has ended too.
    pub(super) over: bool,
}

/// Shards by what became of them; those in none of these wait for a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ShardTally {
    pub(super) running: u32,
    pub(super) succeeded: u32,
    pub(super) failed: u32,
    pub(super) cancelled: u32,
    /// Items of those that succeeded.
    pub(super) items: u64,
}

impl ShardTally {
    /// Shards that have ended.
    pub(super) fn ended(self) -> u32 {
        self.succeeded + self.failed + self.cancelled
    }
}

/// What all shards of a job go by. The job's own record changes with every event; this one changes once at most, so that
/// shards do not get in each other's way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ShardsRecord {
    pub(super) stop: Option<Stop>,
}

/// No shard shall start any more, those that run shall stop, and the job ends for this reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Stop(#[serde(with = "wire")] pub(super) v1::Failure);

impl Stop {
    /// How the job ends.
    pub(super) fn phase(&self) -> Phase {
        if self.0.code() == ErrorCode::Cancelled { Phase::Cancelled } else { Phase::Failed }
    }
}

/// A task, and what is known of its newest attempt. A record of its own for shards, else a part of its job's.
#[serde_with::apply(_ => #[serde(default, skip_serializing_if = "wire::is_default")])]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TaskRecord {
    #[serde_with(skip_apply)]
    pub(super) task: Task,
    pub(super) events: AttemptEvents,
    /// The host that the newest attempt was given to.
    pub(super) host: String,
    /// Of a shard: its newest event that was handed over to the job.
    pub(super) handed_over: HandedOver,
}

impl TaskRecord {
    /// A task that nothing has happened to.
    pub(super) fn new(task: Task) -> Self {
        Self { task, events: AttemptEvents::default(), host: String::new(), handed_over: HandedOver::default() }
    }
}

/// Which of a shard's events were handed over to the job.
#[serde_with::apply(_ => #[serde(default, skip_serializing_if = "wire::is_default")])]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HandedOver {
    /// How many.
    pub(super) number: u64,
    /// The time of the newest one. It never goes back, so that the order of their keys is the order in which they happened.
    pub(super) time: UnixMs,
}

/// Which events of the newest attempt are durable.
#[serde_with::apply(_ => #[serde(default, skip_serializing_if = "wire::is_default")])]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AttemptEvents {
    /// Those up to this sequence are.
    pub(super) acknowledged: u64,
    /// How many were recorded.
    pub(super) recorded: u64,
    /// How many of these are log lines.
    pub(super) log_lines: u64,
    /// How many were dropped because a limit was reached.
    pub(super) dropped: u64,
}

/// An event of a job's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct EventRecord(#[serde(with = "wire")] pub(super) v1::JobEvent);

/// Successive events of a job's history, known by the sequence of the last one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct HistoryPage(pub(super) Vec<EventRecord>);

/// What was accepted under an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AcceptedRecord {
    pub(super) job: JobId,
    /// Of the submission as it was sent.
    pub(super) submission: Digest,
}

/// What may be left of a forgotten job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RemainsRecord {
    /// Its shards, by the index of the task.
    pub(super) shards: Range<u32>,
    /// Pages of its history, by the sequence of the last event.
    pub(super) history: Range<u64>,
}

/// An immutable artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ArtifactRecord {
    pub(super) name: VersionedName,
    pub(super) manifest: ObjectRef,
    pub(super) job: JobId,
    pub(super) created: UnixMs,
    pub(super) summary: String,
}

/// The last version that was given under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastVersionRecord {
    pub(super) version: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_an_old_reader_does_not_know_is_ignored() {
        let read: LastVersionRecord =
            decode("k", br#"{"v":1,"record":{"version":3,"added_later":true}}"#).expect("readable");
        assert_eq!(read.version, 3);
    }

    #[test]
    fn what_has_its_default_is_not_written_and_read_whether_or_not_it_is() {
        let record = TaskRecord::new(Task::new("01m8dn5s3363va110ctm0zmhvr.0".parse().expect("a task id"), false));
        let written = br#"{"v":1,"record":{"task":{"id":"01m8dn5s3363va110ctm0zmhvr.0","state":{"ready":{}}}}}"#;
        assert_eq!(encode(&record), written.as_slice());
        assert_eq!(decode::<TaskRecord>("k", written).expect("readable"), record);
        let in_full = br#"{"v":1,"record":{"task":{"id":"01m8dn5s3363va110ctm0zmhvr.0","state":{"ready":{"not_before":null}},
            "last_epoch":0,"attempts":0,"deaths":0,"memory_failures":0,"transient_failures":0,"failing_since":null,"returns":0,
            "reported_epoch":0,"checkpoint":null,"cancel_requested":false,"not_before":null,"overdue":false},
            "events":{"acknowledged":0,"recorded":0,"log_lines":0,"dropped":0},"host":"","handed_over":{"number":0,"time":0}}}"#;
        assert_eq!(decode::<TaskRecord>("k", in_full).expect("readable"), record);
        decode::<TaskRecord>("k", br#"{"v":1,"record":{"host":"a"}}"#).expect_err("what has no default must be there");
    }

    #[test]
    fn a_record_of_a_newer_version_is_refused_by_name() {
        let refusal = decode::<LastVersionRecord>("last-model:local:a", br#"{"v":2,"record":{"version":3}}"#);
        let message = refusal.expect_err("unknown version").message;
        assert!(message.contains("last-model:local:a") && message.contains("upgrade"), "{message}");
    }

    #[test]
    fn messages_inside_a_record_come_back_as_they_were() {
        let event = v1::JobEvent {
            sequence: 7,
            event: Some(v1::job_event::Event::Log(v1::LogLine { text: "a line".into() })),
            ..v1::JobEvent::default()
        };
        let bytes = encode(&EventRecord(event.clone()));
        assert_eq!(decode::<EventRecord>("k", &bytes).expect("readable").0, event);
    }
}
