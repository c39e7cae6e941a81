//! Workers in a table.

use sortinghat_proto::v1::Worker;

use super::{numbers::ago, table};

/// A table with a row for each worker.
pub(crate) fn table(workers: Vec<Worker>, now_unix_ms: i64) -> Vec<String> {
    let rows: Vec<[String; 6]> = workers.into_iter().map(|worker| row(worker, now_unix_ms)).collect();
    table::columns(["worker", "host", "device", "runs", "heard", "why this device"], &rows)
}

fn row(worker: Worker, now_unix_ms: i64) -> [String; 6] {
    let about = worker.description.unwrap_or_default();
    let slots = about.slots as usize;
    let running = match (worker.running_tasks.len(), worker.draining) {
        (0, false) => "idle".to_owned(),
        (tasks, false) if tasks > slots => format!("{slots} of {slots}, {} ahead", tasks - slots),
        (tasks, false) => format!("{tasks} of {slots}"),
        (tasks, true) => format!("{tasks}, draining"),
    };
    let heard = ago(worker.last_seen_unix_ms, now_unix_ms);
    [worker.id, about.host, about.device, running, heard, about.device_reason]
}
