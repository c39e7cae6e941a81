"""Renders the chart, with the helm that `deploy/install.sh charts` installs, and reads what was rendered."""

import functools
import os
import pathlib
import subprocess
import tempfile

import yaml

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
CHART = CHECKOUT / "deploy/helm/sortinghat"
HERE = pathlib.Path(__file__).resolve().parent
VARIANTS = {path.stem: path for path in sorted((HERE / "variants").glob("*.yaml"))}
TOOLS = pathlib.Path(os.environ.get("SORTINGHAT_CACHE") or pathlib.Path.home() / ".cache/sortinghat") / "helm/bin"
RELEASE, NAMESPACE = "photos", "sorting"
# What is rendered for the golden files and the kustomize base, whatever helm is at hand.
USUAL_VERSION = "1.37"
VERSIONS = [f"1.{minor}" for minor in range(25, 38)]


class Refused(Exception):
    """The chart does not take these values. The message is helm's."""


def run(*command: str, given: str | None = None) -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def render(values: dict | pathlib.Path, version: str = USUAL_VERSION) -> str:
    """The rendering of these values for a version of Kubernetes."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        if isinstance(values, dict):
            yaml.safe_dump(values, file)
            file.flush()
            values = pathlib.Path(file.name)
        template = [str(TOOLS / "helm"), "template", RELEASE, str(CHART), "--namespace", NAMESPACE]
        return run(*template, "--kube-version", f"{version}.0", "--values", str(values))


@functools.cache
def variant(name: str, version: str = USUAL_VERSION) -> str:
    return render(VARIANTS[name], version)


@functools.cache
def objects(rendering: str) -> tuple[dict, ...]:
    """The objects of a rendering, which nobody may change."""
    return tuple(document for document in yaml.load_all(rendering, yaml.CSafeLoader) if document)


def pod_of(document: dict) -> dict | None:
    """The pod, or the template of pods, in an object."""
    if document["kind"] == "Pod":
        return document
    return document["spec"].get("template") if document["kind"] in ("Deployment", "StatefulSet") else None


def pods(documents: list[dict]) -> list[dict]:
    return [pod for document in documents if (pod := pod_of(document))]
