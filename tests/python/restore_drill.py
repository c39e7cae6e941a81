"""A drill: the queue is lost in the middle of work, and restored from an older copy. What was acknowledged after the copy is gone; everything
else has to go on, and no lease of the lost time may be taken for one of the new time.

    restore_drill.py BINARIES PHOTOS WEIGHTS REDIS_SERVER

BINARIES holds hat, sortinghat-coordinator and sortinghat-worker, PHOTOS a folder for each class. Prints a line for each step, and fails at the
first thing that is not as docs/operations/backup.md says. Once for each store of the queue.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

CLASSES, EACH = ("animals", "food", "vehicles"), 16
PATIENCE_S = 300
# Long enough that the job is still running when its worker and the queue are killed.
LONG_JOB = ("finetune", "before@1", "--epochs", "12", "--size", "96")
VALKEY = ("--save", "", "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction", "--bind", "127.0.0.1")
TAKEN = re.compile(r'task taken .*?task="([0-9a-z.]+)" epoch=(\d+)')


def wait_until(what: str, happened):
    deadline = time.monotonic() + PATIENCE_S
    while not (found := happened()):
        if time.monotonic() > deadline:
            raise SystemExit(f"restore_drill.py: {what}: not within {PATIENCE_S} s")
        time.sleep(0.1)
    return found


def require(what: str, holds: bool) -> None:
    print(f"  {'yes' if holds else 'NO '}  {what}", flush=True)
    if not holds:
        raise SystemExit(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Site:
    """One coordinator with its store, and workers, each a process of its own."""

    def __init__(self, binaries: pathlib.Path, weights: pathlib.Path, redis: str | None, folder: pathlib.Path):
        self.binaries, self.redis, self.folder = binaries, redis, folder
        self.port, self.redis_port = free_port(), free_port()
        self.running: dict[str, subprocess.Popen] = {}
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("SORTINGHAT_")}
        self.environment |= {"SORTINGHAT_OBJECT_STORE": f"file://{folder}/objects", "SORTINGHAT_WEIGHTS_DIR": str(weights), "NO_COLOR": "1"}
        (folder / "objects").mkdir(parents=True)
        # What a backup has to hold.
        self.queue = folder / ("redis" if redis else "coordinator")
        (folder / "redis").mkdir()

    def start(self, name: str, *command: str) -> None:
        log = open(self.folder / f"{name}.log", "a")
        self.running[name] = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def start_queue(self) -> None:
        store = []
        if self.redis:
            self.start("redis", self.redis, *VALKEY, "--port", str(self.redis_port), "--dir", str(self.queue))
            wait_until("Redis answers", lambda: reachable(self.redis_port))
            store = ["--store", f"redis://127.0.0.1:{self.redis_port}"]
        self.start("coordinator", str(self.binaries / "sortinghat-coordinator"), "--listen", f"127.0.0.1:{self.port}",
                   "--data-dir", str(self.folder / "coordinator"), "--lease-ttl", "2s", *store)
        wait_until("the coordinator serves", lambda: self.hat("workers", check=False) is not None)

    def start_worker(self, name: str) -> None:
        self.start(name, str(self.binaries / "sortinghat-worker"), "run", "--coordinator", f"http://127.0.0.1:{self.port}",
                   "--data-dir", str(self.folder / name), "--checkpoint-interval", "1s")

    def kill(self, *names: str) -> None:
        for name in names:
            if process := self.running.pop(name, None):
                process.send_signal(signal.SIGKILL)
                process.wait()

    def kill_queue(self) -> None:
        self.kill("coordinator", "redis")

    def hat(self, *arguments: str, check: bool = True) -> list[dict] | None:
        command = [str(self.binaries / "hat"), "--server", f"http://127.0.0.1:{self.port}", "--json", "--quiet", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            if check:
                raise SystemExit(f"restore_drill.py: hat {' '.join(arguments)}: {done.stderr}")
            return None
        return [json.loads(line) for line in done.stdout.splitlines()]

    def job(self, identity: str) -> dict | None:
        found = self.hat("jobs", "show", identity, check=False)
        return found[0] if found else None

    def datasets(self) -> list[str]:
        return [row["name"] for row in self.hat("datasets")]

    def epochs(self, name: str) -> list[tuple[str, int]]:
        """The tasks that a worker has taken, each with the epoch of its lease."""
        path = self.folder / f"{name}.log"
        return [(task, int(epoch)) for task, epoch in TAKEN.findall(path.read_text())] if path.exists() else []

    def epochs_of(self, job: str, *names: str) -> list[int]:
        return [epoch for name in names for task, epoch in self.epochs(name) if task.startswith(job)]


def reachable(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def drill(site: Site, photos: pathlib.Path) -> None:
    site.start_queue()
    site.start_worker("first")
    site.hat("ingest", "before", str(photos))
    long_job = site.hat(*LONG_JOB, "--detach")[0]["id"]
    wait_until("the long job runs", lambda: site.epochs_of(long_job, "first"))

    # A process that is killed leaves its files as a snapshot of its volume has them.
    site.kill_queue()
    backup = site.folder / "backup"
    shutil.copytree(site.queue, backup)
    site.start_queue()

    site.hat("ingest", "after", str(photos), "--detach")
    site.kill("first")
    site.start_worker("second")
    wait_until("the long job runs again", lambda: site.epochs_of(long_job, "second"))
    lost = site.hat("finetune", "before@1", "--recipe", "fast", "--detach")[0]["id"]
    require("a job is acknowledged after the copy was made", site.job(lost) is not None)

    site.kill_queue()
    shutil.rmtree(site.queue)
    shutil.copytree(backup, site.queue)
    site.start_queue()
    check(site, photos, long_job, lost)


def check(site: Site, photos: pathlib.Path, long_job: str, lost: str) -> None:
    require("the coordinator serves what the copy holds", site.datasets() == ["before@1"])
    require("a job that was acknowledged later is unknown", site.job(lost) is None)
    ended = wait_until("the long job ends", lambda: (job := site.job(long_job)) and job["state"] in ("succeeded", "failed", "cancelled") and job)
    require("the job that ran all the time succeeds", ended["state"] == "succeeded")
    epochs = site.epochs_of(long_job, "first", "second")
    require(f"its {len(epochs)} leases, before and after, have growing epochs", len(epochs) > 2 and epochs == sorted(set(epochs)))
    site.hat("ingest", "after", str(photos))
    site.hat("finetune", "after", "--recipe", "fast")
    require("what was lost is submitted again, and is done", sorted(site.datasets()) == ["after@1", "before@1"])


def copy_photos(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    for name in CLASSES:
        (target / name).mkdir(parents=True)
        for photo in sorted((source / name).rglob("*.png"))[:EACH]:
            shutil.copy(photo, target / name / f"{photo.parent.name}-{photo.name}")
    return target


def main() -> None:
    binaries, photos, weights = (pathlib.Path(path).resolve() for path in sys.argv[1:4])
    with tempfile.TemporaryDirectory(prefix="sortinghat-drill-") as folder:
        folder = pathlib.Path(folder)
        photos = copy_photos(photos, folder / "photos")
        for store, redis in (("embedded", None), ("Redis", sys.argv[4])):
            print(f"The queue in the store {store}:", flush=True)
            site = Site(binaries, weights, redis, folder / store)
            try:
                drill(site, photos)
            finally:
                site.kill(*list(site.running))


if __name__ == "__main__":
    main()
