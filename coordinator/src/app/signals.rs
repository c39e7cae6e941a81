//! Requests to stop the process.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

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
