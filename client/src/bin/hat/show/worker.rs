//! Workers in a table.

use sortinghat_proto::v1::Worker;

use super::{
    numbers::ago,
    paper::Paper,
    table::{self, Cell, Fit},
};

/// A table with a row for each worker, and below it why some of them cannot work, which decode photos without all of the sandbox, and what
/// it costs to serve one tenant after the other.
pub(crate) fn table(workers: Vec<Worker>, now_unix_ms: i64, paper: Paper) -> Vec<String> {
    let about: [fn(&Worker) -> Option<String>; 3] = [trouble, exposure, switch];
    let notes: Vec<String> = about.iter().flat_map(|about| workers.iter().filter_map(about)).collect();
    let rows: Vec<[Cell; 6]> = workers.into_iter().map(|worker| row(worker, now_unix_ms).map(Cell::from)).collect();
    let header = [
        ("worker", Fit::Middle),
        ("host", Fit::Middle),
        ("device", Fit::Whole),
        ("runs", Fit::Whole),
        ("heard", Fit::Whole),
        ("why this device", Fit::Prose),
    ];
    let mut lines = table::fitted(header, &rows, paper);
    lines.extend(notes.iter().flat_map(|note| table::prose(note, paper)));
    lines
}

/// Why a worker cannot work, with as much detail as the server tells this caller; `None` if it can.
pub(crate) fn trouble(worker: &Worker) -> Option<String> {
    let health = worker.health.as_ref().filter(|health| !health.is_able)?;
    let host = host(worker);
    let why = if health.detail.is_empty() { &health.reason } else { &health.detail };
    Some(format!("{host} cannot work: {why}"))
}

/// What is missing of a worker's sandbox; `None` if nothing is, or if the worker does not say.
fn exposure(worker: &Worker) -> Option<String> {
    let about = worker.description.as_ref().filter(|about| !matches!(about.sandbox.as_str(), "" | "on"))?;
    Some(format!("{} has its sandbox {}", host(worker), about.sandbox))
}

/// How long the worker takes to begin for another tenant, with a process of its own; `None` if it has not done that yet.
fn switch(worker: &Worker) -> Option<String> {
    let took_ms = worker.description.as_ref().map(|about| about.tenant_switch_ms).filter(|took_ms| *took_ms > 0)?;
    Some(format!("{} takes {:.1} s to begin for another tenant", host(worker), f64::from(took_ms) / 1000.0))
}

/// The machine, as a message names it. A user is not told the name of a worker that serves other tenants as well.
fn host(worker: &Worker) -> &str {
    let host = worker.description.as_ref().map(|about| about.host.as_str()).filter(|host| !host.is_empty());
    host.unwrap_or("a shared worker")
}

fn row(worker: Worker, now_unix_ms: i64) -> [String; 6] {
    let about = worker.description.unwrap_or_default();
    let slots = about.slots as usize;
    let is_unable = worker.health.as_ref().is_some_and(|health| !health.is_able);
    let running = match (worker.running_tasks.len(), worker.draining) {
        (0, false) if is_unable => "cannot work".to_owned(),
        (0, false) => "idle".to_owned(),
        (tasks, false) if tasks > slots => format!("{slots} of {slots}, {} ahead", tasks - slots),
        (tasks, false) => format!("{tasks} of {slots}"),
        (tasks, true) => format!("{tasks}, draining"),
    };
    let heard = ago(worker.last_seen_unix_ms, now_unix_ms);
    // A user is not told the name of a worker that serves other tenants as well.
    let named = |name: String| if name.is_empty() { "shared".to_owned() } else { name };
    [named(worker.id), named(about.host), about.device, running, heard, about.device_reason]
}
