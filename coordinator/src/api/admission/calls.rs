//! The places of one class of calls.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
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

/// Who holds places and must leave some to others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::api) enum Holder {
    /// A tenant that shares the coordinator with others.
    Tenant(Tenant),
    /// The address of callers that show no token.
    Address(IpAddr),
}

impl Holder {
    /// How many of so many places it may hold.
    fn most_of(&self, places: usize) -> usize {
        match self {
            Self::Tenant(_) => places - places / 4,
            Self::Address(_) => places / 8,
        }
    }
}

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
    /// How many places each of those holds who must leave some to others.
    held: HashMap<Holder, usize>,
    /// The calls that wait for a place, the newest last.
    waiting: VecDeque<WaitingCall>,
}

#[derive(Debug)]
struct WaitingCall {
    holder: Option<Holder>,
    place: oneshot::Sender<Place>,
}

impl State {
    /// Takes a place of `places` unless none is free or the holder already holds as many as it may.
    fn take(&mut self, holder: Option<&Holder>, places: usize) -> bool {
        let is_taken = self.free > 0 && self.may_hold_more(holder, places);
        if is_taken {
            self.free -= 1;
            if let Some(holder) = holder {
                *self.held.entry(holder.clone()).or_default() += 1;
            }
        }
        is_taken
    }

    fn may_hold_more(&self, holder: Option<&Holder>, places: usize) -> bool {
        holder.is_none_or(|holder| self.held.get(holder).is_none_or(|held| *held < holder.most_of(places)))
    }

    fn give_back(&mut self, holder: Option<&Holder>) {
        self.free += 1;
        if let Some(holder) = holder
            && let Some(held) = self.held.get_mut(holder)
        {
            *held -= 1;
            if *held == 0 {
                self.held.remove(holder);
            }
        }
    }

    /// Removes the waiting call that gets the next of `places`. Calls of holders that hold as many as they may are passed over. It is
    /// the oldest of the others, or the newest if more than `many` calls wait.
    fn next(&mut self, many: usize, places: usize) -> Option<WaitingCall> {
        let may_enter = |call: &WaitingCall| self.may_hold_more(call.holder.as_ref(), places);
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

    /// Takes a place, and waits a moment for one if none is free. `holder` is who must leave places to others, if there are others.
    ///
    /// # Errors
    /// The refusal that says when to try again, if no place became free in time.
    pub(super) async fn take(self: &Arc<Self>, holder: Option<Holder>) -> Result<Place, Status> {
        let place = match self.enter(holder) {
            Ok(place) => return Ok(place),
            Err(place) => timeout(LONGEST_WAIT, place).await.ok().and_then(Result::ok),
        };
        place.ok_or_else(|| busy("the coordinator has as many calls as it can take: try again in a moment", self.pause))
    }

    /// A place, or the channel on which one may arrive.
    fn enter(self: &Arc<Self>, holder: Option<Holder>) -> Result<Place, oneshot::Receiver<Place>> {
        let mut state = self.state.lock();
        if state.take(holder.as_ref(), self.places) {
            let is_only = state.free + 1 == self.places;
            return Ok(Place(Some(TakenPlace { class: self.clone(), holder, is_only })));
        }
        let (sender, place) = oneshot::channel();
        state.waiting.push_back(WaitingCall { holder, place: sender });
        if state.waiting.len() > self.most_waiting {
            state.waiting.pop_front();
        }
        Err(place)
    }

    /// Takes a place back and gives it to the call that has waited longest. Where so many calls wait that most of them will be
    /// refused, the newest call gets it instead: otherwise every call that is let in would have waited for as long as a call may.
    fn give_back(self: &Arc<Self>, holder: Option<&Holder>) {
        let mut state = self.state.lock();
        state.give_back(holder);
        while let Some(WaitingCall { holder, place }) = state.next(self.most_waiting / 2, self.places) {
            state.take(holder.as_ref(), self.places);
            match place.send(Place(Some(TakenPlace { class: self.clone(), holder, is_only: false }))) {
                Ok(()) => return,
                // The caller has gone away. The place is emptied, as dropping it would lock the state a second time.
                Err(mut place) => state.give_back(place.0.take().and_then(|taken| taken.holder).as_ref()),
            }
        }
    }

    /// How many places are free, and how many hold one who must leave some to others.
    #[cfg(test)]
    pub(super) fn free_and_holders(&self) -> (usize, usize) {
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
    holder: Option<Holder>,
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
        if let Some(TakenPlace { class, holder, is_only: _ }) = self.0.take() {
            class.give_back(holder.as_ref());
        }
    }
}
