//! Messages as JSON, for programs. Every field has the name that it has in the .proto files; enums are lower-case words.

mod event;
mod explanation;
mod spec;

use serde_json::{Value, json};
use sortinghat_proto::v1::{
    self, Attempt, Dataset, Failure, Job, JobOutput, Model, Progress, Queue, TaskProgress, Worker,
};

use super::job::{kind_word, outcome_word, state_word};
use crate::failure::code_word;

pub(crate) use event::event;
pub(crate) use explanation::explanation;

/// An object that also says of which type it is.
pub(crate) fn tagged(kind: &str, mut value: Value) -> Value {
    value["type"] = kind.into();
    value
}

pub(crate) fn job(job: &Job) -> Value {
    json!({
        "id": job.id,
        "kind": kind_word(job),
        "state": state_word(job.state()),
        "spec": job.spec.as_ref().map(spec::spec),
        "failure": job.failure.as_ref().map(failure),
        "output": job.output.as_ref().map(output),
        "parents": job.parents,
        "priority": job.priority,
        "idempotency_key": job.idempotency_key,
        "created_unix_ms": job.created_unix_ms,
        "started_unix_ms": job.started_unix_ms,
        "finished_unix_ms": job.finished_unix_ms,
        "attempts": job.attempts.iter().map(attempt).collect::<Vec<_>>(),
        "progress": job.progress.as_ref().map(progress),
        "cancel_requested": job.cancel_requested,
        "lane": word(job.lane().as_str_name(), "LANE_"),
        "requirements": job.requirements.as_ref().map(requirements),
        "tasks": job.tasks.as_ref().map(tasks),
        "not_before_unix_ms": job.not_before_unix_ms,
        "deadline_unix_ms": job.deadline_unix_ms,
        "retry_of": job.retry_of,
    })
}

/// A job whose record the coordinator cannot read.
pub(crate) fn unreadable_job(id: &str) -> Value {
    json!({"id": id, "state": "unreadable"})
}

fn requirements(requirements: &v1::Requirements) -> Value {
    json!({
        "device_kind": requirements.device_kind, "min_memory_bytes": requirements.min_memory_bytes,
        "min_device_memory_bytes": requirements.min_device_memory_bytes, "labels": requirements.labels,
    })
}

pub(crate) fn queue(queue: &Queue) -> Value {
    let counts = queue.counts.iter().map(|count| (state_word(count.state()).to_owned(), count.jobs.into()));
    json!({
        "counts": Value::Object(counts.collect()), "paused_since_unix_ms": queue.paused_since_unix_ms,
        "oldest_queued_unix_ms": queue.oldest_queued_unix_ms, "cancellations": queue.cancellations,
    })
}

pub(crate) fn progress(progress: &Progress) -> Value {
    json!({ "phase": progress.phase, "done": progress.done, "total": progress.total, "unit": progress.unit })
}

fn tasks(tasks: &TaskProgress) -> Value {
    json!({
        "total": tasks.total, "running": tasks.running, "succeeded": tasks.succeeded, "failed": tasks.failed,
        "cancelled": tasks.cancelled,
    })
}

fn attempt(attempt: &Attempt) -> Value {
    json!({
        "task": attempt.task, "number": attempt.number, "worker_id": attempt.worker_id, "host": attempt.host, "epoch": attempt.epoch,
        "started_unix_ms": attempt.started_unix_ms, "finished_unix_ms": attempt.finished_unix_ms,
        "outcome": outcome_word(attempt.outcome()), "failure": attempt.failure.as_ref().map(failure),
    })
}

fn failure(failure: &Failure) -> Value {
    json!({
        "class": word(failure.failure_class().as_str_name(), "FAILURE_CLASS_"),
        "code": code_word(failure.code()), "field": failure.field, "message": failure.message,
    })
}

fn output(output: &JobOutput) -> Value {
    json!({ "name": output.name, "manifest": output.manifest.as_ref().map(object), "summary": output.summary })
}

fn object(object: &v1::ObjectRef) -> Value {
    json!({ "digest": object.digest, "size_bytes": object.size_bytes })
}

pub(crate) fn dataset(dataset: &Dataset) -> Value {
    json!({
        "name": dataset.name, "object": dataset.manifest.as_ref().map(object), "job_id": dataset.job_id,
        "created_unix_ms": dataset.created_unix_ms, "summary": dataset.summary,
    })
}

pub(crate) fn model(model: &Model) -> Value {
    json!({
        "name": model.name, "object": model.manifest.as_ref().map(object), "job_id": model.job_id,
        "created_unix_ms": model.created_unix_ms, "summary": model.summary,
    })
}

pub(crate) fn worker(worker: &Worker) -> Value {
    let about = worker.description.clone().unwrap_or_default();
    json!({
        "id": worker.id, "host": about.host, "version": about.version, "device": about.device,
        "device_reason": about.device_reason, "slots": about.slots, "threads": about.threads,
        "memory_bytes": about.memory_bytes, "device_memory_bytes": about.device_memory_bytes, "labels": about.labels,
        "running_tasks": worker.running_tasks, "last_seen_unix_ms": worker.last_seen_unix_ms, "draining": worker.draining,
    })
}

/// "TTA_RECIPE_MAX" as "max".
fn word(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase()
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::v1::{JobState, job_spec::Kind};

    use super::*;

    #[test]
    fn a_job_has_its_words_and_its_nested_output() {
        let manifest = Some(v1::ObjectRef { digest: "ab".into(), size_bytes: 3 });
        let shown = job(&Job {
            id: "01".into(),
            state: JobState::Succeeded.into(),
            spec: Some(v1::JobSpec { kind: Some(Kind::Evaluate(v1::EvaluateSpec { tta: 3, ..Default::default() })) }),
            output: Some(JobOutput { name: "a@1".into(), manifest, summary: String::new() }),
            attempts: vec![Attempt { outcome: 3, ..Default::default() }, Attempt::default()],
            ..Default::default()
        });
        assert_eq!((&shown["state"], &shown["kind"]), (&json!("succeeded"), &json!("evaluate")));
        assert_eq!((&shown["spec"]["tta"], &shown["output"]["manifest"]["digest"]), (&json!("max"), &json!("ab")));
        assert_eq!(
            (&shown["attempts"][0]["outcome"], &shown["attempts"][1]["outcome"]),
            (&json!("crashed"), &json!("running"))
        );
        assert_eq!(shown["failure"], Value::Null);
    }
}
