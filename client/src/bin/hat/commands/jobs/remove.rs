use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use sortinghat_client::is_final;
use sortinghat_proto::v1::Job;

use super::cancel::CALLS_AT_A_TIME;
use crate::{exit::Exit, failure::Failure, session::Session};

/// Removes jobs that have ended, by their ids. With `erase`, their photos and results go at once.
pub(super) async fn run(session: &Session, ids: &[String], erase: bool) -> Result<Exit, Failure> {
    let (client, _) = session.connect_to_change().await?;
    // All jobs are looked up before the first is removed, so that a mistyped id, or a job that runs, removes nothing.
    let found: Vec<_> = ids.iter().map(|id| client.find_job(id)).collect();
    let jobs: Vec<Job> = stream::iter(found).buffered(CALLS_AT_A_TIME).try_collect().await?;
    if let Some(job) = jobs.iter().find(|job| !is_final(job.state())) {
        let cancel = session.command(&format!("jobs cancel {}", job.id));
        return Err(Failure::usage(format!(
            "job {} has not ended, and nothing was removed: `{cancel}` stops it",
            job.id
        )));
    }
    let mut within = Duration::ZERO;
    for job in &jobs {
        let removed = if erase { client.erase_job(&job.id).await? } else { client.delete_job(&job.id).await? };
        within = within.max(Duration::from_millis(removed.objects_gone_within_ms));
        session.answer(|| json!({ "removed": job.id }), || vec![format!("job {} is removed", job.id)]);
    }
    // The time is a bound, of which nobody needs the seconds.
    let within = humantime::format_duration(Duration::from_secs(within.as_secs().max(1)));
    session.hint(&format!("the server removes photos and results to which nothing else refers within {within}"));
    Ok(Exit::Ok)
}
