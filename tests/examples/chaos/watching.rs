//! A client that watches a job through a fault.

use sortinghat_client::{Client, ClientError};
use tokio::{task::JoinHandle, time::Instant};

use crate::{Failure, PATIENCE};

/// A watch that was open when the fault began.
pub(crate) struct Vigil {
    client: Client,
    job: String,
    watching: JoinHandle<Result<Instant, ClientError>>,
}

impl Vigil {
    /// Starts to watch a job that does not end by itself.
    pub(crate) fn begin(client: &Client, job: String) -> Self {
        let mut watch = client.watch(&job, 0);
        // The watch itself refuses a gap in the sequence of events.
        let watching = tokio::spawn(async move {
            while watch.next().await?.is_some() {}
            Ok(Instant::now())
        });
        Self { client: client.clone(), job, watching }
    }

    /// Cancels the job after the fault, and returns the time at which the watching client had received the last event.
    pub(crate) async fn end(self) -> Result<Instant, Failure> {
        self.client.cancel_job(&self.job).await?;
        match tokio::time::timeout(PATIENCE, self.watching).await {
            Ok(watched) => Ok(watched.expect("a watch does not panic")?),
            Err(_) => Err(format!("the client that watched job {} did not hear its end", self.job).into()),
        }
    }
}
