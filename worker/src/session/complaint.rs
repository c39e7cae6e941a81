//! What the log says when the coordinator does not answer or refuses: the first time, when the reason changes, and now and then while it lasts.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;

/// After this time, a complaint is repeated.
const REPEATED: Duration = Duration::from_secs(60);

/// The newest complaint.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    told: Option<(String, Instant)>,
}

impl Complaint {
    /// Logs a failed exchange with what it says, unless the same was logged a short time ago.
    pub(super) fn failed(&mut self, status: &Status, message: &str) {
        if self.told.as_ref().is_some_and(|(told, at)| told == message && at.elapsed() < REPEATED) {
            return;
        }
        self.told = Some((message.to_owned(), Instant::now()));
        // A refusal of the coordinator has details; a broken connection has none.
        match status.details().is_empty() {
            true => tracing::warn!(code = ?status.code(), message, "the coordinator does not answer; trying again"),
            false => {
                tracing::error!(code = ?status.code(), message, "the coordinator refuses this worker; trying again")
            }
        }
    }

    /// Notes that the coordinator has answered.
    pub(super) fn answered(&mut self) {
        if self.told.take().is_some() {
            tracing::info!("the coordinator answers again");
        }
    }
}
