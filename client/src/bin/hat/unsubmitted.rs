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
    submitting: Arc<AtomicBool>,
    listener: JoinHandle<()>,
}

impl Unsubmitted {
    /// Listens for Ctrl-C from now on.
    pub(crate) fn begin(session: &Session) -> Self {
        let (session, submitting) = (session.clone(), Arc::new(AtomicBool::new(false)));
        let is_submitting = Arc::clone(&submitting);
        let listener = tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_err() {
                return;
            }
            if session.shows_progress() {
                // Clears the line of the progress bar. If that fails, the line stays.
                let _ = std::io::stderr().write_all(b"\r\x1b[2K");
            }
            let failure = Failure::Interrupted { submitting: is_submitting.load(Ordering::Relaxed) };
            session.report(&failure);
            std::process::exit(failure.exit() as i32);
        });
        Self { submitting, listener }
    }

    /// The call that submits the job begins. From now on the server may have the job.
    pub(crate) fn submitting(&self) {
        self.submitting.store(true, Ordering::Relaxed);
    }
}

impl Drop for Unsubmitted {
    fn drop(&mut self) {
        self.listener.abort();
    }
}
