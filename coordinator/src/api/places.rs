//! Room for calls: so many of each class at a time. Whoever finds none, and gets none in a moment, is refused before its message is read.
//! Where tenants share the coordinator, none of them gets all of the room: whoever sends slowly keeps its places for long.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sortinghat_proto::{Refusal, Tenant, limits, v1::ErrorCode};
use tokio::{sync::oneshot, time::timeout};
use tonic::Status;

use super::methods::Class;

/// How long a call waits for a place.
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// The places of one class.
#[derive(Debug)]
struct Room {
    places: usize,
    free: Mutex<Free>,
    /// Calls that may wait for a place.
    waiting: usize,
    /// When to come back if all is taken, on average.
    pause: Duration,
}

#[derive(Debug)]
struct Free {
    places: usize,
    /// Places of each tenant that shares the room.
    taken: HashMap<Tenant, usize>,
    /// Calls that wait for one, the newest last.
    waiting: VecDeque<Waiting>,
}

/// A call that waits.
#[derive(Debug)]
struct Waiting {
    tenant: Option<Tenant>,
    place: oneshot::Sender<Place>,
}

impl Free {
    /// Takes a place, if there is one for this tenant, which may have so many.
    fn take(&mut self, tenant: Option<&Tenant>, most: usize) -> bool {
        let is_free = self.places > 0 && self.may_have(tenant, most);
        if is_free {
            self.places -= 1;
            if let Some(tenant) = tenant {
                *self.taken.entry(tenant.clone()).or_default() += 1;
            }
        }
        is_free
    }

    fn may_have(&self, tenant: Option<&Tenant>, most: usize) -> bool {
        tenant.and_then(|tenant| self.taken.get(tenant)).is_none_or(|taken| *taken < most)
    }

    fn give_back(&mut self, tenant: Option<&Tenant>) {
        self.places += 1;
        if let Some(tenant) = tenant
            && let Some(taken) = self.taken.get_mut(tenant)
        {
            *taken -= 1;
            if *taken == 0 {
                self.taken.remove(tenant);
            }
        }
    }

    /// Who gets the next place, of those who may have one; the newest if more than `many` wait.
    fn next(&mut self, many: usize, most: usize) -> Option<Waiting> {
        let may_have = |waiting: &Waiting| self.may_have(waiting.tenant.as_ref(), most);
        let next = if self.waiting.len() > many {
            self.waiting.iter().rposition(may_have)
        } else {
            self.waiting.iter().position(may_have)
        };
        self.waiting.remove(next?)
    }
}

impl Room {
    fn new(places: usize, waiting: usize, pause: Duration) -> Arc<Self> {
        let free = Mutex::new(Free { places, taken: HashMap::new(), waiting: VecDeque::new() });
        Arc::new(Self { places, free, waiting, pause })
    }

    /// Places that one tenant may have where several share the room.
    fn of_a_tenant(&self) -> usize {
        self.places - self.places / 4
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, or where one may come from.
    fn enter(self: &Arc<Self>, tenant: Option<Tenant>) -> Result<Place, oneshot::Receiver<Place>> {
        let mut free = self.free();
        if free.take(tenant.as_ref(), self.of_a_tenant()) {
            let is_first = free.places + 1 == self.places;
            return Ok(Place(Some(Taken { room: self.clone(), tenant, is_first })));
        }
        let (sender, place) = oneshot::channel();
        free.waiting.push_back(Waiting { tenant, place: sender });
        if free.waiting.len() > self.waiting {
            free.waiting.pop_front();
        }
        Err(place)
    }

    /// Takes a place back and gives it to whoever came first. Where so many wait that most will be refused, to whoever came last: else all
    /// who are let in would have waited as long as they may.
    fn give(self: &Arc<Self>, tenant: Option<&Tenant>) {
        let mut free = self.free();
        free.give_back(tenant);
        while let Some(Waiting { tenant, place }) = free.next(self.waiting / 2, self.of_a_tenant()) {
            free.take(tenant.as_ref(), self.of_a_tenant());
            match place.send(Place(Some(Taken { room: self.clone(), tenant, is_first: false }))) {
                Ok(()) => return,
                // Its caller has gone.
                Err(mut place) => free.give_back(place.0.take().and_then(|taken| taken.tenant).as_ref()),
            }
        }
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
pub(super) struct Place(Option<Taken>);

#[derive(Debug)]
struct Taken {
    room: Arc<Room>,
    tenant: Option<Tenant>,
    is_first: bool,
}

impl Place {
    /// Whether no other call of its class was under way when it was taken.
    pub(super) fn is_first(&self) -> bool {
        self.0.as_ref().is_some_and(|taken| taken.is_first)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(Taken { room, tenant, is_first: _ }) = self.0.take() {
            room.give(tenant.as_ref());
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
    /// A place, or the refusal that says when to come back. `tenant` is the caller's, if it shares the coordinator with others.
    pub(super) async fn take(&self, class: Class, tenant: Option<Tenant>) -> Result<Place, Status> {
        let room = match class {
            Class::Submit => &self.submits,
            Class::BulkSubmit => &self.bulk_submits,
            Class::Brief => &self.brief,
            Class::Transfer => &self.transfers,
            Class::Watch => &self.watches,
            Class::Worker => &self.workers,
        };
        let place = match room.enter(tenant) {
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
        while let Ok(place) = places.take(class, None).await {
            taken.push(place);
        }
        taken
    }

    /// A call of many jobs that comes now.
    async fn bulk_call(places: &Arc<Places>) -> JoinHandle<Result<Place, Status>> {
        bulk_call_of(places, None).await
    }

    async fn bulk_call_of(places: &Arc<Places>, tenant: Option<Tenant>) -> JoinHandle<Result<Place, Status>> {
        let places = places.clone();
        let call = tokio::spawn(async move { places.take(Class::BulkSubmit, tenant).await });
        tokio::task::yield_now().await;
        call
    }

    #[tokio::test]
    async fn a_class_without_places_takes_none_from_the_others() {
        let places = Places::default();
        let taken = all_of(&places, Class::Submit).await;
        assert_eq!(taken.len(), limits::MAX_SUBMITS_IN_FLIGHT);
        let refused = places.take(Class::Submit, None).await.expect_err("no place is left");
        let pause = retry_after(&refused).expect("it says when to come back");
        assert!((50..=150).contains(&pause.as_millis()), "{pause:?}");
        for class in [Class::BulkSubmit, Class::Brief, Class::Transfer, Class::Watch, Class::Worker] {
            places.take(class, None).await.expect("has its own");
        }
        drop(taken);
        places.take(Class::Submit, None).await.expect("free again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_a_moment_for_its_turn_and_no_longer() {
        let places = Arc::new(Places::default());
        let began = Instant::now();
        let mut taken = all_of(&places, Class::BulkSubmit).await;
        assert_eq!(taken.len(), limits::MAX_BULK_SUBMITS_IN_FLIGHT);
        assert!(began.elapsed() >= LONGEST_WAIT, "the last one waited");
        assert!(taken[0].is_first() && taken[1..].iter().all(|place| !place.is_first()));
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

    #[tokio::test(start_paused = true)]
    async fn a_tenant_that_keeps_its_places_leaves_some_to_the_others() {
        let places = Arc::new(Places::default());
        let call = |name: &str| bulk_call_of(&places, Some(name.parse().expect("a tenant")));
        let mut slow = Vec::new();
        let refused = loop {
            match call("slow").await.await.expect("no panic") {
                Ok(place) => slow.push(place),
                Err(refused) => break refused,
            }
        };
        assert!(retry_after(&refused).is_some());
        let others = limits::MAX_BULK_SUBMITS_IN_FLIGHT - slow.len();
        assert!(others > 0);
        let mut quick = Vec::new();
        for _ in 0..others {
            quick.push(call("quick").await.await.expect("no panic").expect("it has a place"));
        }
        let (first, second) = (call("slow").await, call("quick").await);
        quick.pop();
        tokio::task::yield_now().await;
        assert!(!first.is_finished(), "it has as many as it may");
        let place = second.await.expect("no panic").expect("it came later, and has fewer");
        slow.pop();
        first.await.expect("no panic").expect("its tenant has given one back");
        drop((place, quick, slow));
        let free = places.bulk_submits.free();
        assert_eq!((free.places, free.taken.len()), (limits::MAX_BULK_SUBMITS_IN_FLIGHT, 0));
    }
}
