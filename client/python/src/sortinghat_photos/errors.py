"""What can go wrong, told apart by what a program can do about it."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from .v1.common_pb2 import ErrorCode, Failure, FailureClass
from .v1.jobs_pb2 import Job

# A connection that breaks during a call shows as one of these codes. The server's own refusals have details, and these have none.
_BROKEN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
}


class SortinghatError(Exception):
    """Everything that this package raises by itself."""


class BadEndpoint(SortinghatError):
    """The address, the token or a certificate cannot be used. The message says what to write instead."""


class Unreachable(SortinghatError):
    """No server answered within the client's patience. Whether the last call had an effect is not known."""


class Damaged(SortinghatError):
    """An object arrived with other bytes than its digest says."""


class UnreadablePhotos(SortinghatError):
    """There is no such folder or file, or no file in it."""


class FailureError(SortinghatError):
    """A failure with a code for programs and a sentence for people, of a call or of a job.

    `code` is a name of the table in docs/api.md, such as "NOT_FOUND". `field` is the field of the spec, the path of the photo or
    the digest at fault, and empty if none is. `may_retry` says whether the same thing may succeed later without any change.
    """

    def __init__(self, failure: Failure, may_retry: bool, text: str) -> None:
        super().__init__(text)
        self.failure = failure
        self.code = ErrorCode.Name(failure.code).removeprefix("ERROR_CODE_")
        self.failure_class = FailureClass.Name(failure.failure_class).removeprefix("FAILURE_CLASS_")
        self.message = failure.message
        self.field = failure.field
        self.may_retry = may_retry


@dataclass(frozen=True)
class Violation:
    """A field of a request, and what is wrong with it."""

    field: str
    description: str


class Refused(FailureError):
    """The server refused a call, which has had no effect.

    `violations` has up to eight fields that are at fault. `retry_after_s` says when to try again, in seconds; it is None unless
    a limit is reached. The client has tried again by itself for as long as its patience lasted.
    """

    def __init__(self, failure: Failure, violations: tuple[Violation, ...], retry_after_s: float | None) -> None:
        code = ErrorCode.Name(failure.code).removeprefix("ERROR_CODE_")
        super().__init__(failure, _is_transient(failure, retry_after_s), f"{failure.message} ({code})")
        self.violations = violations
        self.retry_after_s = retry_after_s


class JobFailed(FailureError):
    """A job that was waited for has failed or was cancelled. `job` is the job; `client.retry(job)` submits it again."""

    def __init__(self, job: Job) -> None:
        code = ErrorCode.Name(job.failure.code).removeprefix("ERROR_CODE_")
        may_retry = job.failure.failure_class != FailureClass.FAILURE_CLASS_USER
        super().__init__(job.failure, may_retry, f"job {job.id} did not succeed: {job.failure.message} ({code})")
        self.job = job


def _is_transient(failure: Failure, retry_after_s: float | None) -> bool:
    return retry_after_s is not None or failure.code == ErrorCode.ERROR_CODE_STORAGE_UNAVAILABLE


def refusal(error: grpc.RpcError) -> Refused | None:
    """What the details of an error say; None if it has none and comes from the transport, a proxy or a bound on time."""
    # What is raised is a call as well, which the types of grpc do not say.
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    if status is None:
        return None
    failure = Failure(message=status.message, code=ErrorCode.ERROR_CODE_INTERNAL)
    violations: tuple[Violation, ...] = ()
    retry_after_s = None
    for detail in status.details:
        if detail.Is(Failure.DESCRIPTOR):
            detail.Unpack(failure)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            info = error_details_pb2.RetryInfo()
            detail.Unpack(info)
            retry_after_s = info.retry_delay.ToTimedelta().total_seconds()
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            request = error_details_pb2.BadRequest()
            detail.Unpack(request)
            violations = tuple(Violation(one.field, one.description) for one in request.field_violations)
    return Refused(failure, violations, retry_after_s)


def is_broken(error: grpc.RpcError) -> bool:
    """Whether an error without details is a connection that broke, so that the call may be repeated."""
    return error.code() in _BROKEN


def error_of(error: grpc.RpcError, url: str) -> SortinghatError:
    """What is raised for an error that is not tried again."""
    refused = refusal(error)
    if refused is not None:
        return refused
    reason = error.details() or error.code().name
    if is_broken(error):
        return Unreachable(
            f"no server answers at {url}: {reason}. `hat up` starts one on this machine; SORTINGHAT_SERVER or the first argument "
            "names another"
        )
    # A proxy, or a bound of the transport: without details, the code is all there is.
    return SortinghatError(f"the call to {url} ended with {error.code().name}: {reason}")
