//! What every call passes on its way in: who is it, may it, is there room; and on its way out: how did it go.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{FutureExt as _, future::BoxFuture};
use sortinghat_proto::{Refusal, v1::ErrorCode};
use tonic::{Status, body::Body, service::Routes};
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::{
    arrival::TimelyBody,
    methods::{self, Class, Method},
    places::Places,
    record::{CallRecord, RecordedBody},
};
use crate::auth::{Authenticator, Caller};

/// Puts every call of the server behind the guard.
#[derive(Debug, Clone)]
pub(crate) struct GuardLayer {
    guard: Arc<Guard>,
}

#[derive(Debug)]
struct Guard {
    authenticator: Authenticator,
    places: Places,
}

impl GuardLayer {
    /// A guard that tells callers apart by `authenticator`.
    pub(super) fn new(authenticator: Authenticator) -> Self {
        Self { guard: Arc::new(Guard { authenticator, places: Places::default() }) }
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
        request.extensions_mut().insert(caller);
        let (guard, mut inner) = (self.guard.clone(), self.inner.clone());
        Box::pin(
            async move {
                let place = match guard.places.take(method.class).await {
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
                let response = match AssertUnwindSafe(inner.call(request)).catch_unwind().await {
                    Ok(Ok(response)) => response,
                    Ok(Err(never)) => match never {},
                    // One call's defect ends that call; the panic hook has logged it.
                    Err(_panic) => Status::from(defect()).into_http(),
                };
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
    use axum::{Router, routing::post};
    use sortinghat_proto::limits;
    use tonic::Code;

    use super::*;

    const PATH: &str = "/sortinghat.v1.JobService/GetJob";

    /// A service with one method that does what `handler` does.
    fn guarded<F>(handler: fn() -> F) -> Guarded
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let routes = Routes::from(Router::new().route(PATH, post(handler)));
        GuardLayer::new(Authenticator::Open).layer(routes)
    }

    async fn call(service: &mut Guarded) -> Code {
        let request = http::Request::post(PATH).body(Body::empty()).expect("a request");
        let Ok(response) = service.call(request).await;
        Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
    }

    #[tokio::test]
    async fn a_defect_in_a_handler_ends_its_call_and_nothing_else() {
        let mut service = guarded(|| async { panic!("a defect") });
        for _ in 0..=limits::MAX_BRIEF_CALLS_IN_FLIGHT {
            assert_eq!(call(&mut service).await, Code::Internal, "its place is free again");
        }
    }
}
