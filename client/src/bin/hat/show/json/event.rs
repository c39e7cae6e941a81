use serde_json::{Value, json};
use sortinghat_proto::v1::{EpochMetrics, JobEvent, job_event::Event};

use super::{attempt, failure, output, word};
use crate::show::job::state_word;

/// An event of a job's history: "event" names the field that holds the details.
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

fn epoch(metrics: &EpochMetrics) -> Value {
    json!({
        "frozen": metrics.frozen, "epoch": metrics.epoch, "train_loss": metrics.train_loss,
        "valid_loss": metrics.valid_loss, "accuracy": metrics.accuracy, "valid_photos": metrics.valid_photos,
        "duration_ms": metrics.duration_ms,
    })
}
