//! A submission: what a user asks for, validated.

use std::collections::BTreeSet;

use prost::Message as _;
use sortinghat_proto::{
    Digest, JobId, JobSpec, Labels, Lane, Refusal, Requirements, Retention, Tenant,
    limits::{MAX_IDEMPOTENCY_KEY_BYTES, MAX_PARENTS, MAX_PRIORITY},
    time::UnixMs,
    v1,
};

use crate::engine::records::QueueName;

/// A job to be accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// Two submissions with the same key and content return the same job. Empty for no key.
    pub idempotency_key: String,
    /// What to do.
    pub spec: JobSpec,
    /// The jobs that must succeed first, in addition to those that the spec names.
    pub parents: Vec<JobId>,
    /// From -10 to 10. A job with a higher priority goes first.
    pub priority: i32,
    /// The lane to wait in.
    pub lane: Lane,
    /// What a worker must have.
    pub requirements: Requirements,
    /// The job must not start before this time.
    pub not_before: Option<UnixMs>,
    /// The job fails if it has not ended by this time, which is later than `not_before`.
    pub deadline: Option<UnixMs>,
    /// For the submitter's own use.
    pub labels: Labels,
    /// How long the job is kept after its end.
    pub retention: Retention,
}

/// The idempotency key of a submission, and the content that must be the same under the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Acceptance {
    /// Empty for no key.
    pub(crate) key: String,
    /// The digest of everything but the key, as it was sent.
    pub(crate) digest: Digest,
}

/// Refuses a text that cannot be an idempotency key.
pub(super) fn check_key(key: &str) -> Result<(), Refusal> {
    let is_visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    if is_visible && key.len() <= MAX_IDEMPOTENCY_KEY_BYTES {
        return Ok(());
    }
    let message = format!("an idempotency key is at most {MAX_IDEMPOTENCY_KEY_BYTES} visible ASCII characters");
    Err(Refusal::invalid("idempotency_key", message))
}

impl TryFrom<v1::SubmitJobRequest> for Submission {
    type Error = Refusal;

    fn try_from(wire: v1::SubmitJobRequest) -> Result<Self, Refusal> {
        check_key(&wire.idempotency_key)?;
        if wire.priority.abs_diff(0) > MAX_PRIORITY.unsigned_abs() {
            let message = format!("priority must be -{MAX_PRIORITY} to {MAX_PRIORITY}, not {}", wire.priority);
            return Err(Refusal::invalid("priority", message));
        }
        if wire.parents.len() > MAX_PARENTS {
            let message = format!("{} parents are more than {MAX_PARENTS}", wire.parents.len());
            return Err(Refusal::invalid("parents", message));
        }
        let parents: Result<BTreeSet<JobId>, Refusal> = wire.parents.iter().map(|id| id.parse()).collect();
        let parents = parents.map_err(|refusal: Refusal| refusal.at("parents"))?;
        let lane = v1::Lane::try_from(wire.lane)
            .map_err(|_| Refusal::invalid("lane", format!("{} is not a lane", wire.lane)))?;
        let not_before = UnixMs::from_wire(wire.not_before_unix_ms, "not_before_unix_ms")?;
        let deadline = UnixMs::from_wire(wire.deadline_unix_ms, "deadline_unix_ms")?;
        if deadline.zip(not_before).is_some_and(|(deadline, not_before)| deadline <= not_before) {
            let message = "the deadline must be later than not_before_unix_ms, the time at which the job may start";
            return Err(Refusal::invalid("deadline_unix_ms", message));
        }
        let spec = wire.spec.ok_or_else(|| Refusal::invalid("spec", "a job needs a spec"))?;
        Ok(Self {
            idempotency_key: wire.idempotency_key,
            spec: spec.try_into()?,
            parents: parents.into_iter().collect(),
            priority: wire.priority,
            lane: lane.into(),
            requirements: wire.requirements.unwrap_or_default().try_into()?,
            not_before,
            deadline,
            labels: wire.labels.try_into()?,
            retention: Retention::from_wire(wire.keep_for_ms, wire.keep)?,
        })
    }
}

impl Submission {
    /// The ready queue in which the tasks of the job will wait.
    pub(crate) fn queue(&self, tenant: &Tenant) -> QueueName {
        QueueName { lane: self.lane, tenant: tenant.clone(), requirements: self.requirements.clone() }
    }

    /// The key, and the digest of everything else as it was sent. Names are not resolved before, so a request for the newest version stays
    /// the same request when there is a newer version.
    pub(super) fn acceptance(&self) -> Acceptance {
        let (keep_for_ms, keep) = self.retention.to_wire();
        let request = v1::SubmitJobRequest {
            idempotency_key: String::new(),
            spec: Some(self.spec.clone().into()),
            parents: self.parents.iter().map(ToString::to_string).collect(),
            priority: self.priority,
            lane: v1::Lane::from(self.lane).into(),
            requirements: self.requirements.clone().into_wire(),
            not_before_unix_ms: self.not_before.map_or(0, UnixMs::to_wire),
            deadline_unix_ms: self.deadline.map_or(0, UnixMs::to_wire),
            labels: self.labels.clone().into(),
            keep_for_ms,
            keep,
        };
        Acceptance { key: self.idempotency_key.clone(), digest: Digest::of(&request.encode_to_vec()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_out_of_bounds_is_refused_with_its_field() {
        let spec = v1::JobSpec {
            kind: Some(v1::job_spec::Kind::Finetune(v1::FinetuneSpec { dataset: "a".into(), ..Default::default() })),
        };
        let good = v1::SubmitJobRequest { spec: Some(spec), ..v1::SubmitJobRequest::default() };
        Submission::try_from(good.clone()).expect("valid");
        let no_device = v1::Requirements { device_kind: "abacus".into(), ..v1::Requirements::default() };
        let cases = [
            ("idempotency_key", v1::SubmitJobRequest { idempotency_key: "a b".into(), ..good.clone() }),
            ("idempotency_key", v1::SubmitJobRequest { idempotency_key: "a".repeat(129), ..good.clone() }),
            ("priority", v1::SubmitJobRequest { priority: 11, ..good.clone() }),
            ("priority", v1::SubmitJobRequest { priority: i32::MIN, ..good.clone() }),
            ("lane", v1::SubmitJobRequest { lane: 9, ..good.clone() }),
            ("requirements.device_kind", v1::SubmitJobRequest { requirements: Some(no_device), ..good.clone() }),
            ("parents", v1::SubmitJobRequest { parents: vec!["x".into()], ..good.clone() }),
            ("parents", v1::SubmitJobRequest { parents: vec![String::new(); 65], ..good.clone() }),
            ("not_before_unix_ms", v1::SubmitJobRequest { not_before_unix_ms: -1, ..good.clone() }),
            ("deadline_unix_ms", v1::SubmitJobRequest { not_before_unix_ms: 7, deadline_unix_ms: 7, ..good.clone() }),
            ("labels", v1::SubmitJobRequest { labels: [("us er".into(), "42".into())].into(), ..good.clone() }),
            ("keep_for_ms", v1::SubmitJobRequest { keep_for_ms: u64::MAX, ..good.clone() }),
            ("spec", v1::SubmitJobRequest { spec: None, ..good }),
        ];
        for (field, request) in cases {
            assert_eq!(Submission::try_from(request).expect_err(field).field, field);
        }
    }
}
