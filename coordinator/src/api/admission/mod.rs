//! Admission control: a bounded number of calls of each class are under way at a time. A call that finds no place, and gets none within
//! a moment, is refused before its message is read. Where tenants share the coordinator, no tenant gets all places of a class, as a
//! tenant that sends slowly keeps its places for long; and no address gets all places of the calls that need no token.

mod calls;
mod identities;
mod jobs;
mod uploads;

use std::{sync::Arc, time::Duration};

use sortinghat_proto::{Refusal, limits, v1::ErrorCode};
use tonic::Status;

use super::methods::Class;
use calls::ClassPlaces;
pub(super) use calls::{Holder, Place};
pub(super) use identities::{Identities, Open, Seat};
pub(super) use jobs::JobAdmission;
pub(super) use uploads::UploadMemory;

/// Lets calls in, class by class.
#[derive(Debug)]
pub(super) struct Admission {
    submits: Arc<ClassPlaces>,
    bulk_submits: Arc<ClassPlaces>,
    brief: Arc<ClassPlaces>,
    transfers: Arc<ClassPlaces>,
    watches: Arc<ClassPlaces>,
    open: Arc<ClassPlaces>,
    workers: Arc<ClassPlaces>,
}

impl Default for Admission {
    fn default() -> Self {
        let (short, medium, long) = (Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2));
        Self {
            submits: ClassPlaces::new(limits::MAX_SUBMITS_IN_FLIGHT, 0, short),
            bulk_submits: ClassPlaces::new(limits::MAX_BULK_SUBMITS_IN_FLIGHT, limits::MAX_BULK_SUBMITS_WAITING, short),
            brief: ClassPlaces::new(limits::MAX_BRIEF_CALLS_IN_FLIGHT, 0, short),
            transfers: ClassPlaces::new(limits::MAX_TRANSFERS_IN_FLIGHT, 0, medium),
            watches: ClassPlaces::new(limits::MAX_WATCHES_IN_FLIGHT, 0, long),
            open: ClassPlaces::new(limits::MAX_OPEN_CALLS_IN_FLIGHT, 0, long),
            workers: ClassPlaces::new(limits::MAX_WORKER_CALLS_IN_FLIGHT, 0, long),
        }
    }
}

impl Admission {
    /// Takes a place for a call. `holder` is who must leave places to others, if there are others.
    ///
    /// # Errors
    /// The refusal that says when to try again, if no place became free in time.
    pub(super) async fn take(&self, class: Class, holder: Option<Holder>) -> Result<Place, Status> {
        let places = match class {
            Class::Submit => &self.submits,
            Class::BulkSubmit => &self.bulk_submits,
            Class::Brief => &self.brief,
            Class::Transfer => &self.transfers,
            Class::Watch => &self.watches,
            Class::Open => &self.open,
            Class::Worker => &self.workers,
        };
        places.take(holder).await
    }
}

/// The refusal of a call for which there is no room; the caller may try again after about `pause`.
fn busy(message: &str, pause: Duration) -> Status {
    // Spread out, so that callers who were refused together do not come back together.
    let pause = pause.mul_f64(0.5 + rand::random::<f64>());
    Refusal::new(ErrorCode::ResourceExhausted, message).with_retry_after(pause)
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::retry_after;
    use tokio::{task::JoinHandle, time::Instant};

    use super::{calls::LONGEST_WAIT, *};

    async fn take_all(admission: &Admission, class: Class) -> Vec<Place> {
        let mut taken = Vec::new();
        while let Ok(place) = admission.take(class, None).await {
            taken.push(place);
        }
        taken
    }

    /// A call that brings many jobs and has just arrived.
    async fn bulk_call(admission: &Arc<Admission>) -> JoinHandle<Result<Place, Status>> {
        bulk_call_of(admission, None).await
    }

    async fn bulk_call_of(admission: &Arc<Admission>, holder: Option<Holder>) -> JoinHandle<Result<Place, Status>> {
        let admission = admission.clone();
        let call = tokio::spawn(async move { admission.take(Class::BulkSubmit, holder).await });
        tokio::task::yield_now().await;
        call
    }

    #[tokio::test]
    async fn a_class_without_places_takes_none_from_the_others() {
        let admission = Admission::default();
        let taken = take_all(&admission, Class::Submit).await;
        assert_eq!(taken.len(), limits::MAX_SUBMITS_IN_FLIGHT);
        let refused = admission.take(Class::Submit, None).await.expect_err("no place is left");
        let pause = retry_after(&refused).expect("it says when to come back");
        assert!((50..=150).contains(&pause.as_millis()), "{pause:?}");
        for class in [Class::BulkSubmit, Class::Brief, Class::Transfer, Class::Watch, Class::Open, Class::Worker] {
            admission.take(class, None).await.expect("each class has its own places");
        }
        drop(taken);
        admission.take(Class::Submit, None).await.expect("the places are free again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_a_moment_for_its_turn_and_no_longer() {
        let admission = Arc::new(Admission::default());
        let began = Instant::now();
        let mut taken = take_all(&admission, Class::BulkSubmit).await;
        assert_eq!(taken.len(), limits::MAX_BULK_SUBMITS_IN_FLIGHT);
        assert!(began.elapsed() >= LONGEST_WAIT, "the last one waited");
        assert!(taken[0].was_only() && taken[1..].iter().all(|place| !place.was_only()));
        let (first, second) = (bulk_call(&admission).await, bulk_call(&admission).await);
        taken.pop();
        let place = first.await.expect("no panic").expect("a place became free");
        assert!(!second.is_finished());
        drop(place);
        second.await.expect("no panic").expect("the second call is next");
    }

    #[tokio::test(start_paused = true)]
    async fn where_many_wait_the_newest_call_gets_the_place_and_the_oldest_makes_room_for_it() {
        let admission = Arc::new(Admission::default());
        let mut taken = take_all(&admission, Class::BulkSubmit).await;
        let oldest = bulk_call(&admission).await;
        let mut waiting = Vec::new();
        for _ in 0..limits::MAX_BULK_SUBMITS_WAITING {
            waiting.push(bulk_call(&admission).await);
        }
        assert!(oldest.is_finished(), "so many calls may not wait");
        oldest.await.expect("no panic").expect_err("the oldest call is refused at once");
        let gone = waiting.pop().expect("calls wait");
        gone.abort();
        gone.await.expect_err("its caller went away");
        taken.pop();
        tokio::task::yield_now().await;
        let served: Vec<usize> = (0..waiting.len()).filter(|number| waiting[*number].is_finished()).collect();
        assert_eq!(served, [waiting.len() - 1]);
        let place = waiting.pop().expect("it has ended").await.expect("no panic").expect("a place");
        // A place is not lost if its caller goes away just as it is given.
        let last = waiting.pop().expect("calls wait");
        drop(place);
        last.abort();
        last.await.expect_err("its caller went away");
        tokio::task::yield_now().await;
        assert!(waiting.last().expect("calls wait").is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_that_keeps_its_places_leaves_some_to_the_others() {
        let admission = Arc::new(Admission::default());
        let call = |name: &str| bulk_call_of(&admission, Some(Holder::Tenant(name.parse().expect("a tenant"))));
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
            quick.push(call("quick").await.await.expect("no panic").expect("a place is free for its tenant"));
        }
        let (first, second) = (call("slow").await, call("quick").await);
        quick.pop();
        tokio::task::yield_now().await;
        assert!(!first.is_finished(), "its tenant holds as many places as it may");
        let place = second.await.expect("no panic").expect("its tenant holds fewer, although it came later");
        slow.pop();
        first.await.expect("no panic").expect("its tenant has given a place back");
        drop((place, quick, slow));
        let left = admission.bulk_submits.free_and_holders();
        assert_eq!(left, (limits::MAX_BULK_SUBMITS_IN_FLIGHT, 0), "all places are free, and no tenant is remembered");
    }
}
