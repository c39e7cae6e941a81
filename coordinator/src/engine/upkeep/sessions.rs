//! Forgetting the sessions of workers that have been silent for long. A worker that is started again has another id, so these records would
//! otherwise stay for ever.

use sortinghat_proto::time::UnixMs;

use super::Upkeep;
use crate::{
    engine::{
        error::EngineError,
        records::{Failures, SessionRecord, keys},
    },
    store::{Batch, Range, Verdict},
};

/// How many sessions one round forgets.
const SESSIONS_PER_ROUND: usize = 200;

impl Upkeep {
    /// Forgets the sessions whose time is over. Returns how many were forgotten.
    pub(super) async fn forget_sessions(&self, now: UnixMs) -> Result<usize, EngineError> {
        let over = Range::first(keys::SESSIONS, SESSIONS_PER_ROUND).until(keys::after_time(now));
        let entries = self.records.store.range(over).await?;
        let ended: Vec<(String, String)> = entries
            .into_iter()
            .filter_map(|entry| Some((keys::session(&keys::worker_of_entry(&entry)?), entry)))
            .collect();
        if ended.is_empty() {
            return Ok(0);
        }
        let keys: Vec<String> = ended.iter().map(|(key, _)| key.clone()).collect();
        let mut failures = Failures::default();
        let sessions = self.records.read_readable::<SessionRecord>(&keys, &mut failures).await?;
        // A session that was written again since the index was read has another entry now.
        let batches = ended.into_iter().zip(sessions).filter_map(|((key, entry), session)| {
            let session = session.filter(|session| session.value.until <= now)?;
            Some(Batch {
                checks: vec![(key.clone(), session.expectation())],
                deletes: vec![key],
                removals: vec![(keys::SESSIONS.to_owned(), entry)],
                ..Batch::default()
            })
        });
        let verdicts = self.records.store.apply(batches.collect()).await?;
        let forgotten = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Applied(_))).count();
        failures.or(forgotten)
    }
}
