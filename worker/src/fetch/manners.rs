//! How much is asked of a host at a time, and how long it is left alone when it asks for that.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

/// Requests under way in all. It also bounds the bytes that are held: each answer has at most 32 MiB.
const MAX_IN_ALL: usize = 8;
/// Requests under way to one host.
const MAX_PER_HOST: usize = 2;
/// Hosts that are remembered. If there are more, those to which nothing is under way are forgotten.
const MAX_HOSTS: usize = 1000;
/// The longest pause that a host is granted; a host that asks for more is given up.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Requests of which none has an answer before a host is given up. Otherwise a thousand URLs of a host that is down would take a day.
const MAX_FAILURES: u32 = 9;
/// For how long a host is given up.
const GIVEN_UP: Duration = Duration::from_secs(600);

/// The places of all requests.
#[derive(Debug)]
pub(super) struct Manners {
    in_all: Arc<Semaphore>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

#[derive(Debug)]
struct Host {
    places: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Nothing is sent before.
    not_before: Instant,
    /// Requests without an answer since the last one that had one.
    failures: u32,
    /// Nothing is even tried before.
    given_up_until: Instant,
}

/// The right to one request; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _of_host: OwnedSemaphorePermit,
    _in_all: OwnedSemaphorePermit,
}

impl Default for Manners {
    fn default() -> Self {
        Self { in_all: Arc::new(Semaphore::new(MAX_IN_ALL)), hosts: Mutex::default() }
    }
}

impl Manners {
    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock();
        if hosts.len() >= MAX_HOSTS && !hosts.contains_key(name) {
            let now = Instant::now();
            hosts.retain(|_, host| {
                let state = host.state.lock();
                Arc::strong_count(host) > 1 || state.not_before > now || state.given_up_until > now
            });
        }
        let new = || {
            let now = Instant::now();
            let state = State { not_before: now, failures: 0, given_up_until: now };
            Host { places: Arc::new(Semaphore::new(MAX_PER_HOST)), state: Mutex::new(state) }
        };
        hosts.entry(name.to_owned()).or_insert_with(|| Arc::new(new())).clone()
    }

    /// Waits until a request may be sent to this host. The next one waits at least for `interval`.
    pub(super) async fn place(&self, host: &str, interval: Duration) -> Place {
        let host = self.host(host);
        let closed = "the semaphores are never closed";
        let of_host = host.places.clone().acquire_owned().await.expect(closed);
        loop {
            let now = Instant::now();
            let until = {
                let mut state = host.state.lock();
                let until = state.not_before;
                if until <= now {
                    state.not_before = now + interval;
                }
                until
            };
            if until <= now {
                break;
            }
            sleep_until(until).await;
        }
        let in_all = self.in_all.clone().acquire_owned().await.expect(closed);
        Place { _of_host: of_host, _in_all: in_all }
    }

    /// Leaves a host alone for a while.
    pub(super) fn leave_alone(&self, host: &str, pause: Duration) {
        let host = self.host(host);
        let mut state = host.state.lock();
        state.not_before = state.not_before.max(Instant::now() + pause);
    }

    /// Whether nothing is to be tried at this host for now.
    pub(super) fn has_given_up(&self, host: &str) -> bool {
        self.host(host).state.lock().given_up_until > Instant::now()
    }

    /// Gives a host up for so long.
    pub(super) fn give_up(&self, host: &str, pause: Duration) {
        self.host(host).state.lock().given_up_until = Instant::now() + pause.min(GIVEN_UP);
    }

    /// Notes whether a host has answered. After many requests without an answer it is given up.
    pub(super) fn note(&self, host: &str, has_answered: bool) {
        let host = self.host(host);
        let mut state = host.state.lock();
        state.failures = if has_answered { 0 } else { state.failures + 1 };
        if state.failures >= MAX_FAILURES {
            (state.failures, state.given_up_until) = (0, Instant::now() + GIVEN_UP);
        }
    }
}

/// How long a host asks to be left alone: seconds, or a date.
pub(super) fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_asks_for_a_pause_in_seconds_or_by_a_date() {
        let now = httpdate::parse_http_date("Tue, 01 Dec 2026 12:00:00 GMT").unwrap();
        assert_eq!(retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Tue, 01 Dec 2026 12:00:30 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Tue, 01 Dec 2026 11:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_has_few_requests_at_a_time_and_is_left_alone_when_it_asks_for_that() {
        let manners = Manners::default();
        let two = [manners.place("a", Duration::ZERO).await, manners.place("a", Duration::ZERO).await];
        let third = tokio::time::timeout(Duration::from_secs(9), manners.place("a", Duration::ZERO));
        assert!(third.await.is_err(), "two are under way");
        manners.place("b", Duration::ZERO).await;
        drop(two);
        manners.leave_alone("a", Duration::from_secs(30));
        let before = Instant::now();
        manners.place("a", Duration::from_secs(1)).await;
        assert_eq!(before.elapsed().as_secs(), 30);
        manners.place("a", Duration::ZERO).await;
        assert_eq!(before.elapsed().as_secs(), 31, "the request before asked for an interval");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_never_answers_is_given_up_for_a_while() {
        let manners = Manners::default();
        for _ in 1..MAX_FAILURES {
            manners.note("a", false);
        }
        manners.note("a", true);
        (0..MAX_FAILURES).for_each(|_| {
            assert!(!manners.has_given_up("a"));
            manners.note("a", false);
        });
        assert!(manners.has_given_up("a") && !manners.has_given_up("b"));
        tokio::time::sleep(GIVEN_UP).await;
        assert!(!manners.has_given_up("a"));
    }

    #[tokio::test]
    async fn hosts_are_forgotten_when_there_are_many() {
        let manners = Manners::default();
        for number in 0..MAX_HOSTS * 2 {
            manners.place(&number.to_string(), Duration::ZERO).await;
        }
        assert!(manners.hosts.lock().len() <= MAX_HOSTS);
    }
}
