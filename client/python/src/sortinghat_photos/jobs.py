"""Jobs: how they are submitted, and how their history reads."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from google.protobuf.message import Message

from .v1.common_pb2 import Progress
from .v1.jobs_pb2 import Job, JobEvent, JobState, Requirements
from .v1.jobs_service_pb2 import SubmitJobRequest
from .v1.specs_pb2 import AuditSpec, ClassifySpec, EvaluateSpec, FinetuneSpec, GatherSpec, IngestSpec, JobSpec

Spec = IngestSpec | FinetuneSpec | EvaluateSpec | ClassifySpec | AuditSpec | GatherSpec
JobLike = Job | str
# What `watch` gives: an entry of the history, or how far the running attempt has come, which is not stored.
Update = JobEvent | Progress

FINAL = (JobState.JOB_STATE_SUCCEEDED, JobState.JOB_STATE_FAILED, JobState.JOB_STATE_CANCELLED)
# The kind of a job by the message of its spec.
_FIELDS = JobSpec.DESCRIPTOR.oneofs_by_name["kind"].fields
_KINDS = {field.message_type.full_name: field.name for field in _FIELDS if field.message_type}


def id_of(job: JobLike) -> str:
    """The id of a job."""
    return job if isinstance(job, str) else job.id


def made_by(job: JobLike) -> str:
    """What a job will make, as a spec names it: `FinetuneSpec(dataset=made_by(ingest))` waits for the ingest by itself."""
    return f"job:{id_of(job)}"


def new_key() -> str:
    """A key that makes one job of however many tries."""
    return str(uuid.uuid4())


def submission(
    spec: Spec,
    key: str | None,
    parents: Iterable[JobLike],
    priority: int,
    interactive: bool,
    requirements: Requirements | Mapping[str, object] | None,
    not_before: datetime | None,
    deadline: datetime | None,
    labels: Mapping[str, str] | None = None,
    keep_for: timedelta | None = None,
    keep: bool = False,
) -> SubmitJobRequest:
    """The request that submits a job."""
    kind = _KINDS.get(spec.DESCRIPTOR.full_name) if isinstance(spec, Message) else None
    if kind is None:
        names = ", ".join(kind.__name__ for kind in Spec.__args__)
        raise TypeError(f"a spec is one of {names}, not {type(spec).__name__}")
    request = SubmitJobRequest(
        idempotency_key=key or new_key(),
        spec=JobSpec(**{kind: spec}),  # type: ignore[arg-type]
        parents=[id_of(parent) for parent in parents],
        priority=priority,
        lane="LANE_INTERACTIVE" if interactive else "LANE_BULK",
        not_before_unix_ms=unix_ms(not_before),
        deadline_unix_ms=unix_ms(deadline),
        labels=labels or {},
        keep_for_ms=keep_for // timedelta(milliseconds=1) if keep_for else 0,
        keep=keep,
    )
    if requirements:
        given = requirements if isinstance(requirements, Requirements) else Requirements(**requirements)  # type: ignore[arg-type]
        request.requirements.CopyFrom(given)
    return request


def unix_ms(time: datetime | None) -> int:
    """A time as the protocol states it; 0 for none."""
    if time is None:
        return 0
    if time.tzinfo is None:
        raise ValueError(f"{time} has no time zone: use datetime.now(timezone.utc), or astimezone()")
    return int(time.timestamp() * 1000)


def describe(update: Update) -> str:
    """One line for people about an update of a job, such as "decode: 120 of 713 photos"."""
    if isinstance(update, Progress):
        of = f" of {update.total}" if update.total else ""
        return f"{update.phase}: {update.done}{of} {update.unit}"
    kind = update.WhichOneof("event")
    if kind == "state_changed":
        changed = update.state_changed
        state = JobState.Name(changed.state).removeprefix("JOB_STATE_").lower()
        said = changed.failure.message or " ".join(part for part in (changed.output.name, changed.output.summary) if part)
        return f"{state}: {said}" if said else state
    if kind == "attempt_started":
        return f"attempt {update.attempt_started.number} started"
    if kind == "attempt_ended":
        return f"attempt {update.attempt_ended.number} ended{_because(update.attempt_ended.failure.message)}"
    if kind == "epoch_finished":
        epoch = update.epoch_finished
        phase = "frozen epoch" if epoch.frozen else "epoch"
        losses = f"training loss {epoch.train_loss:.3f}, validation loss {epoch.valid_loss:.3f}"
        return f"{phase} {epoch.epoch}: {losses}, accuracy {epoch.accuracy:.1%} of {epoch.valid_photos} photos"
    if kind == "notice":
        return update.notice.message
    return update.log.text if kind == "log" else "an event that only a newer version of this package knows"


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""
