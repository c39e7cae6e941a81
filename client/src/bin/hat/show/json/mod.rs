//! Messages as JSON, for programs: as their descriptors tell, with a few fields shaped by hand.

mod event;
mod explanation;

use serde_json::{Value, json};
use sortinghat_proto::{
    json::object,
    v1::{self, Attempt, Dataset, Failure, Job, Model, Progress, Queue, Worker},
    words::job_state,
};

use super::job::{kind_word, outcome_word};

pub(crate) use event::event;
pub(crate) use explanation::explanation;

/// An object that also says of which type it is.
pub(crate) fn tagged(kind: &str, mut value: Value) -> Value {
    value["type"] = kind.into();
    value
}

pub(crate) fn job(job: &Job) -> Value {
    let mut shown = object(job);
    shown["kind"] = kind_word(job).into();
    shown["state"] = job_state(job.state()).into();
    shown["spec"] = job.spec.as_ref().map(spec).into();
    shown["failure"] = job.failure.as_ref().map(failure).into();
    shown["attempts"] = job.attempts.iter().map(attempt).collect();
    shown["last_failed_attempt"] = job.last_failed_attempt.as_ref().map(attempt).into();
    shown
}

/// What a job shall do; `null` if this version does not know its kind.
fn spec(spec: &v1::JobSpec) -> Value {
    // Each kind is a field of this message, and bears the name of the kind.
    spec.job_kind().map_or(Value::Null, |kind| object(spec)[kind.as_str()].take())
}

/// A job whose record the coordinator cannot read.
pub(crate) fn unreadable_job(id: &str) -> Value {
    json!({"id": id, "state": "unreadable"})
}

pub(crate) fn queue(queue: &Queue) -> Value {
    let counts = queue.counts.iter().map(|count| (job_state(count.state()).to_owned(), count.jobs.into()));
    let mut shown = object(queue);
    shown["counts"] = Value::Object(counts.collect());
    shown
}

pub(crate) fn progress(progress: &Progress) -> Value {
    object(progress)
}

fn attempt(attempt: &Attempt) -> Value {
    let mut shown = object(attempt);
    shown["outcome"] = outcome_word(attempt.outcome()).into();
    shown["failure"] = attempt.failure.as_ref().map(failure).into();
    shown
}

fn failure(failure: &Failure) -> Value {
    let Failure { field, message, .. } = failure;
    let class = object(failure)["failure_class"].take();
    json!({ "class": class, "code": failure.code().word(), "field": field, "message": message })
}

pub(crate) fn dataset(dataset: &Dataset) -> Value {
    named(object(dataset))
}

pub(crate) fn model(model: &Model) -> Value {
    named(object(model))
}

/// A dataset or a model: "object" refers to its manifest, because "manifest" is the content.
fn named(mut shown: Value) -> Value {
    if let Some(fields) = shown.as_object_mut() {
        let manifest = fields.remove("manifest");
        fields.insert("object".to_owned(), manifest.into());
    }
    shown
}

/// Who the caller is.
pub(crate) fn identity(identity: &v1::WhoAmIResponse) -> Value {
    object(identity)
}

/// A worker, with its description in the same object.
pub(crate) fn worker(worker: &Worker) -> Value {
    let mut shown = object(worker);
    if let Some(fields) = shown.as_object_mut() {
        fields.remove("description");
        if let Value::Object(about) = object(&worker.description.clone().unwrap_or_default()) {
            fields.extend(about);
        }
    }
    shown
}
