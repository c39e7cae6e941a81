"""The chart: what it renders is what is committed, and valid; it is safe; and it says nothing that the programs do not know.

`make test-charts` runs this. With UPDATE_DOCS=1 it writes the golden files and the kustomize base anew.
"""

import copy
import functools
import os
import re
import subprocess
import tempfile
import tomllib
import unittest

import kubernetes_validate
import yaml
from kubernetes_validate import utils as schemas

import helm
import kustomize

# Kinds that are not Kubernetes's own, whose schemas are not at hand.
OTHERS_KINDS = {"Certificate", "PodMonitor", "PrometheusRule", "ServiceMonitor"}
# It reads megabytes of schemas for each object, again and again.
schemas.schema_contents = functools.cache(schemas.schema_contents)
schemas.all_versions = functools.cache(schemas.all_versions)
NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
UPDATE = bool(os.environ.get("UPDATE_DOCS"))


def renderings(version: str = helm.USUAL_VERSION):
    for name in helm.VARIANTS:
        yield name, helm.variant(name, version)


class Golden(unittest.TestCase):
    def compare(self, path, text):
        if UPDATE:
            path.write_text(text)
        self.assertTrue(path.exists(), f"{path} is missing: run this with UPDATE_DOCS=1")
        self.assertEqual(path.read_text(), text, f"{path.name} is not what is rendered: run this with UPDATE_DOCS=1 and read the changes")

    def test_each_variant_is_rendered_as_its_golden_file(self):
        for name, rendering in renderings():
            with self.subTest(name):
                self.compare(helm.HERE / "golden" / f"{name}.yaml", rendering)

    def test_the_kustomize_base_is_what_the_chart_renders_and_builds(self):
        for path, text in kustomize.base().items():
            self.compare(path, text)
        built = helm.objects(helm.run(str(helm.TOOLS / "kubectl"), "kustomize", str(kustomize.BASE)))
        rendered = helm.objects((kustomize.BASE / "sortinghat.yaml").read_text())
        key = lambda document: (document["kind"], document["metadata"]["name"])
        self.assertEqual(sorted(map(key, built)), sorted(map(key, rendered)))


class Valid(unittest.TestCase):
    def test_each_variant_passes_the_strict_schemas_of_every_version(self):
        for version in helm.VERSIONS:
            for name, rendering in renderings(version):
                for document in helm.objects(rendering):
                    with self.subTest(f"{name}, {document['kind']} {document['metadata']['name']}, {version}"):
                        if document["kind"] not in OTHERS_KINDS:
                            kubernetes_validate.validate(document, version, strict=True)

    def test_names_are_valid_and_used_once(self):
        for name, rendering in renderings():
            documents = helm.objects(rendering)
            names = [(document["kind"], document["metadata"]["name"]) for document in documents]
            self.assertEqual(len(names), len(set(names)), name)
            for kind, given in names:
                self.assertTrue(NAME.fullmatch(given), f"{name}: {kind} {given}")

    def test_a_long_release_still_has_valid_names(self):
        values = yaml.safe_load(helm.VARIANTS["team"].read_text()) | {"fullnameOverride": "a" * 63}
        values["workers"] = {"a" * 15: {}}
        for document in helm.objects(helm.render(values)):
            self.assertTrue(NAME.fullmatch(document["metadata"]["name"]), document["metadata"]["name"])

    def test_each_selector_selects_a_pod_and_each_port_is_one_of_a_container(self):
        for name, rendering in renderings():
            documents = helm.objects(rendering)
            for document in documents:
                for selector in selectors(document):
                    chosen = [pod for pod in helm.pods(documents) if selector.items() <= pod["metadata"]["labels"].items()]
                    self.assertTrue(chosen, f"{name}: {document['kind']} {document['metadata']['name']} selects nothing: {selector}")
                    if document["kind"] == "Service":
                        ports = {port["name"] for pod in chosen for port in pod["spec"]["containers"][0]["ports"]}
                        self.assertLessEqual({port["targetPort"] for port in document["spec"]["ports"]}, ports)

    def test_no_two_workloads_select_the_same_pods(self):
        for name, rendering in renderings():
            documents = helm.objects(rendering)
            workloads = [document for document in documents if document["kind"] in ("Deployment", "StatefulSet")]
            for workload in workloads:
                selector = workload["spec"]["selector"]["matchLabels"]
                chosen = [pod for pod in helm.pods(documents) if selector.items() <= pod["metadata"]["labels"].items()]
                self.assertEqual(len(chosen), 1, f"{name}: {workload['metadata']['name']}")


def selectors(document):
    spec = document["spec"] if "spec" in document else {}
    if document["kind"] == "Service":
        yield spec["selector"]
    elif document["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
        yield spec["selector"]["matchLabels"]
        for constraint in spec.get("template", {}).get("spec", {}).get("topologySpreadConstraints", []):
            yield constraint["labelSelector"]["matchLabels"]
    elif document["kind"] in ("PodMonitor", "ServiceMonitor"):
        # A ServiceMonitor selects Services, of which only the one for metrics has this component.
        yield {key: value for key, value in spec["selector"]["matchLabels"].items() if value != "coordinator-metrics"}
    elif document["kind"] == "NetworkPolicy":
        yield spec["podSelector"]["matchLabels"]


class Safe(unittest.TestCase):
    def each_pod(self):
        for name, rendering in renderings():
            for pod in helm.pods(helm.objects(rendering)):
                with self.subTest(f"{name}, {pod['metadata']['labels']['app.kubernetes.io/component']}"):
                    yield pod["spec"]

    def test_all_pods_are_restricted_and_have_no_token_of_kubernetes(self):
        for pod in self.each_pod():
            self.assertIs(pod["automountServiceAccountToken"], False)
            self.assertIs(pod["enableServiceLinks"], False)
            self.assertIs(pod["securityContext"]["runAsNonRoot"], True)
            self.assertIn(pod["securityContext"]["seccompProfile"]["type"], ("RuntimeDefault", "Localhost"))
            self.assertFalse({"hostNetwork", "hostPID", "hostIPC"} & pod.keys())
            for container in pod["containers"]:
                context = container["securityContext"]
                self.assertIs(context["allowPrivilegeEscalation"], False)
                self.assertIs(context["readOnlyRootFilesystem"], True)
                self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
                self.assertIn("memory", container["resources"]["limits"])

    def test_each_mount_has_its_volume_and_is_a_folder(self):
        for pod in self.each_pod():
            volumes = {volume["name"] for volume in pod.get("volumes", [])}
            for container in pod["containers"]:
                mounts = container["volumeMounts"]
                # A volume that a StatefulSet makes for each pod is not in the pod's list.
                self.assertLessEqual({mount["name"] for mount in mounts} - {"data"}, volumes)
                self.assertFalse([mount for mount in mounts if "subPath" in mount], "what is mounted by subPath never changes")
                self.assertEqual(volumes - {mount["name"] for mount in mounts}, set(), "a volume that nobody mounts")

    def test_workers_get_no_key_of_the_coordinator_and_no_tokens_file(self):
        for _, rendering in renderings():
            pods = helm.pods(helm.objects(rendering))
            secrets = {component: set() for component in ("coordinator", "worker", "test", "valkey")}
            for pod in pods:
                for volume in pod["spec"]["volumes"]:
                    for item in volume.get("secret", {}).get("items", []):
                        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
                        secrets[component].add((volume["secret"]["secretName"], item["key"]))
            authorities = {entry for entry in secrets["worker"] if entry[1] in ("ca.crt", "authority.pem")}
            self.assertFalse(secrets["worker"] & secrets["coordinator"] - authorities)

    def test_one_pod_alone_has_no_disruption_budget(self):
        for name, rendering in renderings():
            documents = helm.objects(rendering)
            workloads = [document for document in documents if "replicas" in document.get("spec", {})]
            replicas = {workload["metadata"]["name"]: workload["spec"]["replicas"] for workload in workloads}
            for document in documents:
                if document["kind"] == "PodDisruptionBudget":
                    self.assertGreater(replicas[document["metadata"]["name"]], 1, name)

    def test_the_volume_of_a_worker_has_room_for_its_cache_and_for_all_its_tasks(self):
        gib = lambda text: int(re.match(r"(\d+)Gi", text)[1])
        for _, rendering in renderings():
            for pod in helm.pods(helm.objects(rendering)):
                env = {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0].get("env", [])}
                if "SORTINGHAT_CACHE_BYTES" in env:
                    data = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "data")
                    claim = data.get("ephemeral", {}).get("volumeClaimTemplate", {}).get("spec")
                    size = claim["resources"]["requests"]["storage"] if claim else data["emptyDir"]["sizeLimit"]
                    slots = int(env["SORTINGHAT_SLOTS"])
                    self.assertGreater(gib(size), gib(env["SORTINGHAT_CACHE_BYTES"]) + slots * gib(env["SORTINGHAT_SCRATCH_BYTES"]))

    def test_without_network_policies_none_is_made_and_with_them_everything_is_denied_first(self):
        kinds = {name: [(document["kind"], document["metadata"]["name"]) for document in helm.objects(rendering)] for name, rendering in renderings()}
        self.assertNotIn("NetworkPolicy", [kind for kind, _ in kinds["small"]])
        for document in helm.objects(helm.variant("team")):
            if document["kind"] == "NetworkPolicy" and document["metadata"]["name"].endswith("-deny"):
                self.assertEqual(set(document["spec"]), {"podSelector", "policyTypes"})
                return
        self.fail("nothing is denied")


class Honest(unittest.TestCase):
    """The chart uses settings, metrics and pages that exist."""

    settings = (helm.CHECKOUT / "docs/settings.md").read_text()

    def documented(self, program):
        section = self.settings.split(program)[1].split("\n## ")[0]
        return set(re.findall(r"`(SORTINGHAT_[A-Z_]+)`", section))

    def test_each_variable_is_a_setting_of_its_program(self):
        known = {"worker": self.documented("A worker:"), "hat": self.documented("The command line:")}
        for name, rendering in renderings():
            for pod in helm.pods(helm.objects(rendering)):
                for container in pod["spec"]["containers"]:
                    given = {entry["name"] for entry in container.get("env", []) if entry["name"].startswith("SORTINGHAT_")}
                    self.assertEqual(given - known.get(container["name"], set()), set(), f"{name}: {container['name']}")

    def configurations(self):
        for name, rendering in renderings():
            for document in helm.objects(rendering):
                if text := document.get("data", {}).get("coordinator.toml"):
                    yield name, text

    def test_each_line_of_the_configuration_is_a_setting_of_the_coordinator(self):
        known = self.documented("The coordinator:")
        # This variable is named otherwise than its flag.
        known.add("SORTINGHAT_LOG_FILTER")
        for name, text in self.configurations():
            given = {f"SORTINGHAT_{key.upper()}" for key in tomllib.loads(text)}
            self.assertEqual(given - known, set(), name)

    def test_a_coordinator_understands_the_configurations(self):
        if not (folder := os.environ.get("BIN")):
            self.skipTest("BIN does not name a folder with a coordinator; one from another time may know other settings")
        program = os.path.join(folder, "sortinghat-coordinator")
        for name, text in self.configurations():
            with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
                file.write(text)
                file.flush()
                done = subprocess.run([program, "--config", file.name, "--dump-config"], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, f"{name}: {done.stderr}")
            dumped = tomllib.loads(done.stdout)
            for key, value in tomllib.loads(text).items():
                self.assertEqual(dumped[key], value, f"{name}: {key}")

    def test_alerts_and_dashboard_use_metrics_that_the_programs_have(self):
        sources = "".join(path.read_text() for room in ("coordinator/src", "worker/src") for path in (helm.CHECKOUT / room).rglob("*.rs"))
        # A histogram is read by three names.
        known = {name + ending for name in re.findall(r'"(sortinghat_[a-z_]+)"', sources) for ending in ("", "_bucket", "_sum", "_count")}
        for file in ("alerts.yaml", "dashboard.json"):
            used = set(re.findall(r"\bsortinghat_[a-z_]+", (helm.CHART / "files" / file).read_text()))
            self.assertEqual(used - known, set(), file)

    def test_the_chart_has_the_version_of_the_programs(self):
        chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())
        version = tomllib.loads((helm.CHECKOUT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
        self.assertEqual((chart["version"], chart["appVersion"]), (version, version))

    def test_each_alert_has_its_place_in_the_documentation(self):
        page = (helm.CHECKOUT / "docs/operations/alerts.md").read_text()
        alerts = [rule["alert"] for rule in yaml.safe_load((helm.CHART / "files/alerts.yaml").read_text())]
        self.assertEqual(re.findall(r"^## (Sortinghat\w+)$", page, re.M), alerts)


class Values(unittest.TestCase):
    schema = yaml.safe_load((helm.CHART / "values.schema.json").read_text())
    defaults = yaml.safe_load((helm.CHART / "values.yaml").read_text())

    def leaves(self, schema, path=()):
        """The paths of the values that have no named values inside."""
        if "$ref" in schema:
            schema = self.schema["$defs"][schema["$ref"].rsplit("/", 1)[1]]
        for choice in schema.get("oneOf", []):
            if choice.get("properties"):
                schema = choice
        if not schema.get("properties"):
            return [path]
        return [leaf for name, inner in schema["properties"].items() for leaf in self.leaves(inner, (*path, name))]

    def test_each_value_of_the_schema_has_a_default(self):
        for path in self.leaves(self.schema):
            if path in (("global",), ("security", "seccompProfile", "localhostProfile")) or path[-1] == "claims":
                continue
            value = self.defaults
            if path[0] != "workers":
                for name in path[:-1] if path[-2:-1] == ("resources",) else path:
                    self.assertIn(name, value, ".".join(path))
                    value = value[name]

    def test_each_value_changes_what_some_variant_renders(self):
        variants = {name: yaml.safe_load(path.read_text()) for name, path in helm.VARIANTS.items()}
        whole = dict(renderings())
        for path in self.leaves(self.schema):
            if path[0] in ("global", "workers") or path[-1] == "claims":
                continue
            matters = any(self.matters(path, values, whole[name]) for name, values in variants.items())
            self.assertTrue(matters, f"no variant shows what {'.'.join(path)} does")

    def matters(self, path, values, whole):
        """Whether these values set the path, and another rendering results, or none, if they do not."""
        without = copy.deepcopy(values)
        inner = without
        for name in path[:-1]:
            inner = inner.get(name)
            if not isinstance(inner, dict):
                return False
        if path[-1] not in inner:
            return False
        del inner[path[-1]]
        try:
            return helm.render(without) != whole
        except helm.Refused:
            return True

    def test_what_cannot_work_is_refused_with_the_value_to_set(self):
        base = {"objects": {"url": "s3://photos"}, "tls": {"secretName": "tls"}, "credentials": {"secretName": "tokens"},
                "store": {"redis": {"passwordSecretName": "valkey"}}, "workerDefaults": {"tokenSecretName": "worker"}}
        helm.render(base)
        cases = [
            ({"objects": {"url": ""}}, "set objects.url"),
            ({"objects": {"url": "s3://photos", "claimName": "photos"}}, "set one of them"),
            ({"objects": {"url": "https://photos"}}, "/objects/url"),
            ({"tls": {"secretName": ""}}, "tls.certManager.enabled"),
            ({"tls": {"certManager": {"enabled": True}}}, "tls.certManager.issuerRef.name"),
            ({"credentials": {"secretName": ""}}, "credentials.secretName"),
            ({"store": {"redis": {"passwordSecretName": ""}}}, "store.redis.passwordSecretName"),
            ({"store": {"redis": {"url": "redis://:hunter2@queue"}}}, "/store/redis/url"),
            ({"store": {"type": "memory"}}, "/store/type"),
            ({"workerDefaults": {"tokenSecretName": ""}}, "workers.cpu needs a token or a certificate"),
            ({"workerDefaults": {"certificateSecretName": "worker"}}, "tls.clientCaSecretName"),
            ({"workerDefaults": {"terminationGracePeriodSeconds": 10}}, "terminationGracePeriodSeconds"),
            ({"workers": {"cpu": {"settings": {"slots": 2}}}}, "workers.cpu.settings.slots is given by the chart"),
            ({"coordinator": {"settings": {"store": "memory:"}}}, "coordinator.settings.store is written by the chart"),
            ({"coordinator": {"replica": 3}}, "replica"),
        ]
        for change, said in cases:
            with self.subTest(change), self.assertRaises(helm.Refused) as refused:
                helm.render({**base, **change})
            self.assertIn(said, str(refused.exception))


if __name__ == "__main__":
    unittest.main()
