"""A Prometheus that reads the coordinator's page, and answers what the alerts and the dashboard ask."""

import json
import pathlib
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import yaml

import helm
import pods

ADDRESS = "127.0.0.1:9090"
JOB, NAMESPACE = "coordinators", "sorting"


def is_installed() -> bool:
    return shutil.which("prometheus") is not None


def expressions() -> list[str]:
    """All that the alerts and the dashboard ask."""
    alerts = yaml.safe_load((helm.CHART / "files/alerts.yaml").read_text())
    dashboard = json.loads((helm.CHART / "files/dashboard.json").read_text())
    ours = f'job="{JOB}",namespace="{NAMESPACE}"'
    asked = [rule["expr"].replace("JOB", ours).replace("WORKERS", ours) for rule in alerts]
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return asked + [text.replace("$job", JOB).replace("$workers", JOB).replace("$__rate_interval", "1m") for text in shown]


class Monitor:
    def __init__(self, folder: pathlib.Path, page: str):
        configuration = folder / "prometheus.yaml"
        targets = [{"targets": [page], "labels": {"namespace": NAMESPACE}}]
        configuration.write_text(yaml.safe_dump({"scrape_configs": [{"job_name": JOB, "scrape_interval": "1s", "static_configs": targets}]}))
        command = ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'prometheus'}", f"--web.listen-address={ADDRESS}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        pods.wait_until("Prometheus has read the page", lambda: self.ask(f'up{{job="{JOB}"}} == 1'))

    def ask(self, expression: str) -> list | None:
        """What an expression is now. None while Prometheus does not answer.

        Raises Failed if Prometheus does not understand it.
        """
        url = f"http://{ADDRESS}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            if error.code == 503:
                return None
            raise pods.Failed(f"{expression}: {error.read().decode()}") from error
        except OSError:
            return None

    def evaluate(self) -> str:
        """Evaluates everything, and says how much of it has a value now."""
        found = [self.ask(expression) for expression in expressions()]
        return f"{len(found)} expressions evaluated, {sum(bool(one) for one in found)} of them with a value now"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
