//! The reason in words.

use sortinghat_proto::{
    time::UnixMs,
    v1::{self, explain_job_response::Reason},
    words::job_state,
};

use crate::engine::records::JobRecord;

/// How many items a sentence lists.
const NAMED: usize = 3;

/// One sentence about the job, as "it", and without a full stop.
pub(crate) fn of(reason: &Reason, job: &JobRecord, now: UnixMs) -> String {
    match reason {
        Reason::Ended(ended) => match &ended.failure {
            Some(failure) => format!("it has ended: {}: {}", job_state(job.state()), failure.message),
            None => format!("it has ended: {}", job_state(job.state())),
        },
        Reason::Runs(runs) => running(runs, now),
        Reason::Parents(waits) => {
            let parents =
                waits.parents.iter().map(|parent| format!("job {} ({})", parent.job_id, job_state(parent.state())));
            format!("it waits for {}", list(parents.collect()))
        }
        Reason::Backoff(backoff) => {
            let attempt = backoff.last_attempt.clone().unwrap_or_default();
            let why = attempt.failure.map(|failure| failure.message).unwrap_or_default();
            let left = until(backoff.until_unix_ms, now);
            format!("it is tried again {left}, because attempt {} on {} has ended: {why}", attempt.number, attempt.host)
        }
        Reason::NoWorker(v1::WaitsForAnyWorker {}) => {
            "it waits for a worker, and there is none that takes tasks".to_owned()
        }
        Reason::NoCapableWorker(waits) => {
            let workers = waits.workers.iter().map(|worker| format!("{} has {}", host(&worker.host), lacking(worker)));
            format!("no worker has what it requires ({}): {}", job.request.requirements, list(workers.collect()))
        }
        Reason::NoAbleWorker(waits) => {
            let workers = waits.workers.iter().map(|worker| format!("{}: {}", host(&worker.host), worker.reason));
            format!("it waits for a worker that can work, and none can ({})", list(workers.collect()))
        }
        Reason::Turn(turn) => waiting(turn, job),
        Reason::Paused(paused) => {
            let long = since(paused.since_unix_ms, now);
            format!("its queue has been paused for {long}: no job starts until it is resumed")
        }
        Reason::NotBefore(waits) => format!("it may start {}", until(waits.not_before_unix_ms, now)),
    }
}

fn running(runs: &v1::JobRuns, now: UnixMs) -> String {
    let attempt = runs.attempt.clone().unwrap_or_default();
    let span = since(attempt.started_unix_ms, now);
    let gives_way = if runs.gives_way { ", and gives way to a more urgent job at its next checkpoint" } else { "" };
    let trouble = match runs.trouble.as_str() {
        "" => String::new(),
        trouble => format!(", and this worker cannot work now: {trouble}"),
    };
    format!("attempt {} has been running on {} for {span}{gives_way}{trouble}", attempt.number, attempt.host)
}

/// A worker by its host, which is not told of a worker that serves other tenants as well.
fn host(name: &str) -> &str {
    if name.is_empty() { "a shared worker" } else { name }
}

/// What a worker lacks, such as "device cpu (needs cuda) and no label zone (needs eu)".
fn lacking(worker: &v1::WorkerShortfalls) -> String {
    let one = |short: &v1::Shortfall| match short.has.as_str() {
        "" => format!("no {} (needs {})", short.requirement, short.required),
        has => format!("{} {has} (needs {})", short.requirement, short.required),
    };
    worker.shortfalls.iter().map(one).collect::<Vec<_>>().join(" and ")
}

fn waiting(turn: &v1::WaitsForTurn, job: &JobRecord) -> String {
    let bound = if turn.place_is_a_bound { "beyond place" } else { "at place" };
    let slots = if turn.slots == 1 { "1 slot".to_owned() } else { format!("{} slots", turn.slots) };
    let others = match turn.tenants.saturating_sub(1) {
        0 => String::new(),
        1 => ", shared with 1 other tenant".to_owned(),
        others => format!(", shared with {others} other tenants"),
    };
    let estimate = match turn.estimated_wait_ms {
        Some(ms) => format!("about {} to go", span(ms)),
        None => "there is no estimate yet, since no job of this kind, or of a kind ahead of it, has ended since the coordinator started"
            .to_owned(),
    };
    format!("it is {bound} {} in the {} lane for {slots}{others}; {estimate}", turn.place, job.request.lane)
}

fn until(unix_ms: i64, now: UnixMs) -> String {
    let at = UnixMs(u64::try_from(unix_ms).unwrap_or_default());
    match at.ms_since(now) {
        0 => "at any moment".to_owned(),
        ms => format!("in {}", span(ms)),
    }
}

/// How much time has passed since this time.
fn since(unix_ms: i64, now: UnixMs) -> String {
    span(now.ms_since(UnixMs(u64::try_from(unix_ms).unwrap_or_default())))
}

/// A duration as exact as it is useful: "850 ms", "12 s", "4 min", "2 h 5 min".
fn span(ms: u64) -> String {
    let (seconds, minutes) = (ms.div_ceil(1_000), ms.div_ceil(60_000));
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{seconds} s"),
        120_000..7_200_000 => format!("{minutes} min"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

fn list(mut items: Vec<String>) -> String {
    let more = items.len().saturating_sub(NAMED);
    items.truncate(NAMED);
    let named = items.join("; ");
    if more > 0 { format!("{named}; and {more} more") } else { named }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_exact_as_it_is_useful() {
        let shown: Vec<String> = [850, 12_000, 119_001, 240_000, 7_500_000].into_iter().map(span).collect();
        assert_eq!(shown, ["850 ms", "12 s", "120 s", "4 min", "2 h 5 min"]);
    }

    #[test]
    fn a_long_list_names_a_few_items_and_counts_the_others() {
        let items = |n: u32| (0..n).map(|number| number.to_string()).collect();
        assert_eq!((list(items(2)), list(items(5))), ("0; 1".to_owned(), "0; 1; 2; and 2 more".to_owned()));
    }
}
