//! Room for calls: so many of each class at a time. Whoever finds none is refused before its message is read.

use std::{sync::Arc, time::Duration};

use sortinghat_proto::{Refusal, limits, v1::ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::methods::Class;

/// The places of one class, and when to come back if they are taken.
#[derive(Debug, Clone)]
struct Room {
    places: Arc<Semaphore>,
    pause: Duration,
}

impl Room {
    fn new(places: usize, pause: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), pause }
    }
}

/// The places of all classes.
#[derive(Debug)]
pub(super) struct Places {
    submits: Room,
    bulk_submits: Room,
    brief: Room,
    transfers: Room,
    watches: Room,
    workers: Room,
}

/// A call's place, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Default for Places {
    fn default() -> Self {
        Self {
            submits: Room::new(limits::MAX_SUBMITS_IN_FLIGHT, Duration::from_millis(100)),
            bulk_submits: Room::new(limits::MAX_BULK_SUBMITS_IN_FLIGHT, Duration::from_millis(100)),
            brief: Room::new(limits::MAX_BRIEF_CALLS_IN_FLIGHT, Duration::from_millis(100)),
            transfers: Room::new(limits::MAX_TRANSFERS_IN_FLIGHT, Duration::from_millis(500)),
            watches: Room::new(limits::MAX_WATCHES_IN_FLIGHT, Duration::from_secs(2)),
            workers: Room::new(limits::MAX_WORKER_CALLS_IN_FLIGHT, Duration::from_secs(2)),
        }
    }
}

impl Places {
    /// A place, or the refusal that says when to come back.
    pub(super) fn take(&self, class: Class) -> Result<Place, Status> {
        let room = match class {
            Class::Submit => &self.submits,
            Class::BulkSubmit => &self.bulk_submits,
            Class::Brief => &self.brief,
            Class::Transfer => &self.transfers,
            Class::Watch => &self.watches,
            Class::Worker => &self.workers,
        };
        match room.places.clone().try_acquire_owned() {
            Ok(place) => Ok(Place(place)),
            Err(_) => {
                let message = "the coordinator has as many calls as it can take: try again in a moment";
                // Spread out, so that those who were refused together do not come back together.
                let pause = room.pause.mul_f64(0.5 + rand::random::<f64>());
                Err(Refusal::new(ErrorCode::ResourceExhausted, message).with_retry_after(pause))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::retry_after;

    use super::*;

    #[test]
    fn a_class_without_places_takes_none_from_the_others() {
        let places = Places::default();
        let taken: Vec<_> = std::iter::from_fn(|| places.take(Class::Submit).ok()).collect();
        assert_eq!(taken.len(), limits::MAX_SUBMITS_IN_FLIGHT);
        let refused = places.take(Class::Submit).expect_err("no place is left");
        let pause = retry_after(&refused).expect("it says when to come back");
        assert!((50..=150).contains(&pause.as_millis()), "{pause:?}");
        for class in [Class::BulkSubmit, Class::Brief, Class::Transfer, Class::Watch, Class::Worker] {
            places.take(class).expect("has its own");
        }
        drop(taken);
        places.take(Class::Submit).expect("free again");
    }
}
