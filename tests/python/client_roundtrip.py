#!/usr/bin/env python3
"""Submit a job and read it back with a client that is generated, here and now, from the protocol's own files.

    client_roundtrip.py ADDRESS [--token TOKEN]

ADDRESS is host:port of a coordinator. The script uploads a photo and an upload manifest, submits an ingest of them
twice under one idempotency key, finds the job by id and in the list, watches its first event, and is refused where it
must be. It prints the job's id and exits with 0; what differs from the expected ends it with 1 and one line.
"""

import argparse
import hashlib
import importlib
import json
import pathlib
import struct
import sys
import tempfile
import uuid
import zlib

import grpc
from grpc_tools import protoc

PROTO_ROOT = pathlib.Path(__file__).resolve().parents[2] / "proto"
DEADLINE_S = 20


class Mismatch(Exception):
    """The coordinator answered something else than the protocol says."""


def expect(condition, what):
    if not condition:
        raise Mismatch(what)


def generate_client(folder):
    """Generates and imports the client; returns its modules by the name of their .proto file."""
    files = sorted((PROTO_ROOT / "sortinghat" / "v1").glob("*.proto"))
    arguments = ["protoc", f"-I{PROTO_ROOT}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    expect(protoc.main(arguments + [str(file) for file in files]) == 0, "the protocol's files compile")
    sys.path.insert(0, str(folder))
    modules = {file.stem: importlib.import_module(f"sortinghat.v1.{file.stem}_pb2") for file in files}
    for service in ("jobs_service", "artifacts_service"):
        modules[f"{service}_grpc"] = importlib.import_module(f"sortinghat.v1.{service}_pb2_grpc")
    return modules


def tiny_png():
    """A valid 1 x 1 red PNG."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\x00\xff\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


class Session:
    """The generated stubs on one channel."""

    def __init__(self, modules, channel, metadata):
        self.common = modules["common"]
        self.specs = modules["specs"]
        self.jobs = modules["jobs_service"]
        self.uploads = modules["artifacts_service"]
        self.job_stub = modules["jobs_service_grpc"].JobServiceStub(channel)
        self.artifact_stub = modules["artifacts_service_grpc"].ArtifactServiceStub(channel)
        self.call = {"timeout": DEADLINE_S, "metadata": metadata}

    def upload(self, content):
        """Stores one object and returns its reference."""
        reference = self.common.ObjectRef(digest=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
        parts = [self.uploads.UploadObjectRequest(header=reference), self.uploads.UploadObjectRequest(data=content)]
        stored = self.artifact_stub.UploadObject(iter(parts), **self.call).object
        expect(stored == reference, "the stored object is the announced one")
        return reference

    def upload_manifest(self):
        """Uploads one photo and the manifest that lists it."""
        photo = self.upload(tiny_png())
        entry = {"path": "red/one.png", "digest": photo.digest, "size_bytes": photo.size_bytes}
        return self.upload(json.dumps({"format": "sortinghat.upload/1", "files": [entry]}).encode())

    def submission(self, key, source, name="roundtrip"):
        spec = self.specs.JobSpec(ingest=self.specs.IngestSpec(dataset_name=name, source=source))
        return self.jobs.SubmitJobRequest(idempotency_key=key, spec=spec)


def run(session):
    source = session.upload_manifest()
    key = f"roundtrip-{uuid.uuid4()}"
    first = session.job_stub.SubmitJob(session.submission(key, source), **session.call)
    expect(first.job.id and not first.existed, "a new job is accepted")
    again = session.job_stub.SubmitJob(session.submission(key, source), **session.call)
    expect(again.existed and again.job.id == first.job.id, "the same key and spec give the same job")
    expect_refusal(session, session.submission(key, source, "another"), "the same key with another spec")
    expect_refusal(session, session.submission("", source, "Not A Name"), "a malformed dataset name")

    read = session.job_stub.GetJob(session.jobs.GetJobRequest(job_id=first.job.id), **session.call).job
    expect(read.id == first.job.id and read.idempotency_key == key, "the job is found by its id")
    expect(read.spec.ingest.dataset_name == "roundtrip", "the job keeps its spec")
    listed = session.job_stub.ListJobs(session.jobs.ListJobsRequest(kind="ingest"), **session.call).jobs
    expect(first.job.id in [job.id for job in listed], "the job is in the list")
    expect_first_event(session, first.job.id)
    return first.job.id


def expect_refusal(session, request, what):
    try:
        session.job_stub.SubmitJob(request, **session.call)
    except grpc.RpcError as error:
        refusals = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.FAILED_PRECONDITION)
        expect(error.code() in refusals, f"{what} is refused for what it is, not with {error.code()}: {error.details()}")
    else:
        raise Mismatch(f"{what} is refused")


def expect_first_event(session, job_id):
    """The watch begins with event 1."""
    stream = session.job_stub.WatchJob(session.jobs.WatchJobRequest(job_id=job_id), **session.call)
    for message in stream:
        if message.WhichOneof("update") == "event":
            expect(message.event.sequence == 1, "a watch from the start begins with event 1")
            stream.cancel()
            return
    raise Mismatch("a watch has events")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="host:port of a coordinator")
    parser.add_argument("--token", help="bearer token, where the coordinator asks for one")
    options = parser.parse_args()
    metadata = [("authorization", f"Bearer {options.token}")] if options.token else []
    with tempfile.TemporaryDirectory() as folder, grpc.insecure_channel(options.address) as channel:
        try:
            print(run(Session(generate_client(pathlib.Path(folder)), channel, metadata)))
        except Mismatch as mismatch:
            sys.exit(f"client_roundtrip.py: expected that {mismatch}")
        except grpc.RpcError as error:
            sys.exit(f"client_roundtrip.py: {error.code()}: {error.details()}")


if __name__ == "__main__":
    main()
