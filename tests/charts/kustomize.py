"""The kustomize base: the usual installation of the chart, without helm's own labels and hooks.

An overlay sets names, images and whatever else is particular; docs/operations/kubernetes.md has an example.
"""

import copy
import pathlib

import yaml

import helm

BASE = helm.CHECKOUT / "deploy/kustomize/base"
VALUES = helm.CHECKOUT / "deploy/kustomize/values.yaml"
HEAD = """# Made from deploy/helm/sortinghat with deploy/kustomize/values.yaml: change those and run `UPDATE_DOCS=1 make test-charts`.
"""


def without_helm(document: dict) -> dict:
    """An object without the labels by which helm knows what it has made."""
    document = copy.deepcopy(document)
    labels = document["metadata"]["labels"]
    labels.pop("helm.sh/chart")
    labels["app.kubernetes.io/managed-by"] = "kustomize"
    # The overlay says in which namespace it all is.
    document["metadata"].pop("namespace", None)
    return document


def base() -> dict[pathlib.Path, str]:
    """The files of the base, by path."""
    documents = helm.objects(helm.render(VALUES))
    documents = [without_helm(document) for document in documents if "helm.sh/hook" not in document["metadata"].get("annotations", {})]
    documents.sort(key=lambda document: (document["kind"], document["metadata"]["name"]))
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": helm.NAMESPACE,
        "resources": ["sortinghat.yaml"],
    }
    return {
        BASE / "sortinghat.yaml": HEAD + yaml.safe_dump_all(documents, sort_keys=False, width=140),
        BASE / "kustomization.yaml": HEAD + yaml.safe_dump(kustomization, sort_keys=False),
    }
