//! Repeats calls while the server cannot be reached, or is busy and says when to try again.

use std::{future::Future, time::Duration};

use sortinghat_proto::retry_after;
use tokio::time::Instant;
use tonic::Status;

use crate::{ClientError, error::is_transient};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Exponential backoff with jitter, within a time budget.
#[derive(Debug)]
pub(crate) struct Backoff {
    budget: Duration,
    /// When the first call failed.
    since: Option<Instant>,
    pause: Duration,
}

impl Backoff {
    /// Allows pauses until `budget` is spent. The budget counts from the first pause on, so time in which all went well costs nothing.
    pub(crate) fn within(budget: Duration) -> Self {
        Self { budget, since: None, pause: FIRST_PAUSE }
    }

    /// The server has answered, so the budget starts anew.
    pub(crate) fn reset(&mut self) {
        *self = Self::within(self.budget);
    }

    /// Pauses and returns true, or false once the budget is spent.
    pub(crate) async fn pause(&mut self) -> bool {
        let pause = self.grow();
        // Half of the pause is random, so that clients that have lost the same server do not come back all at once.
        self.pause_for(pause.mul_f64(0.5 + 0.5 * rand::random::<f64>())).await
    }

    /// Pauses like [`pause`](Self::pause), but for at least as long as the status asks for.
    pub(crate) async fn pause_after(&mut self, status: &Status) -> bool {
        match retry_after(status) {
            None => self.pause().await,
            Some(asked) => {
                // The server spreads its callers over time. A caller that is refused again and again comes back less and less often.
                let extra = self.grow().mul_f64(0.5 * rand::random::<f64>());
                self.pause_for(asked + extra).await
            }
        }
    }

    fn grow(&mut self) -> Duration {
        let next = (self.pause * 2).min(LONGEST_PAUSE);
        std::mem::replace(&mut self.pause, next)
    }

    async fn pause_for(&mut self, pause: Duration) -> bool {
        if self.since.get_or_insert_with(Instant::now).elapsed() >= self.budget {
            return false;
        }
        tokio::time::sleep(pause).await;
        true
    }
}

/// Repeats a call until it succeeds, is refused, or `budget` is spent. Only for calls that are safe to repeat.
pub(crate) async fn with_retries<T, F>(budget: Duration, mut call: impl FnMut() -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, Status>>,
{
    let mut backoff = Backoff::within(budget);
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(status) if is_transient(&status) && backoff.pause_after(&status).await => {}
            Err(status) => return Err(ClientError::of(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::{Refusal, v1::ErrorCode};

    use super::*;

    const BUDGET: Duration = Duration::from_secs(60);

    fn busy(pause: Duration) -> Status {
        Refusal::new(ErrorCode::ResourceExhausted, "full").with_retry_after(pause)
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_server_is_asked_again_but_not_before_the_time_that_it_names() {
        let (asked, since) = (Duration::from_secs(5), tokio::time::Instant::now());
        let mut answers = vec![Ok(()), Err(busy(asked)), Err(busy(asked))];
        with_retries(BUDGET, || std::future::ready(answers.pop().expect("asked three times"))).await.expect("at last");
        assert!(since.elapsed() >= asked * 2, "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_all_went_well_is_not_taken_from_the_budget() {
        let mut backoff = Backoff::within(BUDGET);
        tokio::time::advance(BUDGET * 2).await;
        assert!(backoff.pause().await, "the first failure of a long transfer");
        tokio::time::advance(BUDGET).await;
        assert!(!backoff.pause().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_time_does_not_lift_is_reported_at_once() {
        let mut answers = vec![Err::<(), _>(Status::resource_exhausted("the message is too long"))];
        let answer = with_retries(BUDGET, || std::future::ready(answers.pop().expect("asked once"))).await;
        answer.expect_err("the message would be as long the next time");
    }
}
