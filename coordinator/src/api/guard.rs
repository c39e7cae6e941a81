//! What every call passes on its way in: who is it, may it, is there room; and on its way out: how did it go.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{FutureExt as _, future::BoxFuture};
use sortinghat_proto::{Refusal, v1::ErrorCode};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, body::Body, service::Routes};
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::{
    arrival::TimelyBody,
    methods::{self, Class, Method},
    places::{Place, Places},
    record::{CallRecord, RecordedBody},
};
use crate::auth::{Authenticator, Caller, Role};

/// Puts every call of the server behind the guard.
#[derive(Debug, Clone)]
pub(crate) struct GuardLayer {
    guard: Arc<Guard>,
}

#[derive(Debug)]
struct Guard {
    authenticator: Authenticator,
    /// By users of several tenants.
    is_shared: bool,
    places: Places,
    /// Where calls that bring many jobs run.
    bulk: BulkThreads,
}

/// Threads of their own for calls that bring many jobs. Where a flood is refused, thousands of calls are ready to go on: among them one
/// that was let in would wait each time that it has waited for the store.
#[derive(Debug, Clone)]
pub(crate) struct BulkThreads {
    pub(crate) threads: Handle,
    /// Also for a call that is alone: over Redis workers then get more done, beside a store in the same process they do not.
    pub(crate) for_lone_calls: bool,
}

impl BulkThreads {
    fn takes(&self, place: &Place) -> bool {
        self.for_lone_calls || !place.is_first()
    }
}

impl GuardLayer {
    /// A guard that tells callers apart by `authenticator`, and has calls that bring many jobs run by `bulk`.
    pub(super) fn new(authenticator: Authenticator, bulk: BulkThreads) -> Self {
        let is_shared = authenticator.has_several_tenants();
        Self { guard: Arc::new(Guard { authenticator, is_shared, places: Places::default(), bulk }) }
    }
}

impl Layer<Routes> for GuardLayer {
    type Service = Guarded;
    fn layer(&self, inner: Routes) -> Guarded {
        Guarded { guard: self.guard.clone(), inner }
    }
}

impl Guard {
    /// The caller, or why the call is refused.
    fn admit(&self, method: &Method, request: &http::Request<Body>) -> Result<Caller, Status> {
        let caller = self.authenticator.authenticate(request.headers())?;
        if !method.allows(caller.role) {
            let message =
                format!("a token with the role {} may not call {}", caller.role.as_str(), method.short_name());
            return Err(Refusal::new(ErrorCode::PermissionDenied, message).into());
        }
        Ok(caller)
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
        let path = request.uri().path();
        let Some(method) = methods::find(path) else {
            if path.starts_with(methods::PACKAGE) {
                let status = Status::unimplemented(format!("there is no method {path}"));
                return Box::pin(async move { Ok(status.into_http()) });
            }
            return Box::pin(self.inner.call(request).map(|response| response.map_err(|never| match never {})));
        };
        let mut record = CallRecord::start(method.short_name());
        let caller = match self.guard.admit(method, &request) {
            Ok(caller) => caller,
            Err(status) => {
                record.ended(status.code());
                return Box::pin(async move { Ok(status.into_http()) });
            }
        };
        let span = tracing::info_span!(
            "call", method = method.short_name(), tenant = %caller.tenant, role = caller.role.as_str(),
            job = tracing::field::Empty
        );
        // Workers serve all tenants.
        let shares = self.guard.is_shared && caller.role != Role::Worker;
        let tenant = shares.then(|| caller.tenant.clone());
        request.extensions_mut().insert(caller);
        let (guard, mut inner) = (self.guard.clone(), self.inner.clone());
        Box::pin(
            async move {
                let place = match guard.places.take(method.class, tenant).await {
                    Ok(place) => place,
                    Err(status) => {
                        record.ended(status.code());
                        return Ok(status.into_http());
                    }
                };
                // The parts of an upload have bounds of their own.
                if method.class != Class::Transfer {
                    request = TimelyBody::wrap(request);
                }
                let call = inner.call(request).map(|response| response.unwrap_or_else(|never| match never {}));
                let response = match method.class {
                    Class::BulkSubmit if guard.bulk.takes(&place) => {
                        AbortOnDropHandle::new(guard.bulk.threads.spawn(call.in_current_span())).await.ok()
                    }
                    _ => AssertUnwindSafe(call).catch_unwind().await.ok(),
                };
                // One call's defect ends that call; the panic hook has logged it.
                let response = response.unwrap_or_else(|| Status::from(defect()).into_http());
                Ok(RecordedBody::wrap(response, record, place))
            }
            .instrument(span),
        )
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

    /// A service with two methods that do what `handler` does.
    fn guarded<F>(authenticator: Authenticator, handler: fn() -> F) -> Guarded
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let routes = Routes::from(Router::new().route(PATH, post(handler)).route(BULK_PATH, post(handler)));
        let bulk = BulkThreads { threads: Handle::current(), for_lone_calls: true };
        GuardLayer::new(authenticator, bulk).layer(routes)
    }

    async fn call(service: &mut Guarded, path: &str, token: &str) -> Code {
        let request = http::Request::post(path).header("authorization", format!("Bearer {token}"));
        let Ok(response) = service.call(request.body(Body::empty()).expect("a request")).await;
        Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
    }

    /// Lets in whoever has the name of a tenant as a token.
    fn tenants(names: &[&str]) -> Authenticator {
        let line = |name: &&str| {
            format!("[[tokens]]\nsha256 = '{}'\ntenant = '{name}'\nrole = 'user'\n", Digest::of(name.as_bytes()))
        };
        Authenticator::Tokens(Credentials::parse(&names.iter().map(line).collect::<String>()).expect("valid"))
    }

    #[tokio::test]
    async fn a_defect_in_a_handler_ends_its_call_and_nothing_else() {
        let mut service = guarded(Authenticator::Open, || async { panic!("a defect") });
        for (path, places) in
            [(PATH, limits::MAX_BRIEF_CALLS_IN_FLIGHT), (BULK_PATH, limits::MAX_BULK_SUBMITS_IN_FLIGHT)]
        {
            for _ in 0..=places {
                assert_eq!(call(&mut service, path, "").await, Code::Internal, "its place is free again");
            }
        }
    }

    #[tokio::test]
    async fn one_of_several_tenants_leaves_room_to_the_others_and_a_lone_one_has_it_all() {
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
            assert!(places == all || poll!(begin("b")).is_pending(), "the others have theirs");
        }
    }
}
