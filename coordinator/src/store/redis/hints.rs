//! Receives the hints that the script publishes. When some may have been lost, every listener is woken.

use std::{io, sync::Arc, time::Duration};

use futures::StreamExt as _;
use redis::{Msg, RedisResult, aio::PubSub};
use tokio::time::{Instant, interval_at, timeout};

use super::link::Link;
use crate::store::Hints;

/// How long a subscription, or an answer to a ping, may take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the connection is pinged.
const PING_PERIOD: Duration = Duration::from_secs(3);
/// The pause before a lost subscription is made again.
const PAUSE: Duration = Duration::from_millis(100);

/// Passes on the hints of a subscription, and subscribes again after every failure, for ever.
pub(super) async fn run(link: Arc<Link>, first: RedisResult<PubSub>, hints: Arc<Hints>) {
    let mut subscribed = first;
    loop {
        match subscribed {
            Ok(subscription) => {
                // The hints that were published in the meantime were not received.
                hints.tell_all();
                let error = pass_on(subscription, &hints).await.err();
                tracing::warn!(?error, "the subscription to hints was lost");
            }
            Err(error) => tracing::debug!(%error, "hints cannot be subscribed to"),
        }
        tokio::time::sleep(PAUSE).await;
        subscribed = subscribe(&link).await;
    }
}

/// Subscribes to hints on a separate connection.
pub(super) async fn subscribe(link: &Link) -> RedisResult<PubSub> {
    bounded(async {
        let mut subscription = link.client()?.get_async_pubsub().await?;
        subscription.subscribe(link.layout.hints()).await?;
        Ok(subscription)
    })
    .await
}

/// Passes hints on until the connection ends or stops answering.
async fn pass_on(subscription: PubSub, hints: &Hints) -> RedisResult<()> {
    let (mut sink, mut messages) = subscription.split();
    let mut pings = interval_at(Instant::now() + PING_PERIOD, PING_PERIOD);
    loop {
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => send(&message, hints),
                None => return Ok(()),
            },
            _ = pings.tick() => bounded(sink.ping::<redis::Value>()).await.map(drop)?,
        }
    }
}

fn send(message: &Msg, hints: &Hints) {
    for topic in String::from_utf8_lossy(message.get_payload_bytes()).lines() {
        hints.tell(topic);
    }
}

async fn bounded<T>(answer: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    match timeout(RESPONSE_TIMEOUT, answer).await {
        Ok(answer) => answer,
        Err(elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, elapsed).into()),
    }
}
