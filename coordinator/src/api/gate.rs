//! The gate: who a caller is by the tokens and certificates that are valid now, and since when not any more. They may be replaced at any
//! time.

use std::{future::pending, sync::Arc};

use futures::future::BoxFuture;
use http::HeaderMap;
use sortinghat_proto::Refusal;
use tokio::{
    sync::watch,
    time::{Duration, sleep},
};
use tonic::Status;

use crate::{
    auth::{Authenticator, Caller, ShownCertificate},
    store::{Clock as _, SystemClock},
};

/// Ends with the refusal of a call that has begun, or of a connection, when its caller may not go on with it.
pub(super) type Expulsion = BoxFuture<'static, Status>;

/// The tokens and certificates that are valid now. It is cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    tokens: watch::Receiver<Authenticator>,
    clock: Arc<SystemClock>,
}

impl Gate {
    pub(super) fn new(tokens: watch::Receiver<Authenticator>) -> Self {
        Self { tokens, clock: Arc::default() }
    }

    /// The caller whose token is in `headers`, or else who has shown this certificate on the connection.
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        certificate: Option<&Arc<ShownCertificate>>,
    ) -> Result<Caller, Status> {
        self.tokens.borrow().authenticate(headers, certificate.map(AsRef::as_ref), self.clock.now())
    }

    /// Ends when the token in `headers` or the certificate, which is this caller's now, is valid no longer or lets its holder do something
    /// else. `None` on a coordinator without a tokens file, where that cannot happen.
    pub(super) fn expulsion(
        &self,
        headers: &HeaderMap,
        certificate: Option<&Arc<ShownCertificate>>,
        caller: &Caller,
    ) -> Option<Expulsion> {
        if matches!(*self.tokens.borrow(), Authenticator::Open) {
            return None;
        }
        let (mut gate, headers, caller) = (self.clone(), headers.clone(), caller.clone());
        // Not the visit, which may hold this.
        let certificate = certificate.cloned();
        Some(Box::pin(async move {
            loop {
                gate.tokens.borrow_and_update();
                let known = match gate.authenticate(&headers, certificate.as_ref()) {
                    Ok(known) => known,
                    Err(refused) => return refused,
                };
                if !known.is_same(&caller) {
                    let message = format!("what {} may do has changed: call again", caller.id);
                    return Refusal::unauthenticated(message);
                }
                let left_ms = known.expires.map(|expires| expires.ms_since(gate.clock.now()));
                let expiry = async {
                    match left_ms {
                        Some(left_ms) => sleep(Duration::from_millis(left_ms)).await,
                        None => pending().await,
                    }
                };
                tokio::select! {
                    changed = gate.tokens.changed() => if changed.is_err() {
                        // The coordinator drains, and reads no more tokens: the call ends by itself.
                        pending::<()>().await;
                    },
                    () = expiry => {}
                }
            }
        }))
    }
}
