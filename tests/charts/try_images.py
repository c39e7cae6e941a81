"""Runs the images as the chart runs them, and takes a folder of photos through them over TLS. `make try-images` runs this, as root.

    try_images.py IMAGES PHOTOS REDIS_SERVER
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.request

import yaml

import helm
import monitor
import pods

CLASSES, EACH = ("animals", "food", "vehicles"), 24
TOKENS = {"user": ("user", 'tenant = "lab"'), "worker": ("worker", 'tenants = ["lab"]'), "operator": ("operator", "")}
# The name in the certificate of the workers that show one.
CERTIFIED = "certified.workers"
VALUES = {
    "tls": {"secretName": "tls", "clientCaSecretName": "tls"},
    "credentials": {"secretName": "tokens"},
    "store": {"redis": {"url": "redis://127.0.0.1:6379", "passwordSecretName": "valkey"}},
    "objects": {"claimName": "photos"},
    "workerDefaults": {"tokenSecretName": "worker", "cacheGiB": 1, "scratchGiB": 2},
    "workers": {"certified": {"certificateSecretName": "certified"}},
    "tests": {"tokenSecretName": "user"},
}


def say(what: str, outcome: str) -> None:
    print(f"{what:<44} {outcome}", flush=True)


NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def make_authority(folder: pathlib.Path) -> None:
    openssl("req", "-x509", *NEW_KEY, "-days", "2", "-subj", "/CN=authority", "-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.crt"))


def make_certificate(folder: pathlib.Path, host: str, usage: str) -> dict[str, str]:
    """A certificate for a name, of the authority in the folder."""
    openssl("req", *NEW_KEY, "-subj", "/CN=sortinghat", "-keyout", str(folder / "tls.key"), "-out", str(folder / "request"))
    (folder / "names").write_text(f"subjectAltName=DNS:{host}\nbasicConstraints=CA:FALSE\nextendedKeyUsage={usage}\n")
    openssl("x509", "-req", "-days", "2", "-in", str(folder / "request"), "-extfile", str(folder / "names"), "-CAcreateserial",
            "-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key"), "-out", str(folder / "tls.crt"))
    return {name: (folder / name).read_text() for name in ("tls.crt", "tls.key", "ca.crt")}


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def make_secrets(folder: pathlib.Path, host: str) -> dict:
    tokens = {name: os.urandom(32).hex() for name in TOKENS}
    rows = [f'[[tokens]]\nid = "{name}"\nsha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\nrole = "{TOKENS[name][0]}"\n{TOKENS[name][1]}\n'
            for name, token in tokens.items()]
    secrets = {("Secret", name): {"token": token} for name, token in tokens.items()}
    rows.append(f'[[certificates]]\nid = "certified"\nsan = "{CERTIFIED}"\nrole = "worker"\ntenants = ["lab"]\n')
    secrets["Secret", "tokens"] = {"tokens.toml": "\n".join(rows)}
    secrets["Secret", "valkey"] = {"password": os.urandom(16).hex()}
    make_authority(folder)
    secrets["Secret", "tls"] = make_certificate(folder, host, "serverAuth")
    secrets["Secret", "certified"] = make_certificate(folder, CERTIFIED, "clientAuth")
    return secrets


def start_redis(server: str, folder: pathlib.Path, password: str) -> subprocess.Popen:
    """A Valkey that is started by the script of the chart's own one, with its configuration; only the paths differ."""
    rendered = helm.objects(helm.variant("pinned"))
    configuration = next(document["data"]["valkey.conf"] for document in rendered if "valkey.conf" in document.get("data", {}))
    script = next(pod["spec"]["containers"][0]["args"][0] for pod in helm.pods(rendered) if pod["spec"]["containers"][0]["name"] == "valkey")
    for name in ("etc", "run", "store", "data"):
        (folder / name).mkdir(parents=True)
    (folder / "etc/valkey.conf").write_text(configuration.replace("/data", f"{folder}/data"))
    (folder / "store/password").write_text(password)
    for path, ours in (("/etc/valkey", "etc"), ("/run/valkey", "run"), ("/etc/sortinghat/store", "store")):
        script = script.replace(path, str(folder / ours))
    script = script.replace("exec valkey-server", f"exec {server}")
    return subprocess.Popen(["sh", "-ec", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def copy_photos(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    for name in CLASSES:
        (target / name).mkdir(parents=True)
        for photo in sorted((source / name).rglob("*.png"))[:EACH]:
            shutil.copy(photo, target / name / f"{photo.parent.name}-{photo.name}")
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


class Trial:
    def __init__(self, folder: pathlib.Path, images: pathlib.Path):
        documents = helm.objects(helm.render(VALUES))
        self.pods = {name_of(pod): pod for pod in helm.pods(documents)}
        # All pods share one network here, in which the coordinator has the chart's port for pages.
        for name in ("cpu", "certified"):
            env = self.pods[name]["spec"]["containers"][0]["env"]
            next(entry for entry in env if entry["name"] == "SORTINGHAT_WORKER_METRICS_LISTEN")["value"] = "127.0.0.1:9465"
        address = next(entry["value"] for entry in self.pods["cpu"]["spec"]["containers"][0]["env"] if entry["name"] == "SORTINGHAT_COORDINATOR")
        self.host = address.removeprefix("https://").split(":")[0]
        self.objects = make_secrets(folder, self.host)
        self.objects |= {("ConfigMap", document["metadata"]["name"]): document["data"] for document in documents if document["kind"] == "ConfigMap"}
        self.hosts = folder / "hosts"
        self.hosts.write_text(f"127.0.0.1 localhost {self.host}\n")
        self.node = pods.Node(folder)
        self.images = {name: self.node.take_image(images / f"sortinghat-{name}.oci.tar") for name in ("coordinator", "worker", "hat")}
        self.photos = copy_photos(pathlib.Path(sys.argv[2]), folder / "photos")
        self.folder = folder
        self.monitor = None

    def start(self, name: str) -> None:
        image = self.images[self.pods[name]["spec"]["containers"][0]["name"]]
        self.node.run(name, self.pods[name], image, self.objects, self.hosts)

    def start_coordinator(self) -> None:
        self.start("coordinator")
        probe = self.pods["coordinator"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"]
        pods.wait_until(f"{probe} of the coordinator answers", lambda: answers(f"http://127.0.0.1:9464{probe}"))

    def hat(self, *arguments: str, token: str = "user") -> str:
        """Runs a command in the pod of `helm test`."""
        pod = self.pods["hat"]
        next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "token")["secret"]["secretName"] = token
        return self.node.run("hat", pod, self.images["hat"], self.objects, self.hosts, arguments, [(self.photos, "/photos")], wait=True)

    def go(self) -> None:
        self.start_coordinator()
        say("coordinator, ready", "yes")
        if monitor.is_installed():
            self.monitor = monitor.Monitor(self.folder, "127.0.0.1:9464")
        self.start("cpu")
        pods.wait_until("/startupz of the worker answers", lambda: answers("http://127.0.0.1:9465/startupz"))
        say("hat whoami, as helm test runs it", one_line(self.hat("whoami")))
        pods.wait_until("the worker joins", lambda: "cpu" in self.hat("workers").lower())
        workers = yaml.safe_load(self.hat("workers", "--json", token="operator").splitlines()[0])
        say("the worker's sandbox", str(workers.get("sandbox", workers)))
        say("ingest", last_line(self.hat("ingest", "things", "/photos")))
        say("finetune", last_line(self.hat("finetune", "things@1", "--recipe", "fast")))
        say("evaluate", first_line(self.hat("evaluate", "things/1", "--report", "/var/lib/sortinghat/report.html")))
        say("classify", last_line(self.hat("classify", "things/1", "/photos/food")))
        if self.monitor:
            say("alerts and dashboard, asked of a Prometheus", self.monitor.evaluate())
        self.replace()

    def replace(self) -> None:
        self.node.end("coordinator", "SIGKILL")
        self.start_coordinator()
        say("classify after kill -9 of the coordinator", last_line(self.hat("classify", "things/1", "/photos/animals")))
        self.stop_pod("cpu")
        self.start("certified")
        say("classify by a worker with a certificate", last_line(self.hat("classify", "things/1", "/photos/vehicles")))
        self.stop_pod("certified")
        self.stop_pod("coordinator")

    def stop_pod(self, name: str) -> None:
        grace = self.pods[name]["spec"]["terminationGracePeriodSeconds"]
        code, took = self.node.end(name, "SIGTERM")
        say(f"{name}, from SIGTERM to its end", f"{took:.1f} s of {grace} s, exit code {code}")
        if code or took > grace:
            raise pods.Failed(f"{name} did not end as it should: {self.node.log_of(name)[-2000:]}")

    def stop(self) -> None:
        if self.monitor:
            self.monitor.stop()
        self.node.stop()


def name_of(pod: dict) -> str:
    """The class of a worker; of anything else, the name of its container."""
    return pod["metadata"]["labels"].get("sortinghat/class", pod["spec"]["containers"][0]["name"])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as page:
            return page.status == 200
    except OSError:
        return False


def one_line(text: str) -> str:
    return " ".join(text.split())


def first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0]


def last_line(text: str) -> str:
    return ([line for line in text.splitlines() if line.strip()] or ["(nothing)"])[-1].strip()


def main() -> None:
    if "ALONE" not in os.environ:
        # In a network of its own, nothing here meets what else this machine runs.
        os.execvpe("unshare", ["unshare", "--net", sys.executable, *sys.argv], {**os.environ, "ALONE": "yes"})
    if missing := pods.needed_programs():
        sys.exit(f"try_images.py: these programs are missing: {', '.join(missing)}; Debian has them in containerd, runc, iproute2 and openssl")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="sortinghat-pods-"))
    folder.chmod(0o755)
    trial = Trial(folder, pathlib.Path(sys.argv[1]))
    redis = start_redis(sys.argv[3], folder / "redis", trial.objects["Secret", "valkey"]["password"])
    try:
        trial.go()
    except pods.Failed as failed:
        for name in ("coordinator", "cpu", "certified"):
            print(f"--- {name}\n{trial.node.log_of(name)[-3000:]}", file=sys.stderr)
        sys.exit(f"try_images.py: {failed}")
    finally:
        trial.stop()
        redis.terminate()
        redis.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
