"""A client of sortinghat's API, written from docs/api.md and the .proto files alone.

    client = Client("127.0.0.1:7878", token)
    source = client.upload({"cats/a.jpg": pathlib.Path("a.jpg"), ...})
    job = client.follow(client.submit({"ingest": {"dataset_name": "pets", "source": source}}).id)
    manifest = client.document(job.output.manifest)

It needs grpcio, grpcio-tools and grpcio-status, and pyarrow for `Client.table`.
"""

import hashlib
import importlib
import io
import json
import pathlib
import random
import sys
import tempfile
import time
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
PIECE_BYTES = 1 << 20
DIGESTS_PER_CALL = 1000
PACKED_OBJECTS, PACKED_BYTES = 1000, 8 << 20
# A larger object is uploaded in parts.
PART_BYTES = 16 << 20
DEADLINE_S = 60
PATIENCE_S = 60
# A connection that breaks shows as one of these codes, without details.
BROKEN = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


def generate(folder):
    """Generates the messages and stubs into `folder` and imports them, by the name of their .proto file."""
    files = sorted((PROTO / "sortinghat" / "v1").glob("*.proto"))
    arguments = ["protoc", f"-I{PROTO}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main(arguments + [str(file) for file in files]) != 0:
        raise RuntimeError("the .proto files do not compile")
    sys.path.insert(0, str(folder))
    modules = {file.stem: importlib.import_module(f"sortinghat.v1.{file.stem}_pb2") for file in files}
    for name in ("jobs_service", "artifacts_service", "workers_service"):
        modules[f"{name}_grpc"] = importlib.import_module(f"sortinghat.v1.{name}_pb2_grpc")
    return modules


class Refused(Exception):
    """The server refused a call: why, in words and for programs."""

    def __init__(self, error, status, failure):
        super().__init__(f"{error.code().name}: {error.details()}")
        self.code = error.code()
        self.message = error.details()
        self.reason = self.domain = self.retry_after_s = None
        self.field = failure.field
        self.violations = []
        for detail in status.details:
            for known in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo, error_details_pb2.BadRequest):
                if detail.Is(known.DESCRIPTOR):
                    message = known()
                    detail.Unpack(message)
                    self._take(message)
        self.failure = failure

    def _take(self, message):
        if isinstance(message, error_details_pb2.ErrorInfo):
            self.reason, self.domain = message.reason, message.domain
        elif isinstance(message, error_details_pb2.RetryInfo):
            self.retry_after_s = message.retry_delay.ToTimedelta().total_seconds()
        else:
            self.violations = [(violation.field, violation.description) for violation in message.field_violations]


class Client:
    """One connection to a server, as one tenant."""

    _modules = None

    def __init__(self, address, token=None, credentials=None):
        if Client._modules is None:
            Client._folder = tempfile.TemporaryDirectory()
            Client._modules = generate(Client._folder.name)
        self.pb = Client._modules
        self.channel = grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
        self.jobs = self.pb["jobs_service_grpc"].JobServiceStub(self.channel)
        self.artifacts = self.pb["artifacts_service_grpc"].ArtifactServiceStub(self.channel)
        self.metadata = [("authorization", f"Bearer {token}")] if token else []

    def close(self):
        self.channel.close()

    # Calls

    def call(self, method, request):
        """Makes a call that may be repeated. `request` is a message, or a function that returns a new stream of messages."""
        end, pause = time.monotonic() + PATIENCE_S, 0.1
        while True:
            try:
                message = request() if callable(request) else request
                return method(message, metadata=self.metadata, timeout=DEADLINE_S)
            except grpc.RpcError as error:
                pause = self._pause_or_raise(error, end, pause)

    def _pause_or_raise(self, error, end, pause):
        """Waits before the call is repeated, and returns how long to wait the next time. Raises what no time will mend."""
        refused = self.refusal(error)
        if refused is None:
            may_repeat = error.code() in BROKEN | {grpc.StatusCode.UNAVAILABLE}
        else:
            may_repeat = error.code() == grpc.StatusCode.UNAVAILABLE or refused.retry_after_s is not None
        if not may_repeat or time.monotonic() > end:
            raise (refused or error) from error
        time.sleep((refused and refused.retry_after_s or 0) + pause * (0.5 + random.random() / 2))
        return min(pause * 2, 5)

    def refusal(self, error):
        """What the details of an error say; None if it has none, so that it comes from the transport or a proxy."""
        status = rpc_status.from_call(error)
        if status is None:
            return None
        failure = self.pb["common"].Failure()
        for detail in status.details:
            if detail.Is(failure.DESCRIPTOR):
                detail.Unpack(failure)
        return Refused(error, status, failure)

    # Objects

    def reference(self, content):
        return self.pb["common"].ObjectRef(digest=hashlib.sha256(content).hexdigest(), size_bytes=len(content))

    def upload_object(self, content):
        """Stores one object and returns its reference."""
        message = self.pb["artifacts_service"].UploadObjectRequest
        reference = self.reference(content)

        def parts():
            yield message(header=reference)
            for start in range(0, len(content), PIECE_BYTES):
                yield message(data=content[start : start + PIECE_BYTES])

        self.call(self.artifacts.UploadObject, parts)
        return reference

    def upload_pack(self, contents):
        """Stores many small objects by one call."""
        message, index = self.pb["artifacts_service"].UploadObjectsRequest, self.pb["artifacts_service"].PackIndex

        def parts():
            yield message(index=index(objects=[self.reference(content) for content in contents]))
            stream = b"".join(contents)
            for start in range(0, len(stream), PIECE_BYTES):
                yield message(data=stream[start : start + PIECE_BYTES])

        self.call(self.artifacts.UploadObjects, parts)

    def upload_in_parts(self, content):
        """Stores one large object, of which those parts are sent that the server lacks."""
        parts = [content[start : start + PART_BYTES] for start in range(0, len(content), PART_BYTES)]
        missing = self.missing(parts)
        for part in parts:
            if self.reference(part).digest in missing:
                self.upload_object(part)
        request = self.pb["artifacts_service"].JoinObjectsRequest(
            object=self.reference(content), parts=[self.reference(part) for part in parts]
        )
        self.call(self.artifacts.JoinObjects, request)
        return self.reference(content)

    def missing(self, contents):
        """The digests of those contents that the server lacks."""
        digests = [self.reference(content).digest for content in contents]
        request = self.pb["artifacts_service"].FindMissingObjectsRequest
        starts = range(0, len(digests), DIGESTS_PER_CALL)
        asked = [request(digests=digests[start : start + DIGESTS_PER_CALL]) for start in starts]
        return {digest for some in asked for digest in self.call(self.artifacts.FindMissingObjects, some).missing}

    def upload(self, files):
        """Uploads those files that the server lacks, and then the manifest that lists all of them, whose reference it returns.

        `files` has the path of each file on this machine by its path in the upload.
        """
        contents = {path: location.read_bytes() for path, location in files.items()}
        references = {path: self.reference(content) for path, content in contents.items()}
        by_digest = {references[path].digest: content for path, content in contents.items()}
        pack = []
        for digest in self.missing(by_digest.values()):
            content = by_digest[digest]
            if len(content) > PART_BYTES:
                self.upload_in_parts(content)
            elif len(content) > PIECE_BYTES:
                self.upload_object(content)
            else:
                if len(pack) == PACKED_OBJECTS or sum(map(len, pack)) + len(content) > PACKED_BYTES:
                    self.upload_pack(pack)
                    pack = []
                pack.append(content)
        if pack:
            self.upload_pack(pack)
        return self.upload_manifest(references)

    def upload_manifest(self, references):
        files = [{"path": path, "digest": ref.digest, "size_bytes": ref.size_bytes} for path, ref in references.items()]
        return self.upload_object(json.dumps({"format": "sortinghat.upload/1", "files": files}).encode())

    def read(self, reference):
        """The content of an object."""
        request = self.pb["artifacts_service"].ReadObjectRequest(digest=reference.digest)
        content = self.call(lambda *args, **more: b"".join(p.data for p in self.artifacts.ReadObject(*args, **more)), request)
        if hashlib.sha256(content).hexdigest() != reference.digest:
            raise ValueError(f"object {reference.digest} arrived damaged")
        return content

    def document(self, reference):
        """The JSON document in an object."""
        return json.loads(self.read(reference))

    def part(self, part):
        """The content of an object that a document names."""
        return self.read(self.pb["common"].ObjectRef(digest=part["digest"], size_bytes=part["size_bytes"]))

    def table(self, parts):
        """The Parquet files that a document names, as one table of pyarrow."""
        import pyarrow
        import pyarrow.parquet

        return pyarrow.concat_tables([pyarrow.parquet.read_table(io.BytesIO(self.part(part))) for part in parts])

    # Jobs

    def submission(self, spec, key=None):
        spec = self.pb["specs"].JobSpec(**spec)
        return self.pb["jobs_service"].SubmitJobRequest(spec=spec, idempotency_key=key or str(uuid.uuid4()))

    def submit(self, spec, key=None):
        """Submits a job, once however often the call has to be repeated, and returns it."""
        return self.call(self.jobs.SubmitJob, self.submission(spec, key)).job

    def get(self, job_id):
        return self.call(self.jobs.GetJob, self.pb["jobs_service"].GetJobRequest(job_id=job_id)).job

    def events(self, job_id):
        """Every event of a job's history, once and in order, until the job has ended."""
        seen, end, pause = 0, time.monotonic() + PATIENCE_S, 0.1
        while True:
            request = self.pb["jobs_service"].WatchJobRequest(job_id=job_id, after_sequence=seen)
            try:
                for message in self.jobs.WatchJob(request, metadata=self.metadata):
                    end, pause = time.monotonic() + PATIENCE_S, 0.1
                    if message.WhichOneof("update") == "event":
                        seen = message.event.sequence
                        yield message.event
                return
            except grpc.RpcError as error:
                pause = self._pause_or_raise(error, end, pause)

    def predictions(self, job_id):
        """Every row of a classify, in the order of the upload, as soon as its part of the job is done, until the job has ended."""
        next_row, end, pause = 0, time.monotonic() + PATIENCE_S, 0.1
        while True:
            message = self.pb["jobs_service"].WatchPredictionsRequest
            request = message(job_id=job_id, first_row=next_row, in_order=True)
            try:
                for response in self.jobs.WatchPredictions(request, metadata=self.metadata):
                    end, pause = time.monotonic() + PATIENCE_S, 0.1
                    if response.WhichOneof("update") == "ended":
                        return
                    if response.WhichOneof("update") == "part":
                        rows = self.table(self.document(response.part.predictions)["parts"]).to_pylist()
                        yield from rows[max(0, next_row - response.part.first_row) :]
                        next_row = response.part.first_row + len(rows)
            except grpc.RpcError as error:
                pause = self._pause_or_raise(error, end, pause)

    def follow(self, job_id):
        """Waits until a job has ended, and returns it; raises if it did not succeed."""
        for _ in self.events(job_id):
            pass
        job = self.get(job_id)
        if job.state != self.pb["jobs"].JOB_STATE_SUCCEEDED:
            raise RuntimeError(f"job {job_id} did not succeed: {job.failure.message}")
        return job

    def list_jobs(self, page_size=0, **filters):
        """All jobs, newest first, page by page."""
        token = ""
        while True:
            request = self.pb["jobs_service"].ListJobsRequest(page_size=page_size, page_token=token, **filters)
            page = self.call(self.jobs.ListJobs, request)
            yield from page.jobs
            token = page.next_page_token
            if not token:
                return
