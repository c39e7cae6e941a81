//! Writes log lines to standard error.

use std::{io::IsTerminal as _, panic};

use crate::config::{LogFilter, LogFormat};

/// Sends the process's log lines, and its panics, to standard error. Call this once, before anything else.
pub fn init(format: LogFormat, filter: &LogFilter) {
    // A line that a full disk does not take is lost. Telling so on the same standard error would panic.
    let lines = tracing_subscriber::fmt().log_internal_errors(false);
    let lines = lines.with_env_filter(filter.to_env_filter()).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => lines.json().init(),
    }
    panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("no message");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(message, place, "panic: a defect in the coordinator");
    }));
}
