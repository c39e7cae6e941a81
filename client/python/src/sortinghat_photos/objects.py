"""Objects: immutable bytes that are named by their SHA-256."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .folder import Listing
from .v1.artifacts_service_pb2 import (
    PackIndex,
    UploadObjectRequest,
    UploadObjectsRequest,
)
from .v1.common_pb2 import ObjectRef
from .v1.jobs_pb2 import Job

PIECE_BYTES = 1 << 20
MAX_PHOTO_BYTES = 256 << 20
# What one call takes of small objects, and which are small. A call that breaks is repeated, so packs are smaller than they may be.
_PACK_OBJECTS, _PACK_BYTES, _SMALL_BYTES = 200, 4 << 20, 1 << 20
# Why a file is listed as unread that had other bytes when it was sent than when it was hashed.
CHANGED = "it changed while it was uploaded"

# An object by its reference, as the part that a document names, by its digest, or as the manifest of what a job made.
ObjectLike = ObjectRef | Mapping[str, Any] | Job | str


def reference_of(content: bytes) -> ObjectRef:
    """The reference to bytes in memory."""
    return ObjectRef(digest=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def reference_of_file(path: pathlib.Path) -> ObjectRef:
    """The reference to the content of a file."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else _digest(file)
        return ObjectRef(digest=digest.hexdigest(), size_bytes=file.tell())


def _digest(file: Any) -> Any:
    digest = hashlib.sha256()
    while piece := file.read(PIECE_BYTES):
        digest.update(piece)
    return digest


def photo(path: pathlib.Path) -> ObjectRef | str:
    """The reference to a photo, or why it cannot be uploaded. One photo that cannot be read costs only itself."""
    try:
        size = path.stat().st_size
        if size > MAX_PHOTO_BYTES:
            return f"the file has {size} bytes, more than the {MAX_PHOTO_BYTES >> 20} MiB that a photo may have"
        return reference_of_file(path)
    except OSError as error:
        return unread(error)


def unread(error: OSError) -> str:
    """Why a file cannot be read, for a row of results."""
    if isinstance(error, FileNotFoundError):
        return "the file is gone, or it is a link that leads nowhere"
    return f"the file cannot be read: {(error.strerror or str(error)).lower()}"


def pieces(reference: ObjectRef, content: bytes | pathlib.Path) -> Iterator[UploadObjectRequest]:
    """The messages of an upload. A file that can no longer be read ends early, and the server refuses what came of it."""
    yield UploadObjectRequest(header=reference)
    if isinstance(content, bytes):
        for start in range(0, len(content), PIECE_BYTES):
            yield UploadObjectRequest(data=content[start : start + PIECE_BYTES])
        return
    try:
        with open(content, "rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield UploadObjectRequest(data=piece)
    except OSError:
        return


def packed_pieces(pack: list[tuple[ObjectRef, pathlib.Path]]) -> Iterator[UploadObjectsRequest]:
    """The messages of an upload of many small files. If one of them can no longer be read, the server refuses what comes."""
    yield UploadObjectsRequest(index=PackIndex(objects=[reference for reference, _ in pack]))
    waiting = bytearray()
    for _, path in pack:
        try:
            waiting += path.read_bytes()
        except OSError:
            return
        while len(waiting) >= PIECE_BYTES:
            yield UploadObjectsRequest(data=bytes(waiting[:PIECE_BYTES]))
            del waiting[:PIECE_BYTES]
    if waiting:
        yield UploadObjectsRequest(data=bytes(waiting))


def packs(references: Iterable[ObjectRef]) -> Iterator[list[ObjectRef]]:
    """The objects in groups, each of which is sent by one call: small ones together, and every large one by itself."""
    pack: list[ObjectRef] = []
    for reference in references:
        if reference.size_bytes > _SMALL_BYTES:
            yield [reference]
            continue
        if len(pack) == _PACK_OBJECTS or sum(each.size_bytes for each in pack) + reference.size_bytes > _PACK_BYTES:
            yield pack
            pack = []
        pack.append(reference)
    if pack:
        yield pack


def manifest(listing: Listing, read: Mapping[str, ObjectRef | str]) -> bytes:
    """The upload manifest: every file of the listing, and of those that could not be read the reason."""
    nothing, files = reference_of(b""), []
    for path in listing.files:
        photo = read[path]
        of = nothing if isinstance(photo, str) else photo
        entry: dict[str, object] = {"path": path, "digest": of.digest, "size_bytes": of.size_bytes}
        if isinstance(photo, str):
            entry["unread"] = photo
        files.append(entry)
    document: dict[str, object] = {"format": "sortinghat.upload/1", "files": files}
    if listing.left_out:
        document["left_out"] = listing.left_out_document()
    return json.dumps(document, ensure_ascii=False).encode()


def digest_of(item: ObjectLike) -> str:
    """The digest of an object."""
    if isinstance(item, str):
        return item
    if isinstance(item, Job):
        if not item.output.manifest.digest:
            raise ValueError(f"job {item.id} has made nothing yet: wait for it first")
        return item.output.manifest.digest
    return str(item["digest"]) if isinstance(item, Mapping) else item.digest


def places_of(files: Iterable[pathlib.Path], read: Iterable[ObjectRef | str]) -> dict[str, list[pathlib.Path]]:
    """The files with each content, by its digest. Those that could not be read are left out."""
    places: dict[str, list[pathlib.Path]] = {}
    for path, reference in zip(files, read, strict=True):
        if isinstance(reference, ObjectRef):
            places.setdefault(reference.digest, []).append(path)
    return places
