//! What a person sees while a job runs: rows on standard output; on standard error a progress bar, or lines if it is no terminal.

use std::{fmt, mem::Discriminant, time::Duration};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use sortinghat_client::Amount;
use sortinghat_proto::{
    v1::{
        Attempt, AttemptOutcome, EpochMetrics, ExplainJobResponse, FailureClass, Job, JobEvent, JobState, NoticeLevel,
        Progress, explain_job_response::Reason, job_event::Event,
    },
    words::job_state,
};
use tokio::time::Instant;

use super::{
    estimate::{Step, Training},
    transfer::Transfer,
};
use crate::{
    session::Session,
    show::{
        job::task_word,
        json::{self, tagged},
        line::{print_json, print_line},
        plain, progress, table,
    },
};

const SPIN: Duration = Duration::from_millis(120);
/// The length of a bar, of which each step is a share.
const STEPS: u64 = 1_000;

/// A progress bar of work on files, on standard error. It goes when it is dropped.
pub(crate) struct FilesBar {
    session: Session,
    bar: ProgressBar,
    began: Instant,
    step: parking_lot::Mutex<Step>,
    transfer: parking_lot::Mutex<Transfer>,
}

/// What a person sees while a job runs.
pub(super) struct Screen<'a> {
    session: &'a Session,
    bar: ProgressBar,
    began: Instant,
    step: Step,
    training: Option<Training>,
    /// The host of the newest attempt.
    host: String,
    table_begun: bool,
    pub(super) last_epoch: Option<EpochMetrics>,
    /// Whether the job waits for something.
    pub(super) waits: bool,
    /// Why it waited when the server was asked last.
    reason: Option<Discriminant<Reason>>,
}

impl<'a> Screen<'a> {
    pub(super) fn new(session: &'a Session, job: &Job) -> Self {
        Self {
            session,
            bar: new_bar(session),
            began: Instant::now(),
            step: Step::default(),
            training: Training::of(job),
            host: String::new(),
            table_begun: false,
            last_epoch: None,
            waits: false,
            reason: None,
        }
    }

    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    pub(super) fn event(&mut self, event: &JobEvent) {
        if let Some(Event::EpochFinished(metrics)) = &event.event {
            self.last_epoch = Some(*metrics);
        }
        if self.session.json() {
            print_json(&json::event(event));
            return;
        }
        match &event.event {
            Some(Event::StateChanged(change)) => self.state(change.state()),
            Some(Event::AttemptStarted(attempt)) => self.host.clone_from(&attempt.host),
            Some(Event::AttemptEnded(attempt)) => self.attempt_ended(attempt),
            Some(Event::EpochFinished(metrics)) => self.epoch(metrics),
            Some(Event::Notice(notice)) => self.bar.suspend(|| match notice.level() {
                NoticeLevel::Warning => self.session.warn(&notice.message),
                NoticeLevel::Info | NoticeLevel::Unspecified => self.session.hint(&notice.message),
            }),
            Some(Event::Log(_)) | None => {}
        }
    }

    fn state(&mut self, state: JobState) {
        self.waits = is_waiting(state);
        let word = job_state(state);
        let text = match state {
            JobState::Running if !self.host.is_empty() => format!("{word} on {}", self.host),
            _ => word.to_owned(),
        };
        match self.session.shows_progress() {
            true => set_spinner(&self.bar, plain::cell(&text).into_owned()),
            false => self.session.hint(&format!("state: {text}")),
        }
    }

    /// Shows why the job waits. Where no progress is shown, each new reason is said once.
    pub(super) fn why(&mut self, explained: &ExplainJobResponse) {
        if self.session.json() || !is_waiting(explained.state()) {
            return;
        }
        let reason = explained.reason.as_ref().map(std::mem::discriminant);
        let is_new = std::mem::replace(&mut self.reason, reason) != reason;
        if self.session.shows_progress() {
            set_spinner(&self.bar, plain::cell(&self.session.why(explained)).into_owned());
        } else if is_new {
            self.session.hint(&format!("waiting: {}", self.session.why(explained)));
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
        if let Some(training) = &mut self.training {
            training.finished(metrics);
        }
    }

    pub(super) fn progress(&mut self, progress: &Progress) {
        if self.session.json() {
            print_json(&tagged("progress", json::progress(progress)));
            return;
        }
        let now_ms = elapsed_ms(self.began);
        self.step.progress(progress, now_ms);
        if let Some(training) = &mut self.training
            && training.progress(progress, now_ms)
        {
            set_bar(&self.bar, &training.place(), training.share(), &training.left(now_ms).unwrap_or_default());
            return;
        }
        show_step(&self.bar, &self.step, progress, now_ms);
    }

    pub(super) fn interrupted(&self) {
        self.bar.suspend(|| self.session.warn("the connection to the server was lost; hat tries again"));
    }
}

impl FilesBar {
    pub(crate) fn new(session: &Session) -> Self {
        Self {
            session: session.clone(),
            bar: new_bar(session),
            began: Instant::now(),
            step: parking_lot::Mutex::default(),
            transfer: parking_lot::Mutex::new(Transfer::new()),
        }
    }

    /// Shows how many files of an upload are done, how fast that goes, and how long it still takes: on a terminal as a bar, and otherwise as a
    /// line now and then.
    pub(crate) fn show_amount(&self, phase: &'static str, amount: Amount) {
        let now_ms = elapsed_ms(self.began);
        let mut transfer = self.transfer.lock();
        transfer.progress(phase, amount, now_ms);
        if !self.bar.is_hidden() {
            set_bar(&self.bar, &transfer.words(now_ms), transfer.share(), &transfer.left(now_ms).unwrap_or_default());
        } else if let Some(line) = transfer.line(now_ms) {
            self.session.hint(&line);
        }
    }

    /// Shows how many files are done: "reading 12 of 100 files".
    pub(crate) fn show(&self, phase: &str, done: u64, total: u64) {
        let progress = Progress { phase: phase.to_owned(), done, total, unit: "files".to_owned() };
        let now_ms = elapsed_ms(self.began);
        let mut step = self.step.lock();
        step.progress(&progress, now_ms);
        show_step(&self.bar, &step, &progress, now_ms);
    }
}

impl Drop for FilesBar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn is_waiting(state: JobState) -> bool {
    matches!(state, JobState::Blocked | JobState::Queued)
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn new_bar(session: &Session) -> ProgressBar {
    if !session.shows_progress() || session.json() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(SPIN);
    bar
}

fn show_step(bar: &ProgressBar, step: &Step, progress: &Progress, now_ms: u64) {
    match step.share() {
        Some(share) => set_bar(bar, &progress::words(progress), share, &step.left(now_ms).unwrap_or_default()),
        None => set_spinner(bar, progress::words(progress)),
    }
}

fn set_spinner(bar: &ProgressBar, message: String) {
    bar.set_style(ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}").expect("a valid template"));
    bar.set_message(message);
}

/// Shows a bar between what is done and how long it still takes. All of it changes at once, so that no drawing shows half of it.
fn set_bar(bar: &ProgressBar, done: &str, share: f64, left: &str) {
    let text = |text: &str| {
        let text = text.to_owned();
        move |_: &ProgressState, line: &mut dyn fmt::Write| {
            // Writing to a line in memory cannot fail.
            let _ = line.write_str(&text);
        }
    };
    let style = ProgressStyle::with_template("{done} [{wide_bar}] {left}").expect("a valid template");
    bar.set_length(STEPS);
    bar.set_position((share * STEPS as f64) as u64);
    bar.set_style(style.progress_chars("=> ").with_key("done", text(done)).with_key("left", text(left)));
}
