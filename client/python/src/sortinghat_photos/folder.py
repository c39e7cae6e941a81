"""Which files of a folder are photos to upload, and which are left out, by the rules of `hat`."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .endpoint import PathLike
from .errors import UnreadablePhotos

MAX_FILES = 1_000_000
MAX_PATH_BYTES = 1024
MAX_LEFT_OUT_PATHS = 1000
# What systems and programs leave behind in folders of photos, in lower case.
_LITTER = {
    "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", ".@__thumb", "thumbs.db", "ehthumbs.db", "desktop.ini",
    "$recycle.bin", "system volume information", ".ds_store", "__macosx", "icon\r", "lost+found", ".thumbnails", "picasa.ini",
    ".picasa.ini", ".picasaoriginals",
}  # fmt: skip
_LITTER_BEGINNINGS = ("._", ".trash")


@dataclass
class Listing:
    """The files of an upload by their path in it, and what was left out beside them: its path by its reason."""

    files: dict[str, pathlib.Path] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, path: str, reason: str) -> None:
        self.left_out.setdefault(reason, []).append(path)

    def left_out_document(self) -> list[dict[str, object]]:
        """What was left out, as an upload manifest states it: the paths nearest to the top come first."""
        groups = []
        for reason, paths in sorted(self.left_out.items()):
            first = sorted(paths, key=lambda path: (path.rstrip("/").count("/"), path))[:MAX_LEFT_OUT_PATHS]
            groups.append({"reason": reason, "entries": len(paths), "paths": first})
        return groups


def listing(photos: PathLike | Mapping[str, PathLike]) -> Listing:
    """The files below a folder, one file, or the files that a mapping names by their path in the upload."""
    if isinstance(photos, Mapping):
        return Listing({path: pathlib.Path(location) for path, location in photos.items()})
    root = pathlib.Path(photos)
    if root.is_file():
        return Listing({root.name: root})
    found = Listing()
    try:
        real = root.resolve(strict=True)
        with os.scandir(root):
            pass
    except OSError as error:
        raise UnreadablePhotos(f"failed to read {root}: {error.strerror}") from error
    _walk(found, root, "", real, (real,))
    if not found.files:
        raise UnreadablePhotos(f"there is no photo in {root}: it has no file that is neither hidden nor left out")
    if len(found.files) > MAX_FILES:
        raise UnreadablePhotos(f"{root} has more than {MAX_FILES} files, and one upload takes no more")
    # By the bytes of the path, as `hat` sorts.
    found.files = dict(sorted(found.files.items(), key=lambda item: item[0].encode()))
    return found


def _walk(found: Listing, folder: pathlib.Path, prefix: str, root: pathlib.Path, way: tuple[pathlib.Path, ...]) -> bool:
    """Lists one folder and those below it. `way` has the real folders that led here. Returns whether it holds anything at all."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        found.leave_out(prefix, "unreadable_folder")
        return True
    filled, empty = False, []
    for entry in entries:
        path = prefix + os.fsencode(entry.name).decode("utf-8", "replace")
        reason = _unwanted(entry.name, path) or _special(entry)
        if reason is None and entry.is_symlink():
            reason = _link(entry, root, way)
        if reason is not None:
            # What a broken link was meant for is not known. Without an extension, it is taken for a folder.
            is_folder = _is_folder(entry) or reason == "broken_link"
            found.leave_out(path + ("/" if is_folder else ""), reason)
            filled = filled or reason not in ("hidden", "litter")
        elif _is_folder(entry):
            below = pathlib.Path(entry.path)
            if _walk(found, below, f"{path}/", root, (*way, below.resolve())):
                filled = True
            else:
                empty.append(f"{path}/")
        else:
            found.files[path] = pathlib.Path(entry.path)
            filled = True
    if filled or not prefix:
        # Of a folder without any file, only the highest is named.
        for path in empty:
            found.leave_out(path, "empty_folder")
    return filled


def _unwanted(name: str, path: str) -> str | None:
    low = name.lower()
    if low in _LITTER or low.startswith(_LITTER_BEGINNINGS):
        return "litter"
    if name.startswith("."):
        return "hidden"
    try:
        if len(path.encode()) > MAX_PATH_BYTES:
            return "path_too_long"
        name.encode()
    except UnicodeEncodeError:
        return "not_utf8"
    return None


def _special(entry: os.DirEntry[str]) -> str | None:
    """Why an entry is neither a file, a folder nor a link to one."""
    if entry.is_symlink() and not os.path.exists(entry.path):
        # A photo has an extension. A link of that name is a file that cannot be read, and says so when it is.
        return None if pathlib.Path(entry.name).suffix else "broken_link"
    if entry.is_symlink() or entry.is_file() or entry.is_dir():
        return None
    return "special"


def _link(entry: os.DirEntry[str], root: pathlib.Path, way: tuple[pathlib.Path, ...]) -> str | None:
    """Why a link is not followed: it leads out of the folder, or back to a folder in which it lies."""
    real = pathlib.Path(entry.path).resolve()
    if not os.path.exists(entry.path):
        return None
    if not real.is_relative_to(root):
        return "outside_link"
    if real.is_dir():
        return "circular_link" if any(passed.is_relative_to(real) for passed in way) else None
    return None if real.is_file() else "special"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def in_batches(items: list[str], size: int) -> Iterator[list[str]]:
    """The items in their order, at most `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
