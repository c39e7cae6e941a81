//! Follows a job live, until the job ends or Ctrl-C detaches `hat` from it.

use std::{pin::pin, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use sortinghat_client::{Client, Submission, Update, UploadProgress};
use sortinghat_proto::v1::{
    Attempt, AttemptOutcome, EpochMetrics, FailureClass, Job, JobEvent, JobState, NoticeLevel, Progress,
    job_event::Event,
};

use crate::{
    exit::Exit,
    failure::Failure,
    session::Session,
    show::{
        job::task_word,
        json::{self, tagged},
        line::{print_json, print_line},
        table,
    },
};

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

/// Submits a job and follows it, unless `--detach` is given.
pub(crate) async fn submit(session: &Session, client: &Client, job: Submission) -> Result<Followed, Failure> {
    let job = client.submit(&job).await?;
    submitted(session, client, job).await
}

/// Follows a job that was just submitted, unless `--detach` is given.
pub(crate) async fn submitted(session: &Session, client: &Client, job: Job) -> Result<Followed, Failure> {
    if session.detach() {
        session.answer(|| json::job(&job), || vec![job.id.clone()]);
        return Ok(Followed::Left(Exit::Ok));
    }
    follow(session, client, job).await
}

/// Follows a job from its beginning.
pub(crate) async fn follow(session: &Session, client: &Client, job: Job) -> Result<Followed, Failure> {
    if session.json() {
        print_json(&tagged("submitted", json::job(&job)));
    } else if session.shows_progress() {
        session.hint(&format!("job {}", job.id));
    }
    let mut screen = Screen::new(session);
    let mut watch = client.watch(&job.id, 0);
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    loop {
        let update = tokio::select! {
            _ = &mut interrupt => {
                screen.clear();
                session.hint(&format!("detached: the job goes on; `hat jobs watch {0}` follows it again, `hat jobs cancel {0}` cancels it", job.id));
                return Ok(Followed::Left(Exit::Detached));
            }
            update = watch.next() => update?,
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
}

impl<'a> Screen<'a> {
    fn new(session: &'a Session) -> Self {
        Self { session, bar: new_bar(session), table_begun: false, last_epoch: None }
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

    fn state(&self, state: JobState) {
        let waits_for = match state {
            JobState::Blocked => "waits for other jobs",
            JobState::Queued => "waits for a worker (`hat jobs why ID` says why)",
            JobState::Running => "a worker runs it",
            JobState::Unspecified | JobState::Succeeded | JobState::Failed | JobState::Cancelled => return,
        };
        set_spinner(&self.bar, waits_for);
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
