//! What `hat` says when something fails: what happened, to which thing, and what to do next.

use std::path::{Path, PathBuf};

use serde_json::json;
use sortinghat_client::ClientError;
use sortinghat_proto::{
    Refusal,
    v1::{self, ErrorCode},
};

use crate::{exit::Exit, shell};

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{message}")]
    Usage { message: String },
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("{}", .0.message)]
    Refused(#[from] Refusal),
    #[error("job {id} failed: {message}")]
    JobFailed { id: String, failure: Box<v1::Failure>, message: String },
    #[error("job {id} was cancelled{because}")]
    JobCancelled { id: String, because: String },
    #[error("{}", nothing_runs(.folder, *.has_run))]
    NothingRuns { folder: PathBuf, has_run: bool },
    #[error("{}", interrupted(*.submitting))]
    Interrupted { submitting: bool },
    #[error("{source}\n  the job has succeeded: {next}")]
    Untold { source: Box<Self>, next: String },
    #[error("{message}")]
    Local { message: String },
    #[error("failed to {action} {path}: {source}", path = path.display())]
    File { action: &'static str, path: PathBuf, source: std::io::Error },
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into() }
    }

    pub(crate) fn local(message: impl Into<String>) -> Self {
        Self::Local { message: message.into() }
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// This failure to tell, to save or to use what a job has made. `next` says which command does.
    pub(crate) fn of_result(self, next: String) -> Self {
        match self {
            Self::Client(_) | Self::Local { .. } | Self::File { .. } => Self::Untold { source: Box::new(self), next },
            other => other,
        }
    }

    /// The failure of a job that failed or was cancelled.
    pub(crate) fn of_job(job: &v1::Job) -> Self {
        let failure = job.failure.clone().unwrap_or_default();
        if job.state() == v1::JobState::Cancelled {
            let own = failure.code() == ErrorCode::Cancelled || failure.message.is_empty();
            let because = if own { String::new() } else { format!(": {}", failure.message) };
            return Self::JobCancelled { id: job.id.clone(), because };
        }
        let message = failure.message.clone();
        Self::JobFailed { id: job.id.clone(), failure: Box::new(failure), message }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } => Exit::Usage,
            Self::Client(error) => exit_of_client(error),
            Self::Refused(refusal) => exit_of_code(refusal.code),
            Self::NothingRuns { .. } => Exit::NoServer,
            Self::Interrupted { .. } => Exit::Interrupted,
            Self::Untold { source, .. } => source.exit(),
            Self::JobFailed { .. } => Exit::JobFailed,
            Self::JobCancelled { .. } => Exit::Cancelled,
            Self::Local { .. } | Self::File { .. } => Exit::Local,
        }
    }

    /// What to do next, if the message does not say it. `command` completes a command line of `hat`, so that it acts on the same server.
    pub(crate) fn hint(&self, command: &dyn Fn(&str) -> String) -> Option<String> {
        match self {
            Self::Untold { source, .. } => source.hint(command),
            Self::JobFailed { id, failure, .. } => hint_of_job(id, failure, command),
            Self::Interrupted { submitting: true } => {
                Some(format!("`{}` shows whether the server has it", command("jobs")))
            }
            Self::Client(ClientError::Refused(refusal)) | Self::Refused(refusal) => hint_of_refusal(refusal, command),
            Self::Client(ClientError::Unreachable { .. }) => Some(
                "`hat up` starts one on this machine (`hat up --background` does so in the background); \
                 --server URL or SORTINGHAT_SERVER names another one"
                    .to_owned(),
            ),
            Self::Client(ClientError::Lost { .. }) => Some(format!(
                "`{}` checks whether the server is up; submitted jobs go on when it is back: `{}` lists them",
                command("doctor"),
                command("jobs")
            )),
            Self::Client(ClientError::CorruptObject { .. }) => {
                Some("try again; if it fails again, the object store has lost or changed the object".to_owned())
            }
            _ => None,
        }
    }

    /// This failure as a JSON object.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let (code, field) = self.code();
        to_json(self.exit(), code, field, &self.to_string())
    }

    /// The code for programs, and the field at fault.
    fn code(&self) -> (&'static str, &str) {
        match self {
            Self::Client(ClientError::Refused(refusal)) | Self::Refused(refusal) => {
                (refusal.code.word(), &refusal.field)
            }
            Self::JobFailed { failure, .. } => (failure.code().word(), &failure.field),
            Self::JobCancelled { .. } => (ErrorCode::Cancelled.word(), ""),
            Self::Usage { .. } => (ErrorCode::InvalidArgument.word(), ""),
            Self::Client(ClientError::BadEndpoint { .. }) => (ErrorCode::InvalidArgument.word(), "server"),
            Self::Client(ClientError::CorruptObject { .. }) => (ErrorCode::CorruptObject.word(), ""),
            Self::Client(ClientError::Unreachable { .. } | ClientError::Lost { .. }) | Self::NothingRuns { .. } => {
                ("NO_SERVER", "")
            }
            Self::Interrupted { .. } => ("INTERRUPTED", ""),
            Self::Untold { source, .. } => source.code(),
            Self::Client(_) | Self::Local { .. } | Self::File { .. } => ("LOCAL", ""),
        }
    }
}

/// The shape of every error for programs.
pub(crate) fn to_json(exit: Exit, code: &str, field: &str, message: &str) -> serde_json::Value {
    json!({ "error": { "code": code, "field": field, "message": message, "exit_code": exit as u8 } })
}

/// What helps after a job has failed.
fn hint_of_job(id: &str, failure: &v1::Failure, command: &dyn Fn(&str) -> String) -> Option<String> {
    match failure.failure_class() {
        v1::FailureClass::User if failure.code() == ErrorCode::DeadlineExceeded => {
            Some(format!("`{}` submits it again without one", command(&format!("jobs retry {id}"))))
        }
        v1::FailureClass::User if failure.field == "ingest.allow_failures" => {
            Some("--allow-failures goes on without them".to_owned())
        }
        v1::FailureClass::User => None,
        v1::FailureClass::Unspecified
        | v1::FailureClass::Infrastructure
        | v1::FailureClass::Suspect
        | v1::FailureClass::OutOfMemory => {
            Some(format!("`{}` shows what its executor logged", command(&format!("jobs logs {id}"))))
        }
    }
}

/// The command that helps after a refusal. The server's messages name no commands, since other programs receive them too.
fn hint_of_refusal(refusal: &Refusal, command: &dyn Fn(&str) -> String) -> Option<String> {
    let is_about = |what: &str| refusal.field.rsplit('.').next() == Some(what);
    let hint = match refusal.code {
        ErrorCode::PermissionDenied => "--token-file FILE or SORTINGHAT_TOKEN names the token to show".to_owned(),
        ErrorCode::NotFound | ErrorCode::InvalidArgument if is_about("dataset") => {
            format!("`{}` makes datasets, and `{}` lists them", command("ingest NAME FOLDER"), command("datasets"))
        }
        ErrorCode::NotFound | ErrorCode::InvalidArgument if is_about("model") => {
            format!("`{}` makes models, and `{}` lists them", command("finetune DATASET"), command("models"))
        }
        ErrorCode::NotFound if is_about("name") => {
            format!("`{}` and `{}` list what there is", command("datasets"), command("models"))
        }
        ErrorCode::NotFound if is_about("job_id") || is_about("job_ids") || is_about("parents") => {
            format!("`{}` lists all jobs", command("jobs"))
        }
        ErrorCode::WrongState if is_about("parents") => format!("`{}` does that", command("jobs retry ID")),
        _ => return None,
    };
    Some(hint)
}

/// Says that no server runs in the folder that was named, and how to start one there.
fn nothing_runs(folder: &Path, has_run: bool) -> String {
    let (shown, start) = (folder.display(), format!("`hat up --data-dir {}`", shell::word(folder)));
    match has_run {
        false => {
            format!("nothing is running in {shown}: {start} starts a server there, and --server URL names another one")
        }
        true => format!("the server of {shown} has ended without being stopped: {start} starts it again with its jobs"),
    }
}

fn interrupted(submitting: bool) -> &'static str {
    match submitting {
        false => "interrupted: nothing was submitted",
        true => "interrupted while the job was being submitted",
    }
}

fn exit_of_client(error: &ClientError) -> Exit {
    match error {
        ClientError::BadEndpoint { .. } => Exit::Usage,
        ClientError::Unreachable { .. } | ClientError::Lost { .. } => Exit::NoServer,
        ClientError::Refused(refusal) => exit_of_code(refusal.code),
        ClientError::CorruptObject { .. }
        | ClientError::Document { .. }
        | ClientError::File { .. }
        | ClientError::FileChanged { .. }
        | ClientError::Protocol(_) => Exit::Local,
    }
}

fn exit_of_code(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::InvalidArgument => Exit::Usage,
        ErrorCode::NotFound => Exit::NotFound,
        ErrorCode::Cancelled => Exit::Cancelled,
        _ => Exit::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_can_tell_what_happened_by_the_exit_code() {
        let unreachable = ClientError::Unreachable { url: "http://127.0.0.1:1".into(), reason: "refused".into() };
        let failure = Failure::from(unreachable);
        assert_eq!(failure.exit(), Exit::NoServer);
        assert!(failure.hint(&ToString::to_string).is_some_and(|hint| hint.contains("hat up")));
        assert_eq!(Failure::from(Refusal::not_found("no model x/1")).exit(), Exit::NotFound);
        assert_eq!(Failure::from(Refusal::invalid("a", "b")).to_json()["error"]["exit_code"], 2);
        let bad =
            Failure::from(ClientError::BadEndpoint { url: "ftp://a".into(), reason: "use http".into() }).to_json();
        assert_eq!((&bad["error"]["code"], &bad["error"]["exit_code"]), (&"INVALID_ARGUMENT".into(), &2.into()));
    }

    #[test]
    fn a_result_that_cannot_be_saved_is_not_lost_and_the_message_says_how_to_fetch_it() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let failure =
            Failure::file("write", "p.csv")(full).of_result("`hat jobs watch 01 --out FILE` fetches its result".into());
        assert_eq!(failure.exit(), Exit::Local);
        assert!(failure.to_string().ends_with("`hat jobs watch 01 --out FILE` fetches its result"), "{failure}");
        assert_eq!(failure.to_json()["error"]["code"], "LOCAL");
        assert!(matches!(Failure::usage("no photo").of_result(String::new()), Failure::Usage { .. }));
    }

    #[test]
    fn a_job_cancelled_by_a_failed_parent_says_so() {
        let failure =
            v1::Failure { code: ErrorCode::ParentFailed.into(), message: "job 01 failed".into(), ..Default::default() };
        let job = v1::Job {
            id: "02".into(),
            state: v1::JobState::Cancelled.into(),
            failure: Some(failure),
            ..Default::default()
        };
        assert_eq!(Failure::of_job(&job).to_string(), "job 02 was cancelled: job 01 failed");
    }
}
