//! The places of one class of calls.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use sortinghat_proto::Tenant;
use tokio::{sync::oneshot, time::timeout};
use tonic::Status;

use super::busy;

/// How long a call waits for a place.
pub(super) const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// The places of one class of calls, and the calls that wait for one.
#[derive(Debug)]
pub(super) struct ClassPlaces {
    places: usize,
    state: Mutex<State>,
    /// How many calls may wait for a place.
    most_waiting: usize,
    /// After how long a refused call may try again, on average.
    pause: Duration,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// How many places each tenant holds, where tenants share the coordinator.
    held: HashMap<Tenant, usize>,
    /// The calls that wait for a place, the newest last.
    waiting: VecDeque<WaitingCall>,
}

#[derive(Debug)]
struct WaitingCall {
    tenant: Option<Tenant>,
    place: oneshot::Sender<Place>,
}

impl State {
    /// Takes a place unless none is free or the tenant already holds `most`.
    fn take(&mut self, tenant: Option<&Tenant>, most: usize) -> bool {
        let is_taken = self.free > 0 && self.holds_fewer(tenant, most);
        if is_taken {
            self.free -= 1;
            if let Some(tenant) = tenant {
                *self.held.entry(tenant.clone()).or_default() += 1;
            }
        }
        is_taken
    }

    fn holds_fewer(&self, tenant: Option<&Tenant>, most: usize) -> bool {
        tenant.and_then(|tenant| self.held.get(tenant)).is_none_or(|held| *held < most)
    }

    fn give_back(&mut self, tenant: Option<&Tenant>) {
        self.free += 1;
        if let Some(tenant) = tenant
            && let Some(held) = self.held.get_mut(tenant)
        {
            *held -= 1;
            if *held == 0 {
                self.held.remove(tenant);
            }
        }
    }

    /// Removes the waiting call that gets the next place. Calls of tenants that hold `most` places are passed over. It is the
    /// oldest of the others, or the newest if more than `many` calls wait.
    fn next(&mut self, many: usize, most: usize) -> Option<WaitingCall> {
        let may_enter = |call: &WaitingCall| self.holds_fewer(call.tenant.as_ref(), most);
        let next = if self.waiting.len() > many {
            self.waiting.iter().rposition(may_enter)
        } else {
            self.waiting.iter().position(may_enter)
        };
        self.waiting.remove(next?)
    }
}

impl ClassPlaces {
    pub(super) fn new(places: usize, most_waiting: usize, pause: Duration) -> Arc<Self> {
        let state = Mutex::new(State { free: places, held: HashMap::new(), waiting: VecDeque::new() });
        Arc::new(Self { places, state, most_waiting, pause })
    }

    /// Takes a place, and waits a moment for one if none is free. `tenant` is the caller's, if it shares the coordinator with others.
    ///
    /// # Errors
    /// The refusal that says when to try again, if no place became free in time.
    pub(super) async fn take(self: &Arc<Self>, tenant: Option<Tenant>) -> Result<Place, Status> {
        let place = match self.enter(tenant) {
            Ok(place) => return Ok(place),
            Err(place) => timeout(LONGEST_WAIT, place).await.ok().and_then(Result::ok),
        };
        place.ok_or_else(|| busy("the coordinator has as many calls as it can take: try again in a moment", self.pause))
    }

    /// How many places one tenant may hold where several share the coordinator.
    fn most_of_a_tenant(&self) -> usize {
        self.places - self.places / 4
    }

    /// A place, or the channel on which one may arrive.
    fn enter(self: &Arc<Self>, tenant: Option<Tenant>) -> Result<Place, oneshot::Receiver<Place>> {
        let mut state = self.state.lock();
        if state.take(tenant.as_ref(), self.most_of_a_tenant()) {
            let is_only = state.free + 1 == self.places;
            return Ok(Place(Some(TakenPlace { class: self.clone(), tenant, is_only })));
        }
        let (sender, place) = oneshot::channel();
        state.waiting.push_back(WaitingCall { tenant, place: sender });
        if state.waiting.len() > self.most_waiting {
            state.waiting.pop_front();
        }
        Err(place)
    }

    /// Takes a place back and gives it to the call that has waited longest. Where so many calls wait that most of them will be
    /// refused, the newest call gets it instead: otherwise every call that is let in would have waited for as long as a call may.
    fn give_back(self: &Arc<Self>, tenant: Option<&Tenant>) {
        let mut state = self.state.lock();
        state.give_back(tenant);
        while let Some(WaitingCall { tenant, place }) = state.next(self.most_waiting / 2, self.most_of_a_tenant()) {
            state.take(tenant.as_ref(), self.most_of_a_tenant());
            match place.send(Place(Some(TakenPlace { class: self.clone(), tenant, is_only: false }))) {
                Ok(()) => return,
                // The caller has gone away. The place is emptied, as dropping it would lock the state a second time.
                Err(mut place) => state.give_back(place.0.take().and_then(|taken| taken.tenant).as_ref()),
            }
        }
    }

    /// How many places are free, and how many tenants hold one.
    #[cfg(test)]
    pub(super) fn free_and_tenants(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.free, state.held.len())
    }
}

/// The place of a call. It is free again when this is dropped.
#[derive(Debug)]
pub(in crate::api) struct Place(Option<TakenPlace>);

#[derive(Debug)]
struct TakenPlace {
    class: Arc<ClassPlaces>,
    tenant: Option<Tenant>,
    is_only: bool,
}

impl Place {
    /// Whether no other call of its class was under way when the place was taken.
    pub(in crate::api) fn was_only(&self) -> bool {
        self.0.as_ref().is_some_and(|taken| taken.is_only)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(TakenPlace { class, tenant, is_only: _ }) = self.0.take() {
            class.give_back(tenant.as_ref());
        }
    }
}
