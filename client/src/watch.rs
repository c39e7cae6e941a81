//! Follows a job, also through restarts of the server.

use std::time::Duration;

use sortinghat_proto::{
    retry_after,
    v1::{JobEvent, JobState, Progress, WatchJobRequest, WatchJobResponse, job_event::Event, watch_job_response},
};
use tonic::{Status, Streaming};

use crate::{Client, ClientError, error::is_transient, retry::Backoff};

/// The server sends something at least every 15 seconds. After three times that, the connection is dead.
pub(crate) const SILENCE: Duration = Duration::from_secs(45);
/// How long a watch tries to reach a server that does not answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// One update of a watch.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// A durable event. Each event comes once, in the order of the sequence numbers.
    Event(JobEvent),
    /// How far the running attempt has come. It replaces the previous progress.
    Progress(Progress),
    /// Every event that was recorded before the watch has come, and what follows is new. This comes once, unless the job ends first.
    UpToDate,
    /// The server cannot be reached, and the watch tries again by itself. This comes once for each interruption.
    Interrupted {
        /// The error of the transport.
        reason: String,
    },
}

/// A job's history from some event on until the job ends. After an interruption the watch continues behind the last event that it has
/// seen.
pub struct Watch {
    client: Client,
    job_id: String,
    last_sequence: u64,
    stream: Option<Streaming<WatchJobResponse>>,
    backoff: Backoff,
    interrupted: bool,
    up_to_date: bool,
    over_before_stream: bool,
    ended: bool,
}

impl Client {
    /// Follows a job from the event after `after_sequence`, 0 for all of its history.
    pub fn watch(&self, job_id: &str, after_sequence: u64) -> Watch {
        Watch {
            client: self.clone(),
            job_id: job_id.to_owned(),
            last_sequence: after_sequence,
            stream: None,
            backoff: Backoff::within(PATIENCE),
            interrupted: false,
            up_to_date: false,
            over_before_stream: false,
            ended: false,
        }
    }
}

impl Watch {
    /// The next update; `None` once the job has ended and every event has come. The future may be dropped and the method called again.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is no such job, [`ClientError::Lost`] after two minutes without the server.
    pub async fn next(&mut self) -> Result<Option<Update>, ClientError> {
        while !self.ended {
            let reason = match self.receive().await {
                Ok(Some(response)) => match self.take(response)? {
                    Some(update) => return Ok(Some(update)),
                    None => continue,
                },
                Ok(None) if self.over_before_stream => break,
                Ok(None) => match self.look_again().await? {
                    Some(reason) => reason,
                    None => continue,
                },
                Err(status) if is_transient(&status) => {
                    // A busy server says when to try again. A server that was away is asked at once, in case it is back.
                    let is_busy = retry_after(&status).is_some();
                    if is_busy && !self.backoff.pause_after(&status).await {
                        return Err(ClientError::of(status));
                    }
                    status.message().to_owned()
                }
                Err(status) => return Err(ClientError::of(status)),
            };
            self.stream = None;
            if !self.interrupted {
                self.interrupted = true;
                return Ok(Some(Update::Interrupted { reason }));
            }
            if !self.backoff.pause().await {
                return Err(ClientError::Lost { reason });
            }
        }
        self.ended = true;
        Ok(None)
    }

    /// The sequence number of the last event that has come.
    pub fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    async fn receive(&mut self) -> Result<Option<WatchJobResponse>, Status> {
        let silent = |_| Status::unavailable("the server has gone silent");
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let request = WatchJobRequest { job_id: self.job_id.clone(), after_sequence: self.last_sequence };
                let mut service = self.client.jobs();
                let opened = tokio::time::timeout(SILENCE, service.watch_job(request)).await.map_err(silent)??;
                self.stream.insert(opened.into_inner())
            }
        };
        tokio::time::timeout(SILENCE, stream.message()).await.map_err(silent)?
    }

    fn take(&mut self, response: WatchJobResponse) -> Result<Option<Update>, ClientError> {
        self.backoff.reset();
        self.interrupted = false;
        match response.update {
            Some(watch_job_response::Update::Progress(progress)) => Ok(Some(Update::Progress(progress))),
            Some(watch_job_response::Update::Event(event)) => self.take_event(event),
            Some(watch_job_response::Update::Keepalive(_)) if !std::mem::replace(&mut self.up_to_date, true) => {
                Ok(Some(Update::UpToDate))
            }
            Some(watch_job_response::Update::Keepalive(_)) | None => Ok(None),
        }
    }

    fn take_event(&mut self, event: JobEvent) -> Result<Option<Update>, ClientError> {
        if event.sequence <= self.last_sequence {
            return Ok(None);
        }
        if event.sequence != self.last_sequence + 1 {
            let (last, next) = (self.last_sequence, event.sequence);
            return Err(ClientError::Protocol(format!(
                "event {last} of job {} was followed by event {next}",
                self.job_id
            )));
        }
        self.last_sequence = event.sequence;
        if let Some(Event::StateChanged(change)) = &event.event {
            self.ended = is_final(change.state());
        }
        Ok(Some(Update::Event(event)))
    }

    /// Finds out why a stream ended without the job's last event: either the server drains, or the watch began after that event. Only a
    /// stream that was opened after the job's end is certain to hold all events.
    ///
    /// Returns why the stream ended if the job goes on, `None` if another stream will hold the last events.
    async fn look_again(&mut self) -> Result<Option<String>, ClientError> {
        self.stream = None;
        match self.client.get_job(&self.job_id).await {
            Ok(job) if is_final(job.state()) => {
                self.over_before_stream = true;
                Ok(None)
            }
            Ok(_) => Ok(Some("the server ended the stream".to_owned())),
            Err(ClientError::Lost { reason }) => Ok(Some(reason)),
            Err(error) => Err(error),
        }
    }
}

/// Whether a job in this state has ended.
pub fn is_final(state: JobState) -> bool {
    match state {
        JobState::Succeeded | JobState::Failed | JobState::Cancelled => true,
        JobState::Unspecified | JobState::Blocked | JobState::Queued | JobState::Running => false,
    }
}
