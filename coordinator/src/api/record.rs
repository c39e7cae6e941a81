//! Counts and times every call, from its start to the last byte of its answer, or until it is dropped.

use std::{
    collections::{HashMap, hash_map::Entry},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};
use tracing::Span;

use super::{
    admission::{Place, Seat},
    gate::Expulsion,
    visitors::CallUnderWay,
};

/// After how long a failed or refused call is logged again, for each method and code.
const LOGGED_AGAIN: Duration = Duration::from_secs(10);

/// One call. It is written to the metrics and the log once: when its status is known, or when it is dropped without a status.
#[derive(Debug)]
pub(super) struct CallRecord {
    method: &'static str,
    started: Instant,
    span: Span,
    written: bool,
}

impl CallRecord {
    pub(super) fn start(method: &'static str) -> Self {
        metrics::gauge!("sortinghat_grpc_calls_in_flight", "method" => method).increment(1.0);
        Self { method, started: Instant::now(), span: Span::none(), written: false }
    }

    /// Records that the call ended with this code. Only the first code counts.
    pub(super) fn ended(&mut self, code: Code) {
        if std::mem::replace(&mut self.written, true) {
            return;
        }
        let (method, took) = (self.method, self.started.elapsed());
        metrics::gauge!("sortinghat_grpc_calls_in_flight", "method" => method).decrement(1.0);
        metrics::counter!("sortinghat_grpc_calls_total", "method" => method, "code" => code_name(code)).increment(1);
        metrics::histogram!("sortinghat_grpc_call_seconds", "method" => method).record(took.as_secs_f64());
        let _entered = self.span.enter();
        let (code_name, took_ms) = (code_name(code), took.as_millis() as u64);
        match code {
            Code::Internal | Code::Unknown | Code::DataLoss => {
                if let Some(unlogged) = seldom(method, code) {
                    tracing::error!(method, code = code_name, took_ms, unlogged, "call failed");
                }
            }
            Code::Unavailable | Code::Unauthenticated | Code::PermissionDenied => {
                if let Some(unlogged) = seldom(method, code) {
                    tracing::warn!(method, code = code_name, took_ms, unlogged, "call refused");
                }
            }
            // The counter has all of these; one log line for each would make an overload worse.
            Code::ResourceExhausted => tracing::debug!(method, code = code_name, took_ms, "call refused"),
            _ => tracing::debug!(method, code = code_name, took_ms, "call ended"),
        }
    }

    fn read_status(&mut self, headers: &http::HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.ended(status.code());
        }
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        // A call without a status ended because its caller went away or its deadline passed.
        self.ended(Code::Cancelled);
    }
}

/// Whether to log that a call of this method ended with this code, so that a flood of calls does not flood the log: once in
/// [`LOGGED_AGAIN`]. Returns how many such calls were not logged since the last one that was.
fn seldom(method: &'static str, code: Code) -> Option<u64> {
    /// When calls of a method last ended with a code in the log, and how many have ended so since.
    type Logged = HashMap<(&'static str, i32), (Instant, u64)>;
    static LOGGED: LazyLock<Mutex<Logged>> = LazyLock::new(Mutex::default);
    let mut logged = LOGGED.lock();
    match logged.entry((method, code as i32)) {
        Entry::Occupied(mut entry) if entry.get().0.elapsed() < LOGGED_AGAIN => {
            entry.get_mut().1 += 1;
            None
        }
        Entry::Occupied(mut entry) => Some(entry.insert((Instant::now(), 0)).1),
        Entry::Vacant(entry) => Some(entry.insert((Instant::now(), 0)).1),
    }
}

/// The code's name in the specification of gRPC.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The body of an answer, which keeps the call's places and record until the body ends. It ends early if its caller may not go on.
pub(super) struct RecordedBody {
    body: Body,
    record: CallRecord,
    expulsion: Option<Expulsion>,
    _places: (Place, Option<Seat>, Option<CallUnderWay>),
}

impl RecordedBody {
    /// Makes the call end together with the body of its answer. Call this within the call's span.
    pub(super) fn wrap(
        response: http::Response<Body>,
        mut record: CallRecord,
        places: (Place, Option<Seat>, Option<CallUnderWay>),
        expulsion: Option<Expulsion>,
    ) -> http::Response<Body> {
        record.span = Span::current();
        record.read_status(response.headers());
        response.map(|body| Body::new(Self { body, record, expulsion, _places: places }))
    }

    /// Ends the body with this refusal as the status of the call.
    fn expel(&mut self, refused: &Status) -> Frame<Bytes> {
        self.record.ended(refused.code());
        self.body = Body::empty();
        self.expulsion = None;
        let mut trailers = http::HeaderMap::new();
        if refused.add_header(&mut trailers).is_err() {
            tracing::error!(%refused, "a refusal cannot be written as trailers");
        }
        Frame::trailers(trailers)
    }
}

impl http_body::Body for RecordedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let span = this.record.span.clone();
        let _entered = span.enter();
        if let Some(expulsion) = &mut this.expulsion
            && let Poll::Ready(refused) = expulsion.as_mut().poll(context)
        {
            return Poll::Ready(Some(Ok(this.expel(&refused))));
        }
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.body).poll_frame(context)));
        let Ok(frame) = polled else {
            this.record.ended(Code::Internal);
            return Poll::Ready(Some(Err(Status::internal("a defect in the coordinator ended this stream"))));
        };
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            this.record.read_status(trailers);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
