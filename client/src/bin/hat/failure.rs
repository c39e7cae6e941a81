//! What `hat` says when something fails: what happened, to which thing, and what to do next.

use std::path::PathBuf;

use serde_json::json;
use sortinghat_client::ClientError;
use sortinghat_proto::{
    Refusal,
    v1::{self, ErrorCode},
};

use crate::exit::Exit;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{message}")]
    Usage { message: String },
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("{}", .0.message)]
    Refused(#[from] Refusal),
    #[error("job {id} failed: {message}{hint}")]
    JobFailed { id: String, code: ErrorCode, field: String, message: String, hint: String },
    #[error("job {id} was cancelled{because}")]
    JobCancelled { id: String, because: String },
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

    /// The failure of a job that failed or was cancelled.
    pub(crate) fn of_job(job: &v1::Job) -> Self {
        let failure = job.failure.clone().unwrap_or_default();
        if job.state() == v1::JobState::Cancelled {
            let own = failure.code() == ErrorCode::Cancelled || failure.message.is_empty();
            let because = if own { String::new() } else { format!(": {}", failure.message) };
            return Self::JobCancelled { id: job.id.clone(), because };
        }
        let hint = match failure.failure_class() {
            v1::FailureClass::User => String::new(),
            v1::FailureClass::Unspecified
            | v1::FailureClass::Infrastructure
            | v1::FailureClass::Suspect
            | v1::FailureClass::OutOfMemory => format!("\n  `hat jobs logs {}` shows what its executor logged", job.id),
        };
        Self::JobFailed {
            id: job.id.clone(),
            code: failure.code(),
            field: failure.field,
            message: failure.message,
            hint,
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } => Exit::Usage,
            Self::Client(error) => exit_of_client(error),
            Self::Refused(refusal) => exit_of_code(refusal.code),
            Self::JobFailed { .. } => Exit::JobFailed,
            Self::JobCancelled { .. } => Exit::Cancelled,
            Self::Local { .. } | Self::File { .. } => Exit::Local,
        }
    }

    /// What to do next, if the message does not say it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Client(ClientError::Unreachable { .. }) => Some(
                "`hat up` starts one on this machine (`hat up --background` does so in the background); \
                 --server URL or SORTINGHAT_SERVER names another one",
            ),
            Self::Client(ClientError::Lost { .. }) => Some(
                "`hat doctor` checks whether the server is up; submitted jobs go on when it is back: `hat jobs` lists them",
            ),
            Self::Client(ClientError::CorruptObject { .. }) => {
                Some("try again; if it fails again, the object store has lost or changed the object")
            }
            _ => None,
        }
    }

    /// This failure as a JSON object.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let (code, field) = match self {
            Self::Client(ClientError::Refused(refusal)) | Self::Refused(refusal) => {
                (refusal.code, refusal.field.as_str())
            }
            Self::JobFailed { code, field, .. } => (*code, field.as_str()),
            Self::JobCancelled { .. } => (ErrorCode::Cancelled, ""),
            Self::Usage { .. } => (ErrorCode::InvalidArgument, ""),
            Self::Client(ClientError::CorruptObject { .. }) => (ErrorCode::CorruptObject, ""),
            Self::Client(ClientError::Unreachable { .. } | ClientError::Lost { .. }) => {
                return to_json(self.exit(), "NO_SERVER", "", &self.to_string());
            }
            Self::Client(_) | Self::Local { .. } | Self::File { .. } => {
                return to_json(self.exit(), "LOCAL", "", &self.to_string());
            }
        };
        to_json(self.exit(), code_word(code), field, &self.to_string())
    }
}

/// The shape of every error for programs.
pub(crate) fn to_json(exit: Exit, code: &str, field: &str, message: &str) -> serde_json::Value {
    json!({ "error": { "code": code, "field": field, "message": message, "exit_code": exit as u8 } })
}

/// The word for a code: "NOT_FOUND".
pub(crate) fn code_word(code: ErrorCode) -> &'static str {
    code.as_str_name().trim_start_matches("ERROR_CODE_")
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
        assert!(failure.hint().is_some_and(|hint| hint.contains("hat up")));
        assert_eq!(Failure::from(Refusal::not_found("no model x/1")).exit(), Exit::NotFound);
        assert_eq!(Failure::from(Refusal::invalid("a", "b")).to_json()["error"]["exit_code"], 2);
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
