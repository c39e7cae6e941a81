//! Follows the predictions of a classify while it runs, also through restarts of the server.

use std::{collections::VecDeque, ops::Range};

use sortinghat_proto::{
    ObjectRef,
    manifest::PredictionsManifest,
    retry_after,
    v1::{
        PredictionsPart, StateChanged, WatchPredictionsRequest, WatchPredictionsResponse,
        watch_predictions_response::Update,
    },
};
use tonic::{Status, Streaming};

use super::Prediction;
use crate::{
    Client, ClientError,
    error::is_transient,
    jobs::object,
    retry::Backoff,
    watch::{PATIENCE, SILENCE},
};

/// One update of a watch of predictions.
#[derive(Debug, Clone, PartialEq)]
pub enum PredictionsUpdate {
    /// Predictions. Each photo comes once.
    Rows(PredictedRows),
    /// Everything that was predicted before the watch has come, and what follows is new. This comes once, unless the job ends first.
    UpToDate,
    /// The job has ended, and everything that it has predicted has come. This is the last update.
    Ended(StateChanged),
    /// The server cannot be reached, and the watch tries again by itself. This comes once for each interruption.
    Interrupted {
        /// The error of the transport.
        reason: String,
    },
}

/// Predictions of photos that follow each other in the upload.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictedRows {
    /// The name of the model: "stamps/1".
    pub model: String,
    /// The names of all classes of the model.
    pub classes: Vec<String>,
    /// The rows.
    pub rows: Vec<Prediction>,
}

/// The predictions of a classify until it ends. After an interruption the watch continues with the photos that have not come yet.
pub struct PredictionsWatch {
    client: Client,
    job_id: String,
    in_order: bool,
    stream: Option<Streaming<WatchPredictionsResponse>>,
    backoff: Backoff,
    interrupted: bool,
    up_to_date: bool,
    ended: bool,
    /// The part that is read next. It stays here until its document has been read, in case the future is dropped meanwhile.
    announced: Option<PredictionsPart>,
    /// The part that is being read.
    part: Option<Part>,
    come: Come,
}

/// The rest of a part: its files, and the number of the next photo.
struct Part {
    manifest: PredictionsManifest,
    files: VecDeque<ObjectRef>,
    next_row: u64,
}

/// The numbers of the photos that have come, as ranges that neither overlap nor touch.
#[derive(Debug, Default)]
struct Come(Vec<Range<u64>>);

impl Come {
    fn has(&self, row: u64) -> bool {
        self.0.iter().any(|range| range.contains(&row))
    }

    fn add(&mut self, new: Range<u64>) {
        let is_apart = |range: &Range<u64>| range.end < new.start || new.end < range.start;
        let (mut apart, joined): (Vec<_>, Vec<_>) = self.0.drain(..).partition(is_apart);
        let start = joined.iter().map(|range| range.start).fold(new.start, u64::min);
        let end = joined.iter().map(|range| range.end).fold(new.end, u64::max);
        apart.push(start..end);
        self.0 = apart;
    }

    /// The number of the first photo that has not come.
    fn first_missing(&self) -> u64 {
        self.0.iter().find(|range| range.start == 0).map_or(0, |range| range.end)
    }
}

impl Client {
    /// Follows the predictions of a classify from the first photo on: in the order of the upload, or as they come.
    pub fn watch_predictions(&self, job_id: &str, in_order: bool) -> PredictionsWatch {
        PredictionsWatch {
            client: self.clone(),
            job_id: job_id.to_owned(),
            in_order,
            stream: None,
            backoff: Backoff::within(PATIENCE),
            interrupted: false,
            up_to_date: false,
            ended: false,
            announced: None,
            part: None,
            come: Come::default(),
        }
    }
}

impl PredictionsWatch {
    /// The next update; `None` once the job has ended and every prediction has come. The future may be dropped and the method called again.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is no such job, or if it is no classify. [`ClientError::Lost`] after two minutes without the
    /// server.
    pub async fn next(&mut self) -> Result<Option<PredictionsUpdate>, ClientError> {
        loop {
            if let Some(update) = self.read_on().await? {
                return Ok(Some(update));
            }
            if self.ended {
                return Ok(None);
            }
            let reason = match self.receive().await {
                Ok(Some(response)) => match self.take(response) {
                    Some(update) => return Ok(Some(update)),
                    None => continue,
                },
                Ok(None) => "the server ended the stream".to_owned(),
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
            if !std::mem::replace(&mut self.interrupted, true) {
                return Ok(Some(PredictionsUpdate::Interrupted { reason }));
            }
            if !self.backoff.pause().await {
                return Err(ClientError::Lost { reason });
            }
        }
    }

    /// The rows of the next file of the part that is being read, without those that have come. `None` if there is no such part.
    async fn read_on(&mut self) -> Result<Option<PredictionsUpdate>, ClientError> {
        if self.part.is_none()
            && let Some(PredictionsPart { first_row, predictions }) = &self.announced
        {
            let manifest: PredictionsManifest = self.client.read_document(&object(predictions.clone())?).await?;
            let files = manifest.parts.iter().cloned().collect();
            self.part = Some(Part { manifest, files, next_row: *first_row });
            self.announced = None;
        }
        while let Some(part) = &mut self.part {
            let Some(file) = part.files.front() else {
                self.part = None;
                break;
            };
            let all = self.client.read_predictions(file).await?;
            part.files.pop_front();
            let numbers = part.next_row..part.next_row + all.len() as u64;
            part.next_row = numbers.end;
            let new = numbers.clone().zip(all).filter(|(number, _)| !self.come.has(*number));
            let rows: Vec<Prediction> = new.map(|(_, row)| row).collect();
            self.come.add(numbers);
            if !rows.is_empty() {
                let PredictionsManifest { model, classes, .. } = &part.manifest;
                let (model, classes) = (model.clone(), classes.clone());
                return Ok(Some(PredictionsUpdate::Rows(PredictedRows { model, classes, rows })));
            }
        }
        Ok(None)
    }

    async fn receive(&mut self) -> Result<Option<WatchPredictionsResponse>, Status> {
        let silent = |_: tokio::time::error::Elapsed| Status::unavailable("the server has gone silent");
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let request = WatchPredictionsRequest {
                    job_id: self.job_id.clone(),
                    first_row: self.come.first_missing(),
                    in_order: self.in_order,
                };
                let mut service = self.client.jobs();
                let opened = tokio::time::timeout(SILENCE, service.watch_predictions(request)).await;
                self.stream.insert(opened.map_err(silent)??.into_inner())
            }
        };
        tokio::time::timeout(SILENCE, stream.message()).await.map_err(silent)?
    }

    fn take(&mut self, response: WatchPredictionsResponse) -> Option<PredictionsUpdate> {
        self.backoff.reset();
        self.interrupted = false;
        match response.update {
            Some(Update::Part(part)) => {
                self.announced = Some(part);
                None
            }
            Some(Update::Ended(ended)) => {
                self.ended = true;
                Some(PredictionsUpdate::Ended(ended))
            }
            Some(Update::Keepalive(_)) if !std::mem::replace(&mut self.up_to_date, true) => {
                Some(PredictionsUpdate::UpToDate)
            }
            Some(Update::Keepalive(_)) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_that_have_come_are_known_in_whatever_parts_they_came() {
        let mut come = Come::default();
        for range in [4..6, 0..2, 8..9, 1..3] {
            come.add(range);
        }
        assert_eq!((0..10).filter(|row| come.has(*row)).collect::<Vec<_>>(), [0, 1, 2, 4, 5, 8]);
        assert_eq!(come.first_missing(), 3);
        come.add(0..9);
        assert_eq!((come.first_missing(), come.0.len()), (9, 1));
        assert_eq!(Come(Vec::from_iter(std::iter::once(2..4))).first_missing(), 0);
    }
}
