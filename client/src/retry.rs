//! Calls again while the server cannot be reached.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use tonic::Status;

use crate::{ClientError, error::is_transient};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Growing pauses with jitter, within a time budget.
#[derive(Debug)]
pub(crate) struct Backoff {
    budget: Duration,
    since: Instant,
    pause: Duration,
}

impl Backoff {
    /// Pauses until `budget` is spent.
    pub(crate) fn within(budget: Duration) -> Self {
        Self { budget, since: Instant::now(), pause: FIRST_PAUSE }
    }

    /// The server answered: the budget starts anew.
    pub(crate) fn reset(&mut self) {
        *self = Self::within(self.budget);
    }

    /// Pauses and returns true, or false once the budget is spent.
    pub(crate) async fn pause(&mut self) -> bool {
        if self.since.elapsed() >= self.budget {
            return false;
        }
        // Half fixed, half random: clients that lost the same server do not come back in step.
        tokio::time::sleep(self.pause.mul_f64(0.5 + 0.5 * rand::random::<f64>())).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

/// Calls until it works, is refused, or `budget` is spent. Only for calls that may be repeated.
pub(crate) async fn with_retries<T, F>(budget: Duration, mut call: impl FnMut() -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, Status>>,
{
    let mut backoff = Backoff::within(budget);
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(status) if is_transient(&status) && backoff.pause().await => {}
            Err(status) => return Err(ClientError::of(status)),
        }
    }
}
