//! The sessions that this process has seen in the store, so that a worker's next message costs no read.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use sortinghat_proto::{Digest, Name, WorkerId, time::UnixMs};
use tokio::time::Instant;

/// For how long the store is not asked again. It is far below the time for which it keeps a session.
const TRUSTED: Duration = Duration::from_secs(3_600);

/// What the id of a worker is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding {
    pub(crate) identity: Name,
    /// The hash of the secret. The secret itself is kept by the worker alone.
    pub(crate) secret: Digest,
}

/// When a worker has sent a message last, and whether it has left: it takes no tasks any more, and holds none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Presence {
    pub(crate) seen: UnixMs,
    pub(crate) has_left: bool,
}

/// How many workers an identity may have, of those that were seen within a time. Those that have left do not count, so that others can take
/// their places at once; but with them there may be no more than twice as many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) most: usize,
    pub(crate) within_ms: u64,
}

/// The bindings that were read or written lately, and places for those that are about to be.
#[derive(Debug, Default)]
pub(crate) struct Bindings(Mutex<HashMap<WorkerId, Known>>);

#[derive(Debug)]
struct Known {
    /// Whose worker it is, or whose it is about to be.
    identity: Name,
    /// What the store says, and since when that is known.
    bound: Option<(Binding, Instant)>,
    /// When it has called to be bound, if it has.
    called: Option<UnixMs>,
}

impl Bindings {
    /// What a worker is bound to; `None` if the store has to be asked.
    pub(crate) fn of(&self, worker: &WorkerId) -> Option<Binding> {
        let known = self.0.lock();
        let (binding, since) = known.get(worker)?.bound.as_ref()?;
        (since.elapsed() < TRUSTED).then(|| binding.clone())
    }

    /// Takes a place for one more worker of an identity, and returns whether there was one. It counts from now on, also if the worker is never
    /// heard of again. `presence` is what is known of those that were heard.
    pub(crate) fn reserve(
        &self,
        worker: &WorkerId,
        identity: &Name,
        bound: Bound,
        now: UnixMs,
        presence: impl Fn(&WorkerId) -> Option<Presence>,
    ) -> bool {
        let mut known = self.0.lock();
        let others = known.iter().filter(|(other, known)| *other != worker && known.identity == *identity);
        let presences = others.filter_map(|(other, Known { called, .. })| {
            presence(other).or_else(|| called.map(|seen| Presence { seen, has_left: false }))
        });
        let (mut all, mut working) = (0, 0);
        for Presence { has_left, .. } in presences.filter(|of| now.ms_since(of.seen) <= bound.within_ms) {
            all += 1;
            working += usize::from(!has_left);
        }
        let has_room = working < bound.most && all < bound.most.saturating_mul(2);
        if has_room {
            let place = || Known { identity: identity.clone(), bound: None, called: None };
            known.entry(worker.clone()).or_insert_with(place).called = Some(now);
        }
        has_room
    }

    /// Notes what the store says.
    pub(crate) fn note(&self, worker: &WorkerId, binding: Binding) {
        let mut known = self.0.lock();
        let earlier = known.get(worker).filter(|earlier| earlier.identity == binding.identity);
        // A call of somebody else is none of the worker's.
        let called = earlier.and_then(|earlier| earlier.called);
        let identity = binding.identity.clone();
        known.insert(worker.clone(), Known { identity, bound: Some((binding, Instant::now())), called });
    }

    /// Forgets the workers for which `is_known` is false and that have not called to be bound within `within_ms`.
    pub(crate) fn forget(&self, now: UnixMs, within_ms: u64, is_known: impl Fn(&WorkerId) -> bool) {
        let has_called = |known: &Known| known.called.is_some_and(|called| now.ms_since(called) <= within_ms);
        self.0.lock().retain(|worker, known| has_called(known) || is_known(worker));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Bound = Bound { most: 2, within_ms: 100 };

    fn worker(number: u32) -> WorkerId {
        format!("w{number}").parse().expect("an id")
    }

    fn name(name: &str) -> Name {
        name.parse().expect("a name")
    }

    #[test]
    fn a_worker_counts_from_its_first_call_on_whether_or_not_it_is_heard_again() {
        let bindings = Bindings::default();
        let reserve = |number, now| bindings.reserve(&worker(number), &name("a"), BOUND, UnixMs(now), |_| None);
        assert_eq!([1, 2, 3].map(|number| reserve(number, 0)), [true, true, false]);
        bindings.forget(UnixMs(100), BOUND.within_ms, |_| false);
        assert!(!reserve(3, 100) && reserve(2, 100), "a sweep forgets nobody who has just called");
        assert!(reserve(3, 101), "the first has been silent");
        assert!(bindings.reserve(&worker(4), &name("b"), BOUND, UnixMs(100), |_| None), "others have their own");
    }

    #[test]
    fn those_that_have_left_make_room_but_not_without_end() {
        let bindings = Bindings::default();
        let left = |_: &WorkerId| Some(Presence { seen: UnixMs(0), has_left: true });
        let made = [1, 2, 3, 4, 5].map(|number| bindings.reserve(&worker(number), &name("a"), BOUND, UnixMs(0), left));
        assert_eq!(made, [true, true, true, true, false]);
    }

    #[test]
    fn whoever_names_the_worker_of_somebody_else_makes_it_count_for_nobody() {
        let bindings = Bindings::default();
        let secret = Digest::of(b"a");
        for number in [1, 2] {
            assert!(bindings.reserve(&worker(number), &name("b"), BOUND, UnixMs(0), |_| None));
            bindings.note(&worker(number), Binding { identity: name("a"), secret: secret.clone() });
        }
        for identity in ["a", "b"] {
            assert!(bindings.reserve(&worker(3), &name(identity), BOUND, UnixMs(0), |_| None), "{identity}");
        }
    }
}
