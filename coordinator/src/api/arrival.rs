//! A bound on how long a message may take to arrive. A call holds its place from its first byte on, and a slow sender must not keep that
//! place from other callers.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Status, body::Body};

/// Long enough for the largest message over a slow line of 2 Mbit/s.
const LONGEST_ARRIVAL: Duration = Duration::from_secs(20);

/// A request's body that ends with an error if it does not arrive in time.
#[derive(Debug)]
pub(super) struct TimelyBody {
    body: Body,
    due: Instant,
    /// The timer. It is created when the body is first waited for, which is rare: most messages arrive together with their call.
    timer: Option<Pin<Box<Sleep>>>,
}

impl TimelyBody {
    /// Bounds the body of a call that begins now.
    pub(super) fn wrap(request: http::Request<Body>) -> http::Request<Body> {
        request.map(|body| Body::new(Self { body, due: Instant::now() + LONGEST_ARRIVAL, timer: None }))
    }
}

impl http_body::Body for TimelyBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(context);
        if polled.is_ready() {
            return polled;
        }
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(this.due)));
        timer.as_mut().poll(context).map(|()| {
            let message = format!("the message did not arrive within {} s", LONGEST_ARRIVAL.as_secs());
            Some(Err(Status::deadline_exceeded(message)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::poll_fn};

    use futures::stream;
    use http_body::Body as _;
    use tonic::Code;

    use super::*;

    /// Receives a message of which one part arrives every `pause`, and returns its length in bytes.
    async fn arrival(pause: Duration, parts: u32) -> Result<usize, Status> {
        let parts = stream::unfold(0, move |sent| async move {
            tokio::time::sleep(pause).await;
            (sent < parts).then(|| (Ok::<_, Infallible>(Bytes::from_static(b"part")), sent + 1))
        });
        let body = Body::new(axum::body::Body::from_stream(parts));
        let mut body = TimelyBody::wrap(http::Request::new(body)).into_body();
        let mut length = 0;
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            length += frame?.into_data().map_or(0, |data| data.len());
        }
        Ok(length)
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_arrives_in_time_or_not_at_all() {
        assert_eq!(arrival(LONGEST_ARRIVAL / 4, 3).await.expect("in time"), 12);
        let begun = Instant::now();
        let late = arrival(LONGEST_ARRIVAL / 4, u32::MAX).await.expect_err("it never ends");
        assert_eq!(late.code(), Code::DeadlineExceeded);
        assert_eq!(begun.elapsed().as_secs(), LONGEST_ARRIVAL.as_secs());
    }
}
