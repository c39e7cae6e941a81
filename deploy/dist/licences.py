#!/usr/bin/env python3
"""Writes the licences of the crates that the programs are made of.

    licences.py CARGO_LOCK OUT

The texts come from cargo's own folder of sources, in which every crate of Cargo.lock lies once the programs are built. Crates that only
the tests use are listed as well: Cargo.lock does not tell them apart.
"""

import os
import pathlib
import re
import sys
import tomllib

TEXTS = re.compile(r"(licen[cs]e|copying|notice|unlicense)", re.IGNORECASE)


def main():
    lock, out = map(pathlib.Path, sys.argv[1:])
    sources = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"), "registry", "src")
    crates = [package for package in tomllib.loads(lock.read_text())["package"] if package.get("source")]
    users, order, missing = {}, [], []
    for crate in crates:
        name = f"{crate['name']} {crate['version']}"
        folder = next(sources.glob(f"*/{crate['name']}-{crate['version']}"), None)
        if folder is None:
            missing.append(name)
            continue
        declared = re.search(r'^license = "(.*)"', (folder / "Cargo.toml").read_text(), re.MULTILINE)
        order.append(f"{name}: {declared[1] if declared else 'see below'}")
        for path in sorted(folder.iterdir()):
            if path.is_file() and TEXTS.match(path.name):
                users.setdefault(path.read_text(errors="replace").strip(), []).append(name)
    if len(missing) * 2 > len(crates):
        sys.exit(f"licences.py: the sources of {len(missing)} crates are not in {sources}: build the programs on this machine first")
    parts = ["The programs of sortinghat are made of these crates.\n\n" + "\n".join(order) + "\n"]
    parts += [f"{'-' * 80}\n{', '.join(names)}\n\n{text}\n" for text, names in users.items()]
    out.write_text("\n".join(parts))
    print(f"licences       {len(order)} crates, {len(users)} texts" + (f"; without sources here: {', '.join(missing)}" if missing else ""))


if __name__ == "__main__":
    main()
