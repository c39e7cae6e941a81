"""The client: photos up, jobs in, results back."""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
from collections.abc import AsyncGenerator, Iterable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..endpoint import Endpoint, PathLike
from ..errors import JobFailed
from ..folder import in_batches, listing
from ..jobs import FINAL, JobLike, Spec, Update, id_of, new_key, submission, unix_ms
from ..objects import (
    CHANGED,
    ObjectLike,
    digest_of,
    manifest,
    packs,
    photo,
    places_of,
    reference_of,
)
from ..tables import csv_table, parquet_table
from ..v1.artifacts_pb2 import Dataset, Model
from ..v1.artifacts_service_pb2 import (
    DeleteDatasetRequest,
    DeleteModelRequest,
    DeleteObjectsRequest,
    FindMissingObjectsRequest,
    GetDatasetRequest,
    GetModelRequest,
    ListDatasetsRequest,
    ListModelsRequest,
)
from ..v1.common_pb2 import ObjectRef
from ..v1.identity_service_pb2 import WhoAmIRequest, WhoAmIResponse
from ..v1.jobs_pb2 import Job, JobState, Requirements
from ..v1.jobs_service_pb2 import (
    CancelJobRequest,
    DeleteJobRequest,
    ExplainJobRequest,
    ExplainJobResponse,
    GetJobRequest,
    ListJobsRequest,
    RetryJobRequest,
)
from ..v1.workers_service_pb2 import ListWorkersRequest, Worker
from ..waiting import async_map, async_run
from .calls import AsyncCalls

if TYPE_CHECKING:
    import pyarrow

_FILES_AT_A_TIME = 8
_CALLS_AT_A_TIME = 8
_DIGESTS_PER_CALL = 1000


class AsyncClient:
    """One connection to a server, as one tenant.

    Without arguments it finds the server, the token and the certificates as `hat` does: by SORTINGHAT_SERVER, SORTINGHAT_TOKEN or
    SORTINGHAT_TOKEN_FILE, and SORTINGHAT_CA_FILE, and else the server that `hat up` has started on this machine. `certificate_file`
    and `key_file` (PEM) are for a server or a proxy that asks for a certificate of its callers.

    Every call is repeated for `patience_s` seconds while the server is away or busy; a submitted job is one job all the same. What
    is refused raises `Refused`, and a server that stays away raises `Unreachable`. It connects at the first call.
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        token: str | None = None,
        token_file: PathLike | None = None,
        ca_file: PathLike | None = None,
        certificate_file: PathLike | None = None,
        key_file: PathLike | None = None,
        patience_s: float = 15.0,
    ) -> None:
        endpoint = Endpoint.find(server, token, token_file, ca_file, certificate_file, key_file)
        self._calls = AsyncCalls(endpoint, patience_s)

    @property
    def url(self) -> str:
        """The address of the server."""
        return self._calls.endpoint.url

    async def close(self) -> None:
        """Ends the connection. A job that was submitted goes on."""
        await self._calls.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # Photos and other objects

    async def upload(self, photos: PathLike | Mapping[str, PathLike]) -> ObjectRef:
        """Uploads photos that the server lacks, and returns the upload as `source` of a spec wants it.

        `photos` is a folder (with a folder for each class if it is to be learned from), one file, or a mapping from the path in the
        upload to the file. A folder is read by the rules of docs/datasets.md. A file that cannot be read costs only itself: it
        becomes a rejection of the dataset, or an error in its row of predictions.
        """
        found = await async_run(listing, photos)
        read: dict[str, ObjectRef | str] = {}
        for paths in in_batches(list(found.files), _DIGESTS_PER_CALL):
            read.update(await self._upload_photos({path: found.files[path] for path in paths}))
        return await self.upload_bytes(manifest(found, read))

    async def _upload_photos(self, files: Mapping[str, pathlib.Path]) -> dict[str, ObjectRef | str]:
        """Uploads those of some files that the server lacks; for each its reference, or why it could not be read."""

        async def hashed(path: pathlib.Path) -> ObjectRef | str:
            return await async_run(photo, path)

        photos = await async_map(hashed, files.values(), _FILES_AT_A_TIME)
        read, places = dict(zip(files, photos, strict=True)), places_of(files.values(), photos)

        async def unsent(pack: list[ObjectRef]) -> list[ObjectRef]:
            if len(pack) > 1 and await self._calls.upload_pack([(each, places[each.digest][0]) for each in pack]):
                return []
            return [each for each in pack if not await self._upload_from_one_of(each, places[each.digest])]

        missing = set(await self.missing(places))
        wanted = {each.digest: each for each in photos if isinstance(each, ObjectRef) and each.digest in missing}
        for lost in await async_map(unsent, packs(wanted.values()), _CALLS_AT_A_TIME):
            changed = {each.digest for each in lost}
            read.update({path: CHANGED for path, each in read.items() if isinstance(each, ObjectRef) and each.digest in changed})
        return read

    async def _upload_from_one_of(self, reference: ObjectRef, places: list[pathlib.Path]) -> bool:
        """Uploads a content that several files may have from the first that still has it. Returns False if none has."""
        for path in places:
            if await self._calls.upload(reference, path):
                return True
        return False

    async def upload_bytes(self, content: bytes) -> ObjectRef:
        """Stores one object, such as a decisions file or weights, unless the server has it."""
        reference = reference_of(content)
        if await self.missing([reference.digest]) and not await self._calls.upload(reference, content):
            raise AssertionError("bytes in memory do not change")
        return reference

    async def missing(self, digests: Iterable[str]) -> list[str]:
        """Those of some digests that the server has no object for. The others are kept for half a day, for a job to read them."""
        lacking: list[str] = []
        for some in in_batches(list(digests), _DIGESTS_PER_CALL):
            answer = await self._calls.call(self._calls.artifacts.FindMissingObjects, FindMissingObjectsRequest(digests=some))
            lacking.extend(answer.missing)
        return lacking

    async def read(self, item: ObjectLike) -> bytes:
        """The content of an object: of a reference, of a part that a document names, or of the document of what a job made."""
        return await self._calls.read_all(digest_of(item))

    async def delete_objects(self, items: Iterable[ObjectLike]) -> timedelta:
        """Asks for objects to be removed soon to which no job, dataset or model refers. Returns after which time they are gone."""
        digests, longest = [digest_of(item) for item in items], timedelta()
        for some in in_batches(digests, _DIGESTS_PER_CALL):
            answer = await self._calls.call(self._calls.artifacts.DeleteObjects, DeleteObjectsRequest(digests=some))
            longest = max(longest, timedelta(milliseconds=answer.objects_gone_within_ms))
        return longest

    async def download(self, item: ObjectLike, path: PathLike) -> None:
        """Writes the content of an object to a file, which appears once it is complete. An existing file is replaced."""
        target = pathlib.Path(path)
        with tempfile.NamedTemporaryFile(dir=target.absolute().parent, prefix=f".{target.name}.", delete=False) as file:
            try:

                def begin() -> Any:
                    file.seek(0)
                    file.truncate()
                    return file.write

                await self._calls.read(digest_of(item), begin)
                file.flush()
                os.chmod(file.name, 0o644)
                os.replace(file.name, target)
            except BaseException:
                os.unlink(file.name)
                raise

    async def document(self, item: ObjectLike) -> dict[str, Any]:
        """The JSON document of what a job made, or of any object that is one. docs/api.md has the formats."""
        document: dict[str, Any] = json.loads(await self.read(item))
        return document

    # Jobs

    async def submit(
        self,
        spec: Spec,
        *,
        key: str | None = None,
        parents: Iterable[JobLike] = (),
        priority: int = 0,
        interactive: bool = False,
        requirements: Requirements | Mapping[str, object] | None = None,
        not_before: datetime | None = None,
        deadline: datetime | None = None,
        labels: Mapping[str, str] | None = None,
        keep_for: timedelta | None = None,
        keep: bool = False,
    ) -> Job:
        """Submits a job and returns it. It is durable then.

        `labels` are for your own use, and `jobs` finds by them. A job is kept after its end for `keep_for`, or with `keep` until
        `delete_job`, or else for as long as the operator has set. The same `key` with the same spec is the same job, also for
        another program or another day. Without a key, each call of this method is a job of its own, however often it has to be
        repeated.
        """
        when = (not_before, deadline)
        request = submission(spec, key, parents, priority, interactive, requirements, *when, labels, keep_for, keep)
        job: Job = (await self._calls.call(self._calls.jobs.SubmitJob, request)).job
        return job

    async def get(self, job: JobLike) -> Job:
        """The job as it is now."""
        now: Job = (await self._calls.call(self._calls.jobs.GetJob, GetJobRequest(job_id=id_of(job)))).job
        return now

    async def watch(self, job: JobLike, after_sequence: int = 0) -> AsyncGenerator[Update, None]:
        """Follows a job: every event of its history, once and in order, and its progress, until it has ended.

        A server that is replaced meanwhile is waited for. `describe` makes a line of an update.
        """
        async for update in self._calls.watch(id_of(job), after_sequence):
            yield update

    async def wait(self, job: JobLike) -> Job:
        """Waits until a job has ended, and returns it.

        Raises `JobFailed` if it has failed or was cancelled.
        """
        async for _ in self.watch(job):
            pass
        return _succeeded(await self.get(job))

    async def cancel(self, job: JobLike) -> Job:
        """Asks for the cancellation of a job. One that runs ends a little later, and one that has ended stays as it is."""
        cancelled: Job = (await self._calls.call(self._calls.jobs.CancelJob, CancelJobRequest(job_id=id_of(job)))).job
        return cancelled

    async def retry(self, job: JobLike, *, key: str | None = None) -> Job:
        """Submits a failed or cancelled job again, as a new job, which it returns."""
        request = RetryJobRequest(job_id=id_of(job), idempotency_key=key or new_key())
        again: Job = (await self._calls.call(self._calls.jobs.RetryJob, request)).job
        return again

    async def explain(self, job: JobLike) -> ExplainJobResponse:
        """Why a job waits, where it runs, or how it ended: `sentence` for people, `reason` for programs."""
        why: ExplainJobResponse = await self._calls.call(self._calls.jobs.ExplainJob, ExplainJobRequest(job_id=id_of(job)))
        return why

    async def delete_job(self, job: JobLike) -> timedelta:
        """Removes a job that has ended, with its history and its results. A dataset or a model that it has made stays.

        Returns after which time the objects are gone to which nothing else refers; `delete_objects` is faster.
        """
        answer = await self._calls.call(self._calls.jobs.DeleteJob, DeleteJobRequest(job_id=id_of(job)))
        return timedelta(milliseconds=answer.objects_gone_within_ms)

    async def jobs(
        self,
        *,
        states: Iterable[JobState] = (),
        kind: str = "",
        labels: Mapping[str, str] | None = None,
        key: str = "",
        created_from: datetime | None = None,
        created_before: datetime | None = None,
    ) -> AsyncGenerator[Job, None]:
        """All jobs, or those that match all of what is given, such as the kind "ingest". The newest comes first."""
        request = ListJobsRequest(
            states=list(states),
            kind=kind,
            labels=labels or {},
            idempotency_key=key,
            created_from_unix_ms=unix_ms(created_from),
            created_before_unix_ms=unix_ms(created_before),
            page_size=1000,
        )
        while True:
            page = await self._calls.call(self._calls.jobs.ListJobs, request)
            for job in page.jobs:
                yield job
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    # Datasets, models and their names

    async def datasets(self) -> AsyncGenerator[Dataset, None]:
        """All datasets by name, the newest version first."""
        request = ListDatasetsRequest(page_size=1000)
        while True:
            page = await self._calls.call(self._calls.artifacts.ListDatasets, request)
            for dataset in page.datasets:
                yield dataset
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def models(self) -> AsyncGenerator[Model, None]:
        """All models by name, the newest version first."""
        request = ListModelsRequest(page_size=1000)
        while True:
            page = await self._calls.call(self._calls.artifacts.ListModels, request)
            for model in page.models:
                yield model
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def dataset(self, name: str) -> Dataset:
        """One dataset: "stamps@1", or "stamps" for its newest version."""
        found: Dataset = (await self._calls.call(self._calls.artifacts.GetDataset, GetDatasetRequest(name=name))).dataset
        return found

    async def model(self, name: str) -> Model:
        """One model: "stamps/1", or "stamps" for its newest version."""
        found: Model = (await self._calls.call(self._calls.artifacts.GetModel, GetModelRequest(name=name))).model
        return found

    async def delete_dataset(self, name: str) -> None:
        """Removes the name of a dataset, which needs a version: "stamps@1". A model keeps what it was made from."""
        await self._calls.call(self._calls.artifacts.DeleteDataset, DeleteDatasetRequest(name=name))

    async def delete_model(self, name: str) -> None:
        """Removes the name of a model, which needs a version: "stamps/1"."""
        await self._calls.call(self._calls.artifacts.DeleteModel, DeleteModelRequest(name=name))

    # Results as tables

    async def predictions(self, job: ObjectLike) -> pyarrow.Table:
        """The predictions of a classify job: a row for each file, in the order of the upload. `to_pandas()` makes a frame of it."""
        return await self._predicted(await self.document(await self._ended(job)))

    async def watch_predictions(self, job: JobLike, first_row: int = 0) -> AsyncGenerator[pyarrow.Table, None]:
        """The predictions of a classify job while it runs: a table for each part that is done, in the order of the upload.

        Photos are counted from 0, and `first_row` leaves out those before it. A large job has many parts, and a small one has one.
        Once everything that was predicted has come, it raises `JobFailed` if the job has failed or was cancelled.
        """
        async for start, document in self._calls.predictions(id_of(job), first_row):
            table = await self._predicted(document)
            known = max(first_row - start, 0)
            first_row = max(first_row, start + table.num_rows)
            if known < table.num_rows:
                yield table.slice(known)
        _succeeded(await self.get(job))

    async def _predicted(self, document: Mapping[str, Any]) -> pyarrow.Table:
        return parquet_table([await self.read(part) for part in document["parts"]], None)

    async def photos(self, dataset: ObjectLike | Dataset, columns: list[str] | None = None) -> pyarrow.Table:
        """The photos of a dataset, a row for each. Name `columns`, such as ["label", "digest"], unless you want the pictures."""
        item = dataset.manifest if isinstance(dataset, Dataset) else await self._ended(dataset)
        document = await self.document(item)
        return parquet_table([await self.read(part) for part in document["shards"]], columns)

    async def judgements(self, job: ObjectLike) -> pyarrow.Table:
        """The photos of an evaluate job: for each its label, what was predicted, and the probability of each class."""
        document = await self.document(await self._ended(job))
        return csv_table(await self.read(document["predictions"]))

    async def _ended(self, item: ObjectLike) -> ObjectLike:
        """A job as it is at its end; anything else as it is."""
        if isinstance(item, Job) and item.state not in FINAL:
            return await self.wait(item)
        return item

    # The server

    async def who_am_i(self) -> WhoAmIResponse:
        """Who the server takes the caller for, and what that lets it do."""
        answer: WhoAmIResponse = await self._calls.call(self._calls.identity.WhoAmI, WhoAmIRequest())
        return answer

    async def workers(self) -> list[Worker]:
        """The workers that the server has heard of within the last lease."""
        answer = await self._calls.call(self._calls.workers.ListWorkers, ListWorkersRequest())
        return list(answer.workers)


def _succeeded(job: Job) -> Job:
    """The job, if it has succeeded."""
    if job.state != JobState.JOB_STATE_SUCCEEDED:
        raise JobFailed(job)
    return job
