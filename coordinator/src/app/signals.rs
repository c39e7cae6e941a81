//! Signals: requests to stop the process, and to look at its files again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The SIGHUPs that the process gets from now on. They no longer end it.
pub(super) fn hangups() -> Signal {
    signal(SignalKind::hangup()).expect("the system accepts signal handlers")
}

/// Returns a future that ends at SIGTERM or SIGINT (Ctrl-C). The handlers are in place when this returns.
///
/// # Errors
/// If the system refuses the handlers.
pub fn stop_requested() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
