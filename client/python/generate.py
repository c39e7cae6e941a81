#!/usr/bin/env python3
"""Makes what is not written by hand: the messages and stubs in `v1`, and the synchronous client in `_sync`.

    generate.py

Both are made inside src/sortinghat_photos and are not committed. Building the package runs this as well. It needs grpcio-tools and
unasync.
"""

import importlib.resources
import pathlib
import re
import shutil
import tempfile

import unasync
from grpc_tools import protoc

HERE = pathlib.Path(__file__).resolve().parent
PACKAGE = HERE / "src" / "sortinghat_photos"
# In a checkout the protocol lies beside the client. A source distribution carries a copy.
PROTO = next((folder for folder in (HERE / "proto", HERE.parents[1] / "proto") if folder.is_dir()), HERE / "proto")
# The synchronous client is the asynchronous one with these names replaced, and without `async` and `await`.
SYNCHRONOUS = {
    "AsyncClient": "Client",
    "AsyncCalls": "Calls",
    "AsyncWatch": "Watch",
    "aclosing": "closing",
    "async_pause": "pause",
    "async_map": "map_all",
    "async_run": "run",
    "open_async_channel": "open_channel",
    "aio": "grpc",
}


def stubs(folder: pathlib.Path) -> None:
    """Generates the messages and stubs into `folder`, so that they import each other inside this package."""
    files = sorted(str(path) for path in (PROTO / "sortinghat" / "v1").glob("*.proto"))
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    arguments = ["protoc", f"-I{PROTO}", f"-I{well_known}"]
    with tempfile.TemporaryDirectory() as made:
        outputs = [f"--{kind}_out={made}" for kind in ("python", "pyi", "grpc_python")]
        if not files or protoc.main(arguments + outputs + files) != 0:
            raise SystemExit(f"generate.py: the .proto files in {PROTO} do not compile")
        for path in pathlib.Path(made, "sortinghat", "v1").iterdir():
            # Another package of the registry is called sortinghat.
            text = re.sub(r"^from sortinghat\.v1 import", "from sortinghat_photos.v1 import", path.read_text(), flags=re.MULTILINE)
            (folder / path.name).write_text(text)
    (folder / "__init__.py").write_text('"""The messages and stubs of sortinghat.v1, generated from the .proto files."""\n')


def synchronous(folder: pathlib.Path) -> None:
    """Writes the synchronous client into `folder`."""
    source = PACKAGE / "_async"
    rule = unasync.Rule(f"{source}/", f"{folder}/", SYNCHRONOUS)
    unasync.unasync_files([str(path) for path in sorted(source.glob("*.py"))], [rule])


def main() -> None:
    for name, make in (("v1", stubs), ("_sync", synchronous)):
        with tempfile.TemporaryDirectory(dir=PACKAGE) as staged:
            make(pathlib.Path(staged))
            target = PACKAGE / name
            target.mkdir(exist_ok=True)
            # File by file and each at once: a program that imports the package meanwhile sees whole files.
            for path in pathlib.Path(staged).iterdir():
                path.replace(target / path.name)
            shutil.rmtree(target / "__pycache__", ignore_errors=True)


if __name__ == "__main__":
    main()
