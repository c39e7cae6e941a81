//! What one identity may have open at a time, however many tokens and machines it has. Without this, whoever has one token could take the
//! descriptors and the memory of a coordinator that all share.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use sortinghat_proto::{Name, words::count};
use tonic::Status;

use super::busy;
use crate::auth::{Caller, Role};

/// After how long a refused caller may try again, on average.
const PAUSE: Duration = Duration::from_secs(2);

/// What is counted of an identity, each by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::api) enum Open {
    /// Connections.
    Connection,
    /// Calls of any class.
    Call,
}

/// Counts what each identity has open.
#[derive(Debug)]
pub(in crate::api) struct Identities {
    most: usize,
    open: Mutex<HashMap<(Name, Open), usize>>,
}

/// One of the things that an identity has open. It counts until this is dropped.
#[derive(Debug)]
pub(in crate::api) struct Seat {
    identities: Arc<Identities>,
    of: (Name, Open),
}

impl Open {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connections open",
            Self::Call => "calls under way",
        }
    }
}

impl Identities {
    /// Each identity may have so many connections open, and so many calls under way.
    pub(in crate::api) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default() })
    }

    /// Counts one more of the caller's; `None` where everybody is one caller, as on a coordinator without a tokens file.
    ///
    /// # Errors
    /// The refusal that names the bound, and when to try again.
    pub(in crate::api) fn take(self: &Arc<Self>, caller: &Caller, what: Open) -> Result<Option<Seat>, Status> {
        if caller.role == Role::Everyone {
            return Ok(None);
        }
        let of = (caller.id.clone(), what);
        {
            let mut open = self.open.lock();
            let has = open.entry(of.clone()).or_default();
            if *has >= self.most {
                return Err(self.refusal(caller, what));
            }
            *has += 1;
        }
        Ok(Some(Seat { identities: self.clone(), of }))
    }

    fn refusal(&self, caller: &Caller, what: Open) -> Status {
        let (id, most, what) = (&caller.id, count(self.most as u64), what.as_str());
        let message = format!(
            "{id} has {most} {what}, and one identity may have no more (the server's setting max_open_per_identity): end some, or try again later"
        );
        busy(&message, PAUSE)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.identities.open.lock();
        if let Some(has) = open.get_mut(&self.of) {
            *has -= 1;
            if *has == 0 {
                open.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sortinghat_proto::retry_after;

    use super::*;

    fn worker(id: &str) -> Caller {
        Caller { id: id.parse().expect("a name"), role: Role::Worker, ..Caller::everyone() }
    }

    #[test]
    fn each_identity_has_its_own_bound_on_connections_and_on_calls() {
        let identities = Identities::new(2);
        let (anna, bob) = (worker("anna"), worker("bob"));
        let held =
            [Open::Connection, Open::Connection, Open::Call].map(|what| identities.take(&anna, what).expect("room"));
        let refused = identities.take(&anna, Open::Connection).expect_err("anna has two connections");
        assert!(refused.message().starts_with("anna has 2 connections open"), "{refused}");
        assert!(refused.message().contains("max_open_per_identity") && retry_after(&refused).is_some(), "{refused}");
        identities.take(&anna, Open::Call).expect("calls are counted by themselves");
        identities.take(&bob, Open::Connection).expect("others have their own");
        drop(held);
        assert!(identities.open.lock().is_empty());
    }

    #[test]
    fn everybody_on_a_coordinator_without_a_tokens_file_is_not_bounded() {
        let identities = Identities::new(1);
        let held = [(); 3].map(|()| identities.take(&Caller::everyone(), Open::Call).expect("room"));
        assert!(held.iter().all(Option::is_none));
    }
}
