//! What every room shares: the settings, the rules of the queue, the random number generator, and the signal to drain. It holds no table.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sortinghat_proto::{JobId, time::UnixMs};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{error::EngineError, settings::Settings};
use crate::queue::Rules;

/// How often a command reads again after a conflict before it gives up.
pub(crate) const MAX_TRIES: usize = 32;

/// For how long a logged message is not logged again.
const LOGGED_AGAIN: Duration = Duration::from_secs(60);

/// What every room shares.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) rules: Rules,
    /// Cancelled when this process should answer the calls that it holds, and end.
    pub(crate) draining: CancellationToken,
    pub(crate) log_throttle: LogThrottle,
    dice: Mutex<StdRng>,
    last_id: Mutex<LastId>,
}

/// The time and the random part of the id that was made last.
#[derive(Default)]
struct LastId {
    unix_ms: u64,
    random: u128,
}

impl Context {
    /// The context of an engine with these settings.
    pub(crate) fn new(settings: Settings) -> Self {
        let rules = Rules {
            lease_ttl_ms: u64::from(settings.lease_ttl_ms),
            infrastructure_budget_ms: settings.infrastructure_budget_ms,
        };
        let dice = settings.seed.map_or_else(|| StdRng::from_rng(&mut rand::rng()), StdRng::seed_from_u64);
        Self {
            settings,
            rules,
            draining: CancellationToken::new(),
            log_throttle: LogThrottle::default(),
            dice: Mutex::new(dice),
            last_id: Mutex::default(),
        }
    }

    /// The id of a job that is submitted now. It is greater than every id that this process has made before. How much greater is
    /// random, so that no tenant can count the jobs of others.
    pub(crate) fn job_id(&self, now: UnixMs) -> JobId {
        let (step, fresh): (u64, u128) = self.dice().random();
        let mut last = self.last_id.lock();
        if now.0 > last.unix_ms {
            // One of 80 bits is left free for the ids that follow within the same millisecond.
            *last = LastId { unix_ms: now.0, random: fresh >> 49 };
        } else {
            last.random += 1 + u128::from(step);
        }
        JobId::new(last.unix_ms, last.random)
    }

    /// The random numbers for ids and for choices among equals.
    pub(crate) fn dice(&self) -> MutexGuard<'_, StdRng> {
        self.dice.lock()
    }

    /// A worker counts as polling if it has sent a message within this time, in milliseconds. A call is held for at most a third of a
    /// lease, so a worker that polls sends a message in less than that.
    pub(crate) fn polling_ms(&self) -> u64 {
        self.rules.lease_ttl_ms / 2
    }
}

/// Cuts `text` off at the limit for stored messages.
pub(crate) fn bounded(mut text: String) -> String {
    let limit = sortinghat_proto::limits::MAX_TEXT_BYTES;
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
    }
    text
}

/// Limits the log: an error that recurs with every read of the same record is logged once in a while, not every time.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<HashMap<String, Instant>>);

impl LogThrottle {
    /// Logs an error and its consequence, unless both were logged a short while ago.
    pub(crate) fn error(&self, error: &EngineError, consequence: &str) {
        let mut logged = self.0.lock();
        logged.retain(|_, at| at.elapsed() < LOGGED_AGAIN);
        if let Entry::Vacant(unlogged) = logged.entry(format!("{consequence}: {error}")) {
            tracing::error!(%error, "{consequence}");
            unlogged.insert(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_millisecond_are_in_the_order_of_submission_also_if_the_clock_goes_back() {
        let context = Context::new(Settings { seed: Some(7), ..Settings::default() });
        let ids: Vec<JobId> = [5, 5, 5, 9, 9, 8, 10].map(|now| context.job_id(UnixMs(now))).into();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    }
}
