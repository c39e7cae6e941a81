//! The guard that every call passes. On the way in it authenticates the caller, checks the caller's role and waits for a place; on the way
//! out it records how the call ended.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{FutureExt as _, future::BoxFuture};
use sortinghat_proto::{
    Refusal, Tenant,
    protocol::{self, PROTOCOL_KEY},
    v1::ErrorCode,
    words,
};
use tokio::{runtime::Handle, sync::watch};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, body::Body, service::Routes};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span};

use super::{
    admission::{Admission, Holder, Identities, Open, Place, Seat},
    arrival::TimelyBody,
    gate::{Expulsion, Gate},
    methods::{self, Class, Method},
    record::{CallRecord, RecordedBody},
    visitors::Visit,
};
use crate::auth::{Authenticator, Caller};

/// Puts every call of the server behind the guard.
#[derive(Debug, Clone)]
pub(crate) struct GuardLayer {
    guard: Arc<Guard>,
}

#[derive(Debug)]
struct Guard {
    gate: Gate,
    admission: Admission,
    identities: Arc<Identities>,
    /// Where calls that bring many jobs run.
    bulk: BulkThreads,
}

/// Separate threads for calls that bring many jobs. While a flood of calls is being refused, thousands of them are ready to run. On the
/// same threads, a call that was let in would wait behind them after each of its waits for the store.
#[derive(Debug, Clone)]
pub(crate) struct BulkThreads {
    /// The runtime that these threads belong to.
    pub(crate) threads: Handle,
    /// Whether a lone call also uses these threads. This helps workers over Redis only, not beside a store in the same process.
    pub(crate) for_lone_calls: bool,
}

impl BulkThreads {
    fn take(&self, place: &Place) -> bool {
        self.for_lone_calls || !place.was_only()
    }
}

impl GuardLayer {
    /// A guard that identifies callers by the newest of `tokens`, of which one identity may have `most_open` connections and calls, and runs
    /// calls that bring many jobs on `bulk`.
    pub(super) fn new(tokens: watch::Receiver<Authenticator>, most_open: usize, bulk: BulkThreads) -> Self {
        let (gate, admission, identities) = (Gate::new(tokens), Admission::default(), Identities::new(most_open));
        Self { guard: Arc::new(Guard { gate, admission, identities, bulk }) }
    }
}

impl Layer<Routes> for GuardLayer {
    type Service = Guarded;
    fn layer(&self, inner: Routes) -> Guarded {
        Guarded { guard: self.guard.clone(), inner }
    }
}

impl Guard {
    /// The caller with a seat for the call if the call is allowed, and none if the method needs none; otherwise the refusal.
    fn admit(&self, method: &Method, request: &http::Request<Body>) -> Result<Option<(Caller, Option<Seat>)>, Status> {
        if method.is_open() {
            return Ok(None);
        }
        // What is no text is no number.
        let declared = request.headers().get(PROTOCOL_KEY).map(|value| value.to_str().unwrap_or_default());
        protocol::check(declared)?;
        let visit = request.extensions().get::<Visit>();
        let certificate = visit.and_then(Visit::certificate);
        let caller = self.gate.authenticate(request.headers(), certificate)?;
        if let Some(visit) = visit {
            let expulsion = || self.gate.expulsion(request.headers(), certificate, &caller);
            visit.is_of(&caller, &self.identities, expulsion)?;
        }
        if !method.allows(caller.role) {
            let message =
                format!("{} has the role {} and may not call {}", caller.id, caller.role, method.short_name());
            return Err(Refusal::new(ErrorCode::PermissionDenied, message).into());
        }
        let seat = self.identities.take(&caller, Open::Call)?;
        Ok(Some((caller, seat)))
    }
}

/// Who must leave places to others.
fn holder(method: &Method, caller: Option<&Caller>, visit: Option<&Visit>) -> Option<Holder> {
    match caller {
        // The calls of a worker serve several tenants, so they count against none.
        Some(caller) if caller.is_alone || method.class == Class::Worker => None,
        Some(caller) => caller.tenant.clone().map(Holder::Tenant),
        None => visit.map(|visit| Holder::Address(visit.address())),
    }
}

/// What the log lines of a call say of it.
fn span(method: &Method, caller: Option<&Caller>) -> Span {
    let name = method.short_name();
    match caller {
        Some(Caller { id, tenant, role, .. }) => {
            let (tenant, role, job) = (tenant.as_ref().map(Tenant::as_str), role.as_str(), tracing::field::Empty);
            tracing::info_span!("call", method = name, caller = %id, tenant, role, job)
        }
        None => tracing::info_span!("call", method = name),
    }
}

/// The services behind the guard.
#[derive(Debug, Clone)]
pub(crate) struct Guarded {
    guard: Arc<Guard>,
    inner: Routes,
}

impl Service<http::Request<Body>> for Guarded {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.inner, context).map(|_| Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let visit = request.extensions().get::<Visit>().cloned();
        let path = request.uri().path();
        let Some(method) = methods::find(path) else {
            let status = Status::unimplemented(format!("there is no method {}", words::quoted(path)));
            return Box::pin(async move { Ok(status.into_http()) });
        };
        let mut record = CallRecord::start(method.short_name());
        let (caller, seat) = match self.guard.admit(method, &request) {
            Ok(admitted) => admitted.unzip(),
            Err(status) => {
                record.ended(status.code());
                return Box::pin(async move { Ok(status.into_http()) });
            }
        };
        let under_way = visit.as_ref().map(Visit::begin_call);
        let span = span(method, caller.as_ref());
        let holder = holder(method, caller.as_ref(), visit.as_ref());
        // A call that lasts ends when its caller's token is valid no longer.
        let mut expulsion = match (method.class, &caller) {
            (Class::Watch | Class::Transfer | Class::Worker, Some(caller)) => {
                self.guard.gate.expulsion(request.headers(), visit.as_ref().and_then(Visit::certificate), caller)
            }
            _ => None,
        };
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        let (guard, mut inner) = (self.guard.clone(), self.inner.clone());
        Box::pin(
            async move {
                let place = match guard.admission.take(method.class, holder).await {
                    Ok(place) => place,
                    Err(status) => {
                        record.ended(status.code());
                        return Ok(status.into_http());
                    }
                };
                // The upload's handler bounds how long each part may take, and a reflection may ask again and again.
                if !matches!(method.class, Class::Transfer | Class::Open) {
                    request = TimelyBody::wrap(request);
                }
                let call = inner.call(request).map(|response| response.unwrap_or_else(|never| match never {}));
                let response = match method.class {
                    Class::BulkSubmit if guard.bulk.take(&place) => {
                        AbortOnDropHandle::new(guard.bulk.threads.spawn(call.in_current_span())).await.ok()
                    }
                    _ => unless_expelled(AssertUnwindSafe(call).catch_unwind(), &mut expulsion).await.ok(),
                };
                // A panic ends only the call that it happened in; the panic hook has logged it.
                let response = response.unwrap_or_else(|| Status::from(defect()).into_http());
                Ok(RecordedBody::wrap(response, record, (place, seat.flatten(), under_way), expulsion))
            }
            .instrument(span),
        )
    }
}

/// The result of a call, or the refusal of a caller that may not go on with it.
async fn unless_expelled<E>(
    call: impl Future<Output = Result<http::Response<Body>, E>>,
    expulsion: &mut Option<Expulsion>,
) -> Result<http::Response<Body>, E> {
    let Some(expulsion) = expulsion else { return call.await };
    tokio::select! {
        biased;
        response = call => response,
        refused = expulsion => Ok(refused.into_http()),
    }
}

fn defect() -> Refusal {
    Refusal::new(ErrorCode::Internal, "a defect in the coordinator ended this call; its log says where")
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::{Router, routing::post};
    use futures::poll;
    use sortinghat_proto::{Digest, limits};
    use tonic::Code;

    use super::*;
    use crate::auth::Credentials;

    const PATH: &str = "/sortinghat.v1.JobService/GetJob";
    const BULK_PATH: &str = "/sortinghat.v1.JobService/SubmitJobs";

    /// A service with two methods, both of which run `handler`.
    fn guarded<F>(authenticator: Authenticator, handler: fn() -> F) -> Guarded
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let routes = Routes::from(Router::new().route(PATH, post(handler)).route(BULK_PATH, post(handler)));
        let bulk = BulkThreads { threads: Handle::current(), for_lone_calls: true };
        GuardLayer::new(watch::channel(authenticator).1, usize::MAX, bulk).layer(routes)
    }

    async fn call(service: &mut Guarded, path: &str, token: &str) -> Code {
        let request = http::Request::post(path).header("authorization", format!("Bearer {token}"));
        let Ok(response) = service.call(request.body(Body::empty()).expect("a request")).await;
        Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
    }

    /// Lets in one user of each of these tenants, whose token is the tenant's name.
    fn tenants(names: &[&str]) -> Authenticator {
        let line = |name: &&str| {
            format!("[[tokens]]\nsha256 = '{}'\ntenant = '{name}'\nrole = 'user'\n", Digest::of(name.as_bytes()))
        };
        Authenticator::from(Credentials::parse(&names.iter().map(line).collect::<String>()).expect("valid"))
    }

    #[tokio::test]
    async fn a_defect_in_a_handler_ends_only_its_own_call() {
        let mut service = guarded(Authenticator::Open, || async { panic!("a defect") });
        for (path, places) in
            [(PATH, limits::MAX_BRIEF_CALLS_IN_FLIGHT), (BULK_PATH, limits::MAX_BULK_SUBMITS_IN_FLIGHT)]
        {
            for _ in 0..=places {
                assert_eq!(
                    call(&mut service, path, "").await,
                    Code::Internal,
                    "the place of the call before is free again"
                );
            }
        }
    }

    #[tokio::test]
    async fn one_of_several_tenants_leaves_places_to_the_others_and_a_single_tenant_may_take_all() {
        let all = limits::MAX_BRIEF_CALLS_IN_FLIGHT;
        for (authenticator, places) in
            [(Authenticator::Open, all), (tenants(&["a"]), all), (tenants(&["a", "b"]), all / 4 * 3)]
        {
            let service = guarded(authenticator, pending);
            let begin = |token: &'static str| {
                let mut service = service.clone();
                Box::pin(async move { call(&mut service, PATH, token).await })
            };
            let mut held = Vec::new();
            let refused = loop {
                let mut call = begin("a");
                match poll!(&mut call) {
                    Poll::Pending => held.push(call),
                    Poll::Ready(code) => break code,
                }
            };
            assert_eq!((held.len(), refused), (places, Code::ResourceExhausted));
            assert!(places == all || poll!(begin("b")).is_pending(), "another tenant finds a place");
        }
    }

    #[tokio::test]
    async fn only_an_authenticated_call_makes_a_connection_its_callers() {
        let mut service = guarded(tenants(&["a"]), || async {});
        for (path, token, is_known) in [("/none", "a", false), (PATH, "b", false), (PATH, "a", true)] {
            let visit = Visit::of_nobody().await;
            let request = http::Request::post(path).header("authorization", format!("Bearer {token}"));
            let request = request.header(PROTOCOL_KEY, protocol::PROTOCOL.to_string()).extension(visit.clone());
            let Ok(_) = service.call(request.body(Body::empty()).expect("a request")).await;
            assert_eq!(visit.is_known(), is_known, "{path} {token}");
        }
    }
}
