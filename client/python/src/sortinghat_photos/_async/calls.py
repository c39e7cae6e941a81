"""Calls of the server. Each may be repeated, and is, as docs/api.md says."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import grpc

from ..endpoint import Endpoint, open_async_channel
from ..errors import Damaged, refusal
from ..jobs import FINAL, Update
from ..objects import packed_pieces, pieces
from ..retry import Backoff
from ..v1 import (
    artifacts_service_pb2_grpc,
    identity_service_pb2_grpc,
    jobs_service_pb2_grpc,
    workers_service_pb2_grpc,
)
from ..v1.artifacts_service_pb2 import ReadObjectRequest
from ..v1.common_pb2 import ObjectRef
from ..v1.jobs_service_pb2 import (
    GetJobRequest,
    WatchJobRequest,
    WatchPredictionsRequest,
)
from ..waiting import async_pause

_DEADLINE_S = 60.0
_SLOW_BYTES_PER_S = 64 << 10
# The server says something every 15 seconds. A watch that no longer hears anything is opened again after this time at the latest.
_WATCH_S = 300.0
# How long a watch tries to reach a server that is away.
_WATCH_PATIENCE_S = 120.0
_BETWEEN_STREAMS_S = 0.1


class AsyncCalls:
    """One connection, with the token in every call."""

    def __init__(self, endpoint: Endpoint, patience_s: float) -> None:
        self.endpoint, self._patience_s = endpoint, patience_s
        self._channel = open_async_channel(endpoint)
        self._metadata = endpoint.metadata()
        # What protoc generates has no types for grpc's asynchronous half.
        self.jobs: Any = jobs_service_pb2_grpc.JobServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self.artifacts: Any = artifacts_service_pb2_grpc.ArtifactServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self.identity: Any = identity_service_pb2_grpc.IdentityServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self.workers: Any = workers_service_pb2_grpc.WorkerServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        await self._channel.close()

    async def call(self, method: Any, request: Any) -> Any:
        """Makes a call, and repeats it while the server is away or busy."""
        backoff = Backoff(self._patience_s, self.endpoint.url)
        while True:
            try:
                return await method(request, metadata=self._metadata, timeout=_DEADLINE_S)
            except grpc.RpcError as error:
                pause_s = backoff.after(error)
            await async_pause(pause_s)

    async def upload(self, reference: ObjectRef, content: bytes | pathlib.Path) -> bool:
        """Stores an object, from memory or from a file. Returns False if the server received other bytes than were announced."""
        return await self._send(self.artifacts.UploadObject, lambda: pieces(reference, content), reference.size_bytes)

    async def upload_pack(self, pack: list[tuple[ObjectRef, pathlib.Path]]) -> bool:
        """Stores many small files by one call. Returns False if one of them has changed; some may be stored then."""
        size_bytes = sum(reference.size_bytes for reference, _ in pack)
        return await self._send(self.artifacts.UploadObjects, lambda: packed_pieces(pack), size_bytes)

    async def _send(self, method: Any, messages: Callable[[], Iterator[Any]], size_bytes: int) -> bool:
        """Sends a stream, and repeats it while the server is away or busy. Returns False if it is not what was announced."""
        backoff = Backoff(self._patience_s, self.endpoint.url)
        # A slow line takes long for a large object.
        deadline_s = _DEADLINE_S + size_bytes / _SLOW_BYTES_PER_S
        while True:
            try:
                await method(messages(), metadata=self._metadata, timeout=deadline_s)
                return True
            except grpc.RpcError as error:
                refused = refusal(error)
                # A server of an older version knows no packs.
                if error.code() == grpc.StatusCode.UNIMPLEMENTED or (refused is not None and refused.code == "INVALID_ARGUMENT"):
                    return False
                pause_s = backoff.after(error)
            await async_pause(pause_s)

    async def read(self, digest: str, begin: Callable[[], Callable[[bytes], object]]) -> None:
        """Reads an object. Each try calls `begin` for what takes the pieces, so that a broken try leaves nothing behind."""
        backoff = Backoff(self._patience_s, self.endpoint.url)
        while True:
            take, hashed = begin(), hashlib.sha256()
            try:
                async for message in self.artifacts.ReadObject(ReadObjectRequest(digest=digest), metadata=self._metadata):
                    backoff.reset()
                    hashed.update(message.data)
                    take(message.data)
                if hashed.hexdigest() != digest:
                    raise Damaged(f"object {digest} arrived damaged: its bytes have the digest {hashed.hexdigest()}")
                return
            except grpc.RpcError as error:
                pause_s = backoff.after(error)
            await async_pause(pause_s)

    async def read_all(self, digest: str) -> bytes:
        """The content of an object."""
        pieces: list[bytes] = []

        def begin() -> Callable[[bytes], object]:
            pieces.clear()
            return pieces.append

        await self.read(digest, begin)
        return b"".join(pieces)

    async def predictions(self, job_id: str, first_row: int) -> AsyncGenerator[tuple[int, dict[str, Any]], None]:
        """The parts of a classify job's predictions in the order of the upload: the number of the first photo, and the document."""
        backoff = Backoff(_WATCH_PATIENCE_S, self.endpoint.url)
        while True:
            request = WatchPredictionsRequest(job_id=job_id, first_row=first_row, in_order=True)
            stream = self.jobs.WatchPredictions(request, metadata=self._metadata, timeout=_WATCH_S)
            try:
                async for message in stream:
                    backoff.reset()
                    kind = message.WhichOneof("update")
                    if kind == "ended":
                        return
                    if kind == "part":
                        document = json.loads(await self.read_all(message.part.predictions.digest))
                        first_row = message.part.first_row + document["counts"]["inputs"]
                        yield message.part.first_row, document
                # A stream that ends without saying that the job has ended was broken by a coordinator that is replaced.
                pause_s = _BETWEEN_STREAMS_S
            except grpc.RpcError as error:
                pause_s = backoff.after(error)
            finally:
                stream.cancel()
            await async_pause(pause_s)

    async def watch(self, job_id: str, after_sequence: int) -> AsyncGenerator[Update, None]:
        """Every event of a job's history, once and in order, and its progress, until the job has ended."""
        backoff, over = Backoff(_WATCH_PATIENCE_S, self.endpoint.url), False
        while True:
            request = WatchJobRequest(job_id=job_id, after_sequence=after_sequence)
            stream = self.jobs.WatchJob(request, metadata=self._metadata, timeout=_WATCH_S)
            try:
                async for message in stream:
                    backoff.reset()
                    kind = message.WhichOneof("update")
                    if kind == "event":
                        after_sequence = message.event.sequence
                        over = over or message.event.state_changed.state in FINAL
                        yield message.event
                    elif kind == "progress":
                        yield message.progress
                if over:
                    return
                # A coordinator that is replaced ends its streams. If the job has ended meanwhile, the next stream has the rest.
                over = (await self.call(self.jobs.GetJob, GetJobRequest(job_id=job_id))).job.state in FINAL
                pause_s = _BETWEEN_STREAMS_S
            except grpc.RpcError as error:
                pause_s = backoff.after(error)
            finally:
                stream.cancel()
            await async_pause(pause_s)
