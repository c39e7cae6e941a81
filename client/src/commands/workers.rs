use crate::{
    exit::Exit,
    failure::Failure,
    session::{Session, print_line},
    show::{json, numbers::ago, table},
};

pub(super) async fn run(session: &Session) -> Result<Exit, Failure> {
    let workers = session.connect().await?.list_workers().await?;
    if session.json() {
        workers.iter().for_each(|worker| session.print_json(&json::worker(worker)));
        return Ok(Exit::Ok);
    }
    if workers.is_empty() {
        session.hint("no worker was heard of lately: `hat up` starts one here, and `sortinghat-worker run` anywhere");
        return Ok(Exit::Ok);
    }
    let rows: Vec<[String; 6]> = workers
        .into_iter()
        .map(|worker| {
            let about = worker.description.unwrap_or_default();
            let slots = about.slots as usize;
            let running = match (worker.running_tasks.len(), worker.draining) {
                (0, false) => "idle".to_owned(),
                (tasks, false) if tasks > slots => format!("{slots} of {slots}, {} ahead", tasks - slots),
                (tasks, false) => format!("{tasks} of {slots}"),
                (tasks, true) => format!("{tasks}, draining"),
            };
            [worker.id, about.host, about.device, running, ago(worker.last_seen_unix_ms), about.device_reason]
        })
        .collect();
    table::columns(["worker", "host", "device", "runs", "heard", "why this device"], &rows)
        .iter()
        .for_each(|line| print_line(line));
    Ok(Exit::Ok)
}
