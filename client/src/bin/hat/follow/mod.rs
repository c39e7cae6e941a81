//! Follows a job live, until the job ends or Ctrl-C detaches `hat` from it.

mod estimate;
mod screen;
mod transfer;

use std::{pin::pin, time::Duration};

use sortinghat_client::{Client, Submission, Update};
use sortinghat_proto::v1::{EpochMetrics, ExplainJobResponse, Job};

use crate::{
    exit::Exit,
    failure::Failure,
    output::Aim,
    session::Session,
    show::{
        job::title,
        json::{self, tagged},
        line::print_json,
    },
    unsubmitted::Unsubmitted,
};
pub(crate) use screen::FilesBar;
use screen::Screen;

/// A job that starts within this time needs no explanation.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the server is asked why the job still waits.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// How the following of a job ended.
pub(crate) enum Followed {
    /// The job has ended.
    Ended {
        /// The job as it is at its end.
        job: Box<Job>,
        /// The last row of the table of training, if there is one.
        last_epoch: Option<EpochMetrics>,
    },
    /// The job goes on, but `hat` ends with this code.
    Left(Exit),
}

/// Submits a job and follows it, unless `--detach` is given. `aim` is what shall become of its result.
pub(crate) async fn submit(
    session: &Session,
    client: &Client,
    job: Submission,
    unsubmitted: Unsubmitted,
    aim: Aim<'_>,
) -> Result<Followed, Failure> {
    unsubmitted.submitting().await;
    let job = client.submit(&job).await?;
    drop(unsubmitted);
    submitted(session, client, job, aim).await
}

/// Follows a job that was just submitted, unless `--detach` is given.
pub(crate) async fn submitted(session: &Session, client: &Client, job: Job, aim: Aim<'_>) -> Result<Followed, Failure> {
    if session.detach() {
        session.answer(|| json::job(&job), || vec![job.id.clone()]);
        let way = session.way_back(&job.id, aim);
        match aim {
            Aim::Tell => {}
            Aim::Save(_) => session.hint(&format!("`{way}` saves its result")),
            Aim::Sort(_) => session.hint(&format!("`{way}` sorts by its result")),
        }
        return Ok(Followed::Left(Exit::Ok));
    }
    follow(session, client, job, aim).await
}

/// Follows a job from its beginning.
pub(crate) async fn follow(session: &Session, client: &Client, job: Job, aim: Aim<'_>) -> Result<Followed, Failure> {
    if session.json() {
        print_json(&tagged("submitted", json::job(&job)));
    } else {
        session.hint(&format!("job {}: {}", job.id, title(&job)));
    }
    let mut screen = Screen::new(session, &job);
    let mut watch = client.watch(&job.id, 0);
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let mut why = pin!(ask_why(client, &job.id, PATIENCE));
    loop {
        let update = tokio::select! {
            _ = &mut interrupt => {
                screen.clear();
                let (way, cancel) = (session.way_back(&job.id, aim), session.command(&format!("jobs cancel {}", job.id)));
                session.hint(&format!("detached: the job goes on; `{way}` follows it again, `{cancel}` cancels it"));
                return Ok(Followed::Left(Exit::Detached));
            }
            update = watch.next() => update?,
            explained = &mut why, if screen.waits => {
                why.set(ask_why(client, &job.id, ASK_AGAIN));
                explained.iter().for_each(|explained| screen.why(explained));
                continue;
            }
        };
        match update {
            None => break,
            Some(Update::Event(event)) => screen.event(&event),
            Some(Update::Progress(progress)) => screen.progress(&progress),
            Some(Update::UpToDate) => {}
            Some(Update::Interrupted { .. }) => screen.interrupted(),
        }
    }
    screen.clear();
    tokio::select! {
        _ = &mut interrupt => Ok(Followed::Left(Exit::Detached)),
        ended = client.get_job(&job.id) => {
            Ok(Followed::Ended { job: Box::new(ended?), last_epoch: screen.last_epoch })
        }
    }
}

/// Asks the server after `pause` why the job waits. If there is no answer, the watch tells that the server is gone.
async fn ask_why(client: &Client, job: &str, pause: Duration) -> Option<ExplainJobResponse> {
    tokio::time::sleep(pause).await;
    client.explain_job(job).await.ok()
}
