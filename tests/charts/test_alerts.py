"""The alerts, by promtool: each is raised in the case that it is for, and none while all is well."""

import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import yaml

import helm

CASES = helm.HERE / "alerts.test.yaml"


def rules() -> dict:
    """The rules that the chart renders."""
    return next(document["spec"] for document in helm.objects(helm.variant("team")) if document["kind"] == "PrometheusRule")


def labels(pattern: str) -> str:
    """The labels by which the rules find the coordinators or the workers, as they stand in an expression."""
    expressions = " ".join(rule["expr"] for rule in rules()["groups"][0]["rules"])
    found = set(re.findall(pattern, expressions))
    assert len(found) == 1, found
    return found.pop()


def cases() -> dict:
    """The cases, with these labels for JOB, those for WORKERS, and the annotations that the rules have."""
    coordinators, workers = labels(r'job="[^"]*",namespace="[^"]*"'), labels(r'job="[^"]*/[^"]*"')
    text = CASES.read_text().replace("severity: critical, JOB", "severity: critical, " + coordinators.replace("=", ": ").replace(",", ", "))
    read = yaml.safe_load(text.replace("JOB", coordinators).replace("WORKERS", workers))
    annotations = {rule["alert"]: rule["annotations"] for rule in rules()["groups"][0]["rules"]}
    for case in read["tests"]:
        for test in case["alert_rule_test"]:
            for alert in test.get("exp_alerts", []):
                alert["exp_annotations"] = annotations[test["alertname"]]
    return read


class Alerts(unittest.TestCase):
    def test_each_alert_has_a_case_in_which_it_is_raised(self):
        raised = {test["alertname"] for case in cases()["tests"] for test in case["alert_rule_test"] if test.get("exp_alerts")}
        self.assertEqual(raised, {rule["alert"] for rule in rules()["groups"][0]["rules"]})

    @unittest.skipUnless(shutil.which("promtool"), "Debian's package prometheus has promtool")
    def test_the_cases_raise_their_alerts_and_no_others(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "rules.yaml").write_text(yaml.safe_dump(rules()))
            (folder / "cases.yaml").write_text(yaml.safe_dump(cases()))
            done = subprocess.run(["promtool", "test", "rules", "cases.yaml"], cwd=folder, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
