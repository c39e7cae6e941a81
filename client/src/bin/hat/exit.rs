//! Exit codes. Scripts act on them, so they are part of the interface.

use std::process::ExitCode;

/// How `hat` ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// All went well.
    Ok = 0,
    /// The job failed, or a check of `hat doctor` did.
    JobFailed = 1,
    /// The command line, a name, a value or the input cannot be used. clap uses the same code.
    Usage = 2,
    /// There is no such job, dataset, model or object.
    NotFound = 3,
    /// No server answers.
    NoServer = 4,
    /// The job was cancelled.
    Cancelled = 5,
    /// The server refused for another reason.
    Refused = 6,
    /// A file or a process of this machine failed.
    Local = 7,
    /// Ctrl-C ended `hat` before the server had confirmed a job.
    Interrupted = 8,
    /// Ctrl-C ended `hat`, while the job goes on.
    Detached = 130,
}

/// The table for `hat --help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0    done
  1    the job failed, or a check of `hat doctor` did
  2    the command line, a name, a value or the input cannot be used
  3    there is no such job, dataset, model or object
  4    no server answers
  5    the job was cancelled
  6    the server refused: it is not allowed, the state is wrong, or a limit is reached
  7    a file or a process of this machine failed
  8    Ctrl-C ended hat before a job was confirmed; the message says whether one may exist
  130  Ctrl-C ended hat; the job goes on

JSON (--json): a list is one object a line. A command that follows a job prints one object a line, whose \"type\" is \
\"submitted\", \"event\", \"progress\" or \"prediction\", and at the end \"result\": the job, with the document that it made as \
\"manifest\" and the path of a file that was saved as \"saved\". `hat sort` prints \"sorted\", \"planned\", \"left\", \"undone\", \
\"kept\" and \"failed\" for files, and counts them in \"result\". An error is one object on standard error: {\"error\": {\"code\", \"field\", \"message\", \"exit_code\"}}, and a \
warning is {\"warning\": {\"message\"}}.

Environment: SORTINGHAT_SERVER, SORTINGHAT_TOKEN, SORTINGHAT_TOKEN_FILE, SORTINGHAT_CA_FILE, SORTINGHAT_CLIENT_CERT, SORTINGHAT_CLIENT_KEY, SORTINGHAT_DATA_DIR, \
SORTINGHAT_WEIGHTS_DIR, NO_COLOR.";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_is_in_the_help() {
        let all = [
            Exit::Ok,
            Exit::JobFailed,
            Exit::Usage,
            Exit::NotFound,
            Exit::NoServer,
            Exit::Cancelled,
            Exit::Refused,
            Exit::Local,
            Exit::Interrupted,
            Exit::Detached,
        ];
        for exit in all {
            assert!(HELP.lines().any(|line| line.starts_with(&format!("  {:<5}", exit as u8))), "{exit:?}");
        }
    }
}
