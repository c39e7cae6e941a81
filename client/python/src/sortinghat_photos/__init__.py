"""Sorts photos with a classifier trained on your own: the client of a sortinghat server.

    from sortinghat_photos import Client, FinetuneSpec, IngestSpec, made_by

    with Client() as client:
        ingest = client.submit(IngestSpec(dataset_name="pets", source=client.upload("photos")))
        model = client.wait(client.submit(FinetuneSpec(dataset=made_by(ingest), recipe="fast")))

`AsyncClient` has the same methods for asyncio. Jobs, specs and events are the messages of the protocol, whose fields the .proto
files document.
"""

from ._async.client import AsyncClient
from ._sync.client import Client
from .errors import (
    BadEndpoint,
    Damaged,
    FailureError,
    JobFailed,
    Refused,
    SortinghatError,
    Unreachable,
    UnreadablePhotos,
    Violation,
)
from .jobs import JobLike, Spec, Update, describe, made_by
from .objects import ObjectLike
from .v1.artifacts_pb2 import Dataset, Model
from .v1.common_pb2 import ErrorCode, Failure, FailureClass, ObjectRef, Progress
from .v1.jobs_pb2 import Attempt, Job, JobEvent, JobState, Requirements
from .v1.specs_pb2 import (
    AuditSpec,
    ClassifySpec,
    EvaluateSpec,
    FinetuneSpec,
    FolderLayout,
    GatherClass,
    GatherLicence,
    GatherSpec,
    IngestSpec,
    Precision,
    TrainingCrop,
    TtaRecipe,
)

__all__ = [
    "AsyncClient",
    "Attempt",
    "AuditSpec",
    "BadEndpoint",
    "ClassifySpec",
    "Client",
    "Damaged",
    "Dataset",
    "ErrorCode",
    "EvaluateSpec",
    "Failure",
    "FailureClass",
    "FailureError",
    "FinetuneSpec",
    "FolderLayout",
    "GatherClass",
    "GatherLicence",
    "GatherSpec",
    "IngestSpec",
    "Job",
    "JobEvent",
    "JobFailed",
    "JobLike",
    "JobState",
    "Model",
    "ObjectLike",
    "ObjectRef",
    "Precision",
    "Progress",
    "Refused",
    "Requirements",
    "SortinghatError",
    "Spec",
    "TrainingCrop",
    "TtaRecipe",
    "Unreachable",
    "UnreadablePhotos",
    "Update",
    "Violation",
    "describe",
    "made_by",
]
