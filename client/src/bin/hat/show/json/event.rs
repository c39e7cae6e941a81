use serde_json::{Value, json};
use sortinghat_proto::{
    json::object,
    v1::{JobEvent, job_event::Event},
    words::job_state,
};

use super::{attempt, failure};

/// An event of a job's history: "event" names the field that holds the details.
pub(crate) fn event(event: &JobEvent) -> Value {
    let (kind, body) = match &event.event {
        Some(Event::StateChanged(change)) => {
            let mut shown = object(change);
            shown["state"] = job_state(change.state()).into();
            shown["failure"] = change.failure.as_ref().map(failure).into();
            ("state_changed", shown)
        }
        Some(Event::AttemptStarted(started)) => ("attempt_started", attempt(started)),
        Some(Event::AttemptEnded(ended)) => ("attempt_ended", attempt(ended)),
        Some(Event::EpochFinished(metrics)) => ("epoch_finished", object(metrics)),
        Some(Event::Notice(notice)) => ("notice", object(notice)),
        Some(Event::Log(line)) => ("log", object(line)),
        None => ("unknown", Value::Null),
    };
    json!({ "type": "event", "sequence": event.sequence, "time_unix_ms": event.time_unix_ms, "event": kind, kind: body })
}
