"""Prepares and finishes the bill of materials of an image, which syft makes.

    sbom.py lock PACKAGE CHECKOUT OUT     writes the part of Cargo.lock that a package of this checkout is built from
    sbom.py normalise FILE SECONDS NAME   makes a SPDX document of syft the same at every run
"""

import hashlib
import json
import pathlib
import sys
import tomllib
from datetime import UTC, datetime


def dependencies(manifest: dict) -> set[str]:
    """The names that a manifest depends on when it is built, and not only when it is tested."""
    tables = [manifest, *manifest.get("target", {}).values()]
    found = set()
    for table in tables:
        for kind in ("dependencies", "build-dependencies"):
            for name, entry in table.get(kind, {}).items():
                found.add(entry.get("package", name) if isinstance(entry, dict) else name)
    return found


def manifests(checkout: pathlib.Path) -> dict[str, dict]:
    """The manifests of the workspace's own packages, by name."""
    members = tomllib.loads((checkout / "Cargo.toml").read_text())["workspace"]["members"]
    read = (tomllib.loads((checkout / member / "Cargo.toml").read_text()) for member in members)
    return {manifest["package"]["name"]: manifest for manifest in read}


def reachable(package: str, locked: list[dict], own: dict[str, dict]) -> list[dict]:
    """What a package is built from, on any platform. An entry of the lock file says NAME, or NAME VERSION if there are several."""
    by_name = {}
    for entry in locked:
        by_name.setdefault(entry["name"], []).append(entry)
    found, pending = {}, [by_name[package][0]]
    while pending:
        entry = pending.pop()
        key = (entry["name"], entry["version"])
        if key in found:
            continue
        found[key] = entry
        wanted = dependencies(own[entry["name"]]) if entry["name"] in own else None
        for needed in entry.get("dependencies", []):
            name, *version = needed.split()
            if wanted is None or name in wanted:
                pending += [other for other in by_name[name] if not version or other["version"] == version[0]]
    return [found[key] for key in sorted(found)]


def lock(package: str, checkout: str, out: str) -> None:
    root = pathlib.Path(checkout)
    locked = tomllib.loads((root / "Cargo.lock").read_text())["package"]
    lines = ["version = 4"]
    for entry in reachable(package, locked, manifests(root)):
        lines += ["", "[[package]]", f'name = "{entry["name"]}"', f'version = "{entry["version"]}"']
        lines += [f'{key} = "{entry[key]}"' for key in ("source", "checksum") if key in entry]
    pathlib.Path(out).write_text("\n".join(lines) + "\n")


def normalise(file: str, seconds: str, name: str) -> None:
    """syft writes the time and a random identity. Both would make each build of one image another image."""
    path = pathlib.Path(file)
    document = json.loads(path.read_text())
    document["name"] = name
    document["creationInfo"]["created"] = datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for unordered in ("packages", "files", "relationships"):
        document.get(unordered, []).sort(key=lambda entry: json.dumps(entry, sort_keys=True))
    document["documentNamespace"] = ""
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    document["documentNamespace"] = f"urn:sha256:{digest}"
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    {"lock": lock, "normalise": normalise}[sys.argv[1]](*sys.argv[2:])
