//! Whose session it is: the first message of a worker process binds the worker's id to the identity of the caller and to a secret that the
//! process has drawn. Every later message must come from both, whichever coordinator it reaches. So nobody can speak for a worker, not even
//! with a token of the same identity.
//!
//! The binding is a record, since several coordinators must agree on it, and a coordinator must know it after a restart. Each process
//! remembers what it has seen, so only the first message of a worker to a process costs a read.

use sortinghat_proto::{Digest, Refusal, WorkerId, limits::SESSION_SECRET_BYTES, v1::ErrorCode, words::count};

use super::Conversation;
use crate::{
    auth::{Caller, Role},
    engine::{
        context::MAX_TRIES,
        error::EngineError,
        records::{self, SessionRecord, Versioned, expectation, keys},
        workers::{Binding, Bound},
    },
    store::Batch,
};

/// For how many lengths of a lease a silent worker counts as one of its identity's.
const LEASES_COUNTED: u64 = 2;
/// For how long a session is kept after it was written, in milliseconds. A worker that has been silent for longer begins anew.
const KEPT_MS: u64 = 24 * 3_600_000;

impl Conversation {
    /// Refuses a message that does not come from whom the worker's session belongs to. The first message of a worker begins its session.
    pub(super) async fn check_session(
        &self,
        caller: &Caller,
        worker: &WorkerId,
        secret: &[u8],
    ) -> Result<(), EngineError> {
        if secret.len() != SESSION_SECRET_BYTES {
            return Err(no_secret(worker));
        }
        let shown = Binding { identity: caller.id.clone(), secret: Digest::of(secret) };
        let bound = match self.workers.bindings.of(worker) {
            Some(bound) => bound,
            None => {
                self.check_number(caller, worker).await?;
                self.bind(worker, &shown).await?
            }
        };
        if bound == shown { Ok(()) } else { Err(not_the_owner(worker)) }
    }

    /// Refuses a worker that this process does not know if its identity has as many as it may. Each one takes a record and memory, also for
    /// some time after it has ended. One that is not refused counts from now on.
    async fn check_number(&self, caller: &Caller, worker: &WorkerId) -> Result<(), EngineError> {
        let most = self.context.settings.max_workers_per_identity;
        if caller.role == Role::Everyone {
            return Ok(());
        }
        let now = self.records.store.now().await?;
        let bound = Bound { most, within_ms: self.context.rules.lease_ttl_ms * LEASES_COUNTED };
        let presence = |worker: &WorkerId| self.workers.sessions.presence(worker);
        if self.workers.bindings.reserve(worker, &caller.id, bound, now, presence) {
            return Ok(());
        }
        let message = format!(
            "{} has {} workers, and one identity may have no more (the server's setting max_open_per_identity): one that is silent \
             counts for two lengths of a lease, and one that has drained is replaced at once",
            caller.id,
            count(most as u64)
        );
        Err(EngineError::refused(ErrorCode::ResourceExhausted, message))
    }

    /// What a worker is bound to, which is `shown` if it was not bound before. A session that is in use is written again before it ends.
    async fn bind(&self, worker: &WorkerId, shown: &Binding) -> Result<Binding, EngineError> {
        for _ in 0..MAX_TRIES {
            let now = self.records.store.now().await?;
            let known = self.records.read::<SessionRecord>(keys::session(worker)).await?;
            if let Some(Versioned { value, .. }) = &known {
                let bound = Binding { identity: value.identity.clone(), secret: value.secret.clone() };
                if bound != *shown || value.until.ms_since(now) > KEPT_MS / 2 {
                    self.workers.bindings.note(worker, bound.clone());
                    return Ok(bound);
                }
            }
            let Binding { identity, secret } = shown.clone();
            let record = SessionRecord { identity, secret, until: now.plus_ms(KEPT_MS) };
            let entry = |until| (keys::SESSIONS.to_owned(), keys::session_entry(until, worker));
            let batch = Batch {
                checks: vec![(keys::session(worker), expectation(&known))],
                writes: vec![(keys::session(worker), records::encode(&record))],
                removals: known.iter().map(|known| entry(known.value.until)).collect(),
                insertions: vec![entry(record.until)],
                ..Batch::default()
            };
            if self.records.apply_one(batch).await? {
                self.workers.bindings.note(worker, shown.clone());
                return Ok(shown.clone());
            }
        }
        Err(EngineError::contended(format!("the session of worker {worker}")))
    }
}

fn no_secret(worker: &WorkerId) -> EngineError {
    let message = format!(
        "worker {worker} shows no session secret, so it is of an older version: replace it by version {}",
        env!("CARGO_PKG_VERSION")
    );
    Refusal::invalid("session_secret", message).into()
}

fn not_the_owner(worker: &WorkerId) -> EngineError {
    metrics::counter!("sortinghat_foreign_worker_messages_total").increment(1);
    let message = format!(
        "worker {worker} belongs to another identity or to another process: start the worker again, which gives it an id of its own"
    );
    EngineError::refused(ErrorCode::PermissionDenied, message)
}
