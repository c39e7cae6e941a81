//! Messages for programs. Every field has the name that it has in the .proto files; enums are lower-case words.

use serde_json::{Value, json};
use sortinghat_proto::v1::{
    self, Attempt, EpochMetrics, Failure, Job, JobEvent, JobOutput, JobState, Progress, Queue, TaskProgress, Worker,
    explain_job_response::Reason, job_event::Event, job_spec::Kind,
};

use crate::failure::code_word;

/// A job's state as a word.
pub(crate) fn state_word(state: JobState) -> &'static str {
    match state {
        JobState::Unspecified => "unknown",
        JobState::Blocked => "blocked",
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

/// The kind of a job as a word.
pub(crate) fn kind_word(job: &Job) -> &'static str {
    match job.spec.as_ref().and_then(|spec| spec.kind.as_ref()) {
        Some(Kind::Ingest(_)) => "ingest",
        Some(Kind::Finetune(_)) => "finetune",
        Some(Kind::Evaluate(_)) => "evaluate",
        Some(Kind::Classify(_)) => "classify",
        None => "unknown",
    }
}

pub(crate) fn job(job: &Job) -> Value {
    json!({
        "id": job.id,
        "kind": kind_word(job),
        "state": state_word(job.state()),
        "spec": job.spec.as_ref().map(spec),
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

/// A job of which the coordinator can say no more.
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

fn spec(spec: &v1::JobSpec) -> Value {
    match &spec.kind {
        Some(Kind::Ingest(s)) => json!({
            "dataset_name": s.dataset_name, "source": s.source.as_ref().map(object),
            "valid_percent": s.valid_percent, "folds": s.folds, "seed": s.seed,
            "allow_failures": s.allow_failures, "derivative_short_side_px": s.derivative_short_side_px,
        }),
        Some(Kind::Finetune(s)) => json!({
            "dataset": s.dataset, "model_name": s.model_name, "backbone": s.backbone, "weights": s.weights,
            "recipe": s.recipe, "epochs": s.epochs, "freeze_epochs": s.freeze_epochs, "base_lr": s.base_lr,
            "batch_size": s.batch_size, "image_size_px": s.image_size_px, "seed": s.seed, "fold": s.fold,
            "precision": word(s.precision().as_str_name(), "PRECISION_"), "find_lr": s.find_lr,
            "mixup_alpha": s.mixup_alpha, "cutmix_alpha": s.cutmix_alpha, "label_smoothing": s.label_smoothing,
            "crop": word(s.crop().as_str_name(), "TRAINING_CROP_"), "min_scale": s.min_scale,
        }),
        Some(Kind::Evaluate(s)) => {
            let (dataset, source) = match &s.on {
                Some(v1::evaluate_spec::On::Dataset(name)) => (Some(name), None),
                Some(v1::evaluate_spec::On::Source(source)) => (None, Some(object(source))),
                None => (None, None),
            };
            json!({
                "model": s.model, "dataset": dataset, "source": source, "seed": s.seed,
                "tta": word(s.tta().as_str_name(), "TTA_RECIPE_"), "tta_passes": s.tta_passes,
                "decisions": s.decisions.as_ref().map(object),
                "precision": word(s.precision().as_str_name(), "PRECISION_"),
            })
        }
        Some(Kind::Classify(s)) => json!({
            "model": s.model, "source": s.source.as_ref().map(object), "top_k": s.top_k, "seed": s.seed,
            "tta": word(s.tta().as_str_name(), "TTA_RECIPE_"), "tta_passes": s.tta_passes,
            "precision": word(s.precision().as_str_name(), "PRECISION_"),
        }),
        None => Value::Null,
    }
}

pub(crate) fn event(event: &JobEvent) -> Value {
    let (kind, body) = match &event.event {
        Some(Event::StateChanged(change)) => (
            "state_changed",
            json!({
                "state": state_word(change.state()),
                "failure": change.failure.as_ref().map(failure),
                "output": change.output.as_ref().map(output),
            }),
        ),
        Some(Event::AttemptStarted(started)) => ("attempt_started", attempt(started)),
        Some(Event::AttemptEnded(ended)) => ("attempt_ended", attempt(ended)),
        Some(Event::EpochFinished(metrics)) => ("epoch_finished", epoch(metrics)),
        Some(Event::Notice(notice)) => {
            let level = word(notice.level().as_str_name(), "NOTICE_LEVEL_");
            ("notice", json!({ "level": level, "message": notice.message }))
        }
        Some(Event::Log(line)) => ("log", json!({ "text": line.text })),
        None => ("unknown", Value::Null),
    };
    json!({ "type": "event", "sequence": event.sequence, "time_unix_ms": event.time_unix_ms, "event": kind, kind: body })
}

/// Why a job is where it is: "reason" names the field that holds the details.
pub(crate) fn explanation(job: &str, explained: &v1::ExplainJobResponse) -> Value {
    let (reason, details) = match &explained.reason {
        Some(Reason::Ended(ended)) => (
            "ended",
            json!({ "finished_unix_ms": ended.finished_unix_ms, "failure": ended.failure.as_ref().map(failure) }),
        ),
        Some(Reason::Runs(runs)) => {
            ("runs", json!({ "attempt": runs.attempt.as_ref().map(attempt), "gives_way": runs.gives_way }))
        }
        Some(Reason::Parents(waits)) => {
            let parents = waits.parents.iter();
            let parents = parents.map(|parent| json!({ "job_id": parent.job_id, "state": state_word(parent.state()) }));
            ("parents", json!({ "parents": parents.collect::<Vec<_>>() }))
        }
        Some(Reason::Backoff(backoff)) => {
            let last = backoff.last_attempt.as_ref().map(attempt);
            ("backoff", json!({ "until_unix_ms": backoff.until_unix_ms, "last_attempt": last }))
        }
        Some(Reason::NoWorker(v1::WaitsForAnyWorker {})) => ("no_worker", json!({})),
        Some(Reason::NoCapableWorker(waits)) => {
            ("no_capable_worker", json!({ "workers": waits.workers.iter().map(shortfalls).collect::<Vec<_>>() }))
        }
        Some(Reason::Turn(turn)) => (
            "turn",
            json!({
                "place": turn.place, "place_is_a_bound": turn.place_is_a_bound, "tenants": turn.tenants,
                "slots": turn.slots, "estimated_wait_ms": turn.estimated_wait_ms,
            }),
        ),
        Some(Reason::NotBefore(waits)) => ("not_before", json!({ "not_before_unix_ms": waits.not_before_unix_ms })),
        Some(Reason::Paused(paused)) => ("paused", json!({ "since_unix_ms": paused.since_unix_ms })),
        None => ("unknown", Value::Null),
    };
    json!({
        "job_id": job, "state": state_word(explained.state()), "sentence": explained.sentence,
        "reason": reason, reason: details,
    })
}

fn shortfalls(worker: &v1::WorkerShortfalls) -> Value {
    let short = worker.shortfalls.iter();
    let short = short.map(|s| json!({ "requirement": s.requirement, "required": s.required, "has": s.has }));
    json!({ "worker_id": worker.worker_id, "host": worker.host, "shortfalls": short.collect::<Vec<_>>() })
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

fn epoch(metrics: &EpochMetrics) -> Value {
    json!({
        "frozen": metrics.frozen, "epoch": metrics.epoch, "train_loss": metrics.train_loss,
        "valid_loss": metrics.valid_loss, "accuracy": metrics.accuracy, "valid_photos": metrics.valid_photos,
        "duration_ms": metrics.duration_ms,
    })
}

fn attempt(attempt: &Attempt) -> Value {
    let outcome = match attempt.outcome() {
        v1::AttemptOutcome::Unspecified => "running".to_owned(),
        other => word(other.as_str_name(), "ATTEMPT_OUTCOME_"),
    };
    json!({
        "task": attempt.task, "number": attempt.number, "worker_id": attempt.worker_id, "host": attempt.host, "epoch": attempt.epoch,
        "started_unix_ms": attempt.started_unix_ms, "finished_unix_ms": attempt.finished_unix_ms,
        "outcome": outcome, "failure": attempt.failure.as_ref().map(failure),
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

pub(crate) fn object(object: &v1::ObjectRef) -> Value {
    json!({ "digest": object.digest, "size_bytes": object.size_bytes })
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
