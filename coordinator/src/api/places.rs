//! Room for calls: so many of each class at a time. Whoever finds none, and gets none in a moment, is refused before its message is read.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sortinghat_proto::{Refusal, limits, v1::ErrorCode};
use tokio::{sync::oneshot, time::timeout};
use tonic::Status;

use super::methods::Class;

/// How long a call waits for a place.
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// The places of one class.
#[derive(Debug)]
struct Room {
    free: Mutex<Free>,
    /// Calls that may wait for a place.
    waiting: usize,
    /// When to come back if all is taken, on average.
    pause: Duration,
}

#[derive(Debug)]
struct Free {
    places: usize,
    /// Calls that wait for one, the newest last.
    waiting: VecDeque<oneshot::Sender<Place>>,
}

impl Free {
    /// Who gets a place; the newest if more than so many wait.
    fn next(&mut self, many: usize) -> Option<oneshot::Sender<Place>> {
        if self.waiting.len() > many { self.waiting.pop_back() } else { self.waiting.pop_front() }
    }
}

impl Room {
    fn new(places: usize, waiting: usize, pause: Duration) -> Arc<Self> {
        let free = Mutex::new(Free { places, waiting: VecDeque::new() });
        Arc::new(Self { free, waiting, pause })
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, or where one may come from.
    fn enter(self: &Arc<Self>) -> Result<Place, oneshot::Receiver<Place>> {
        let mut free = self.free();
        if free.places > 0 {
            free.places -= 1;
            return Ok(Place(Some(self.clone())));
        }
        let (sender, place) = oneshot::channel();
        free.waiting.push_back(sender);
        if free.waiting.len() > self.waiting {
            free.waiting.pop_front();
        }
        Err(place)
    }

    /// Gives a place that is free to whoever came first. Where so many wait that most will be refused, to whoever came last: else all who are
    /// let in would have waited as long as they may.
    fn give(self: &Arc<Self>) {
        let mut free = self.free();
        while let Some(waiting) = free.next(self.waiting / 2) {
            match waiting.send(Place(Some(self.clone()))) {
                Ok(()) => return,
                // Its caller has gone.
                Err(mut place) => place.0 = None,
            }
        }
        free.places += 1;
    }

    fn refusal(&self) -> Status {
        let message = "the coordinator has as many calls as it can take: try again in a moment";
        // Spread out, so that those who were refused together do not come back together.
        let pause = self.pause.mul_f64(0.5 + rand::random::<f64>());
        Refusal::new(ErrorCode::ResourceExhausted, message).with_retry_after(pause)
    }
}

/// The places of all classes.
#[derive(Debug)]
pub(super) struct Places {
    submits: Arc<Room>,
    bulk_submits: Arc<Room>,
    brief: Arc<Room>,
    transfers: Arc<Room>,
    watches: Arc<Room>,
    workers: Arc<Room>,
}

/// A call's place, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place(Option<Arc<Room>>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(room) = self.0.take() {
            room.give();
        }
    }
}

impl Default for Places {
    fn default() -> Self {
        Self {
            submits: Room::new(limits::MAX_SUBMITS_IN_FLIGHT, 0, Duration::from_millis(100)),
            bulk_submits: Room::new(
                limits::MAX_BULK_SUBMITS_IN_FLIGHT,
                limits::MAX_BULK_SUBMITS_WAITING,
                Duration::from_millis(100),
            ),
            brief: Room::new(limits::MAX_BRIEF_CALLS_IN_FLIGHT, 0, Duration::from_millis(100)),
            transfers: Room::new(limits::MAX_TRANSFERS_IN_FLIGHT, 0, Duration::from_millis(500)),
            watches: Room::new(limits::MAX_WATCHES_IN_FLIGHT, 0, Duration::from_secs(2)),
            workers: Room::new(limits::MAX_WORKER_CALLS_IN_FLIGHT, 0, Duration::from_secs(2)),
        }
    }
}

impl Places {
    /// A place, or the refusal that says when to come back.
    pub(super) async fn take(&self, class: Class) -> Result<Place, Status> {
        let room = match class {
            Class::Submit => &self.submits,
            Class::BulkSubmit => &self.bulk_submits,
            Class::Brief => &self.brief,
            Class::Transfer => &self.transfers,
            Class::Watch => &self.watches,
            Class::Worker => &self.workers,
        };
        let place = match room.enter() {
            Ok(place) => return Ok(place),
            Err(place) => timeout(LONGEST_WAIT, place).await.ok().and_then(Result::ok),
        };
        place.ok_or_else(|| room.refusal())
    }
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::retry_after;
    use tokio::{task::JoinHandle, time::Instant};

    use super::*;

    async fn all_of(places: &Places, class: Class) -> Vec<Place> {
        let mut taken = Vec::new();
        while let Ok(place) = places.take(class).await {
            taken.push(place);
        }
        taken
    }

    /// A call of many jobs that comes now.
    async fn bulk_call(places: &Arc<Places>) -> JoinHandle<Result<Place, Status>> {
        let places = places.clone();
        let call = tokio::spawn(async move { places.take(Class::BulkSubmit).await });
        tokio::task::yield_now().await;
        call
    }

    #[tokio::test]
    async fn a_class_without_places_takes_none_from_the_others() {
        let places = Places::default();
        let taken = all_of(&places, Class::Submit).await;
        assert_eq!(taken.len(), limits::MAX_SUBMITS_IN_FLIGHT);
        let refused = places.take(Class::Submit).await.expect_err("no place is left");
        let pause = retry_after(&refused).expect("it says when to come back");
        assert!((50..=150).contains(&pause.as_millis()), "{pause:?}");
        for class in [Class::BulkSubmit, Class::Brief, Class::Transfer, Class::Watch, Class::Worker] {
            places.take(class).await.expect("has its own");
        }
        drop(taken);
        places.take(Class::Submit).await.expect("free again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_a_moment_for_its_turn_and_no_longer() {
        let places = Arc::new(Places::default());
        let began = Instant::now();
        let mut taken = all_of(&places, Class::BulkSubmit).await;
        assert_eq!(taken.len(), limits::MAX_BULK_SUBMITS_IN_FLIGHT);
        assert!(began.elapsed() >= LONGEST_WAIT, "the last one waited");
        let (first, second) = (bulk_call(&places).await, bulk_call(&places).await);
        taken.pop();
        let place = first.await.expect("no panic").expect("a place became free");
        assert!(!second.is_finished());
        drop(place);
        second.await.expect("no panic").expect("it is its turn");
    }

    #[tokio::test(start_paused = true)]
    async fn where_many_wait_the_newest_call_gets_the_place_and_the_oldest_makes_room_for_it() {
        let places = Arc::new(Places::default());
        let mut taken = all_of(&places, Class::BulkSubmit).await;
        let oldest = bulk_call(&places).await;
        let mut waiting = Vec::new();
        for _ in 0..limits::MAX_BULK_SUBMITS_WAITING {
            waiting.push(bulk_call(&places).await);
        }
        assert!(oldest.is_finished(), "there is no room for so many");
        oldest.await.expect("no panic").expect_err("it is refused before its time");
        let gone = waiting.pop().expect("they wait");
        gone.abort();
        gone.await.expect_err("its caller is gone");
        taken.pop();
        tokio::task::yield_now().await;
        let served: Vec<usize> = (0..waiting.len()).filter(|number| waiting[*number].is_finished()).collect();
        assert_eq!(served, [waiting.len() - 1]);
        let place = waiting.pop().expect("it was served").await.expect("no panic").expect("a place");
        // A place whose caller goes away just as it is given is not lost.
        let last = waiting.pop().expect("they wait");
        drop(place);
        last.abort();
        last.await.expect_err("its caller is gone");
        tokio::task::yield_now().await;
        assert!(waiting.last().expect("they wait").is_finished());
    }
}
