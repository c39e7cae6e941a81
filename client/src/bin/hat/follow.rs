//! Follows a job live, until the job ends or Ctrl-C detaches `hat` from it.

use std::{mem::Discriminant, pin::pin, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use sortinghat_client::{Client, Submission, Update, UploadProgress};
use sortinghat_proto::v1::{
    Attempt, AttemptOutcome, EpochMetrics, ExplainJobResponse, FailureClass, Job, JobEvent, JobState, NoticeLevel,
    Progress, explain_job_response::Reason, job_event::Event,
};

use crate::{
    exit::Exit,
    failure::Failure,
    output::Output,
    session::Session,
    show::{
        job::task_word,
        json::{self, tagged},
        line::{print_json, print_line},
        table,
    },
    unsubmitted::Unsubmitted,
};

/// A job that starts within this time needs no explanation.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the server is asked why the job still waits.
const ASK_AGAIN: Duration = Duration::from_secs(5);
const SPIN: Duration = Duration::from_millis(120);

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

/// Submits a job and follows it, unless `--detach` is given. Its result is to be saved to `out`.
pub(crate) async fn submit(
    session: &Session,
    client: &Client,
    job: Submission,
    unsubmitted: Unsubmitted,
    out: Option<&Output>,
) -> Result<Followed, Failure> {
    unsubmitted.submitting();
    let job = client.submit(&job).await?;
    drop(unsubmitted);
    submitted(session, client, job, out).await
}

/// Follows a job that was just submitted, unless `--detach` is given.
pub(crate) async fn submitted(
    session: &Session,
    client: &Client,
    job: Job,
    out: Option<&Output>,
) -> Result<Followed, Failure> {
    if session.detach() {
        session.answer(|| json::job(&job), || vec![job.id.clone()]);
        if out.is_some() {
            session.hint(&format!("`{}` saves its result", session.watch_command(&job.id, out)));
        }
        return Ok(Followed::Left(Exit::Ok));
    }
    follow(session, client, job, out).await
}

/// Follows a job from its beginning.
pub(crate) async fn follow(
    session: &Session,
    client: &Client,
    job: Job,
    out: Option<&Output>,
) -> Result<Followed, Failure> {
    if session.json() {
        print_json(&tagged("submitted", json::job(&job)));
    } else if session.shows_progress() {
        session.hint(&format!("job {}", job.id));
    }
    let mut screen = Screen::new(session);
    let mut watch = client.watch(&job.id, 0);
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let mut why = pin!(ask_why(client, &job.id, PATIENCE));
    loop {
        let update = tokio::select! {
            _ = &mut interrupt => {
                screen.clear();
                let (watch, cancel) = (session.watch_command(&job.id, out), session.command(&format!("jobs cancel {}", job.id)));
                session.hint(&format!("detached: the job goes on; `{watch}` follows it again, `{cancel}` cancels it"));
                return Ok(Followed::Left(Exit::Detached));
            }
            update = watch.next() => update?,
            explained = &mut why, if screen.waits => {
                why.set(ask_why(client, &job.id, ASK_AGAIN));
                explained.iter().for_each(|explained| screen.why(&job.id, explained));
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

fn is_waiting(state: JobState) -> bool {
    matches!(state, JobState::Blocked | JobState::Queued)
}

/// Asks the server after `pause` why the job waits. If there is no answer, the watch tells that the server is gone.
async fn ask_why(client: &Client, job: &str, pause: Duration) -> Option<ExplainJobResponse> {
    tokio::time::sleep(pause).await;
    client.explain_job(job).await.ok()
}

/// A progress bar of an upload on standard error. It goes when it is dropped.
pub(crate) struct UploadBar(ProgressBar);

impl UploadBar {
    pub(crate) fn new(session: &Session) -> Self {
        Self(new_bar(session))
    }

    pub(crate) fn show(&self, progress: UploadProgress) {
        let (phase, done, total) = match progress {
            UploadProgress::Hashed { done, total } => ("read", done, total),
            UploadProgress::Sent { done, total } => ("upload", done, total),
        };
        set_bar(&self.0, phase, done, total, "files");
    }
}

impl Drop for UploadBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// What a person sees while a job runs: rows on standard output and a progress bar on standard error.
struct Screen<'a> {
    session: &'a Session,
    bar: ProgressBar,
    table_begun: bool,
    last_epoch: Option<EpochMetrics>,
    /// Whether the job waits for something.
    waits: bool,
    /// Why it waited when the server was asked last.
    reason: Option<Discriminant<Reason>>,
}

impl<'a> Screen<'a> {
    fn new(session: &'a Session) -> Self {
        Self { session, bar: new_bar(session), table_begun: false, last_epoch: None, waits: false, reason: None }
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn event(&mut self, event: &JobEvent) {
        if let Some(Event::EpochFinished(metrics)) = &event.event {
            self.last_epoch = Some(*metrics);
        }
        if self.session.json() {
            print_json(&json::event(event));
            return;
        }
        match &event.event {
            Some(Event::StateChanged(change)) => self.state(change.state()),
            Some(Event::AttemptEnded(attempt)) => self.attempt_ended(attempt),
            Some(Event::EpochFinished(metrics)) => self.epoch(metrics),
            Some(Event::Notice(notice)) => self.bar.suspend(|| match notice.level() {
                NoticeLevel::Warning => self.session.warn(&notice.message),
                NoticeLevel::Info | NoticeLevel::Unspecified => self.session.hint(&notice.message),
            }),
            Some(Event::AttemptStarted(_) | Event::Log(_)) | None => {}
        }
    }

    fn state(&mut self, state: JobState) {
        self.waits = is_waiting(state);
        let shown = match state {
            JobState::Blocked | JobState::Queued => "it waits",
            JobState::Running => "a worker runs it",
            JobState::Unspecified | JobState::Succeeded | JobState::Failed | JobState::Cancelled => return,
        };
        set_spinner(&self.bar, shown);
    }

    /// Shows why the job waits. Where no progress is shown, each new reason is said once.
    fn why(&mut self, job: &str, explained: &ExplainJobResponse) {
        if self.session.json() || !is_waiting(explained.state()) {
            return;
        }
        let reason = explained.reason.as_ref().map(std::mem::discriminant);
        let is_new = std::mem::replace(&mut self.reason, reason) != reason;
        if self.session.shows_progress() {
            set_spinner(&self.bar, &explained.sentence);
        } else if is_new {
            self.session.hint(&format!("job {job}: {}", explained.sentence));
        }
    }

    /// Says why an attempt failed. A failure that is the user's fault is left out, because it ends the job, and the command then reports it.
    fn attempt_ended(&self, attempt: &Attempt) {
        let failure = attempt.failure.clone().unwrap_or_default();
        let how = match attempt.outcome() {
            AttemptOutcome::Failed if failure.failure_class() == FailureClass::User => return,
            AttemptOutcome::Failed => "failed",
            AttemptOutcome::Crashed => "crashed",
            AttemptOutcome::Lost => "was lost",
            AttemptOutcome::Returned | AttemptOutcome::Succeeded | AttemptOutcome::Cancelled => return,
            AttemptOutcome::Unspecified => return,
        };
        let why = if failure.message.is_empty() { String::new() } else { format!(": {}", failure.message) };
        let text = format!("{}attempt {} on {} {how}{why}", task_word(attempt), attempt.number, attempt.host);
        self.bar.suspend(|| self.session.warn(&text));
    }

    fn epoch(&mut self, metrics: &EpochMetrics) {
        let header = (!self.table_begun).then_some(table::EPOCH_HEADER);
        self.table_begun = true;
        self.bar.suspend(|| {
            header.into_iter().for_each(print_line);
            print_line(&table::epoch_row(metrics));
        });
    }

    fn progress(&self, progress: &Progress) {
        if self.session.json() {
            print_json(&tagged("progress", json::progress(progress)));
        } else {
            set_bar(&self.bar, &progress.phase, progress.done, progress.total, &progress.unit);
        }
    }

    fn interrupted(&self) {
        self.bar.suspend(|| self.session.warn("the connection to the server was lost; hat tries again"));
    }
}

fn new_bar(session: &Session) -> ProgressBar {
    if !session.shows_progress() || session.json() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(SPIN);
    bar
}

fn set_spinner(bar: &ProgressBar, message: &str) {
    bar.set_style(ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}").expect("a valid template"));
    bar.set_message(message.to_owned());
}

fn set_bar(bar: &ProgressBar, phase: &str, done: u64, total: u64, unit: &str) {
    if total == 0 {
        set_spinner(bar, &format!("{phase}: {done} {unit}"));
        return;
    }
    if bar.length() != Some(total) || bar.message() != phase {
        let template = format!("{{msg:10}} [{{bar:32}}] {{pos}}/{{len}} {unit}  {{elapsed}}, {{eta}} left");
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        bar.set_length(total);
        bar.set_message(phase.to_owned());
        bar.reset_eta();
    }
    bar.set_position(done);
}
