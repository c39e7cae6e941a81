//! Ctrl-C before there is a job.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task::JoinHandle;

use crate::{failure::Failure, session::Session};

/// While this is held, Ctrl-C ends `hat` at once and says that nothing was submitted. It does so even in the middle of a folder that is
/// slow to list.
pub(crate) struct Unsubmitted {
    /// Whether the submission has begun or Ctrl-C came. Whoever sets this first wins, so that a job is never submitted after `hat` has
    /// said that nothing was.
    decided: Arc<AtomicBool>,
    listener: JoinHandle<()>,
}

impl Unsubmitted {
    /// Listens for Ctrl-C from now on.
    pub(crate) fn begin(session: &Session) -> Self {
        let (session, decided) = (session.clone(), Arc::new(AtomicBool::new(false)));
        let was_decided = Arc::clone(&decided);
        let listener = tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_err() {
                return;
            }
            if session.shows_progress() {
                // Clears the line of the progress bar. If that fails, the line stays.
                let _ = std::io::stderr().write_all(b"\r\x1b[2K");
            }
            let failure = Failure::Interrupted { submitting: was_decided.swap(true, Ordering::Relaxed) };
            session.report(&failure);
            std::process::exit(failure.exit() as i32);
        });
        Self { decided, listener }
    }

    /// The call that submits the job begins. From now on the server may have the job. If Ctrl-C came first, this never returns, because
    /// the process is about to end.
    pub(crate) async fn submitting(&self) {
        if self.decided.swap(true, Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Unsubmitted {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn nothing_is_submitted_after_ctrl_c_came_first() {
        let unsubmitted = |decided| Unsubmitted {
            decided: Arc::new(AtomicBool::new(decided)),
            listener: tokio::spawn(std::future::pending()),
        };
        let first = unsubmitted(false);
        assert!(first.submitting().now_or_never().is_some());
        assert!(first.decided.load(Ordering::Relaxed), "Ctrl-C now says that the job may have been submitted");
        assert!(unsubmitted(true).submitting().now_or_never().is_none());
    }
}
