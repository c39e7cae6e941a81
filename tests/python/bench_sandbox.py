"""What the sandbox of executors costs: the same jobs with it and without it, in turns on this machine.

    bench_sandbox.py BINARIES PHOTOS WEIGHTS [--rounds 7]

BINARIES holds hat, sortinghat-coordinator and sortinghat-worker, PHOTOS a folder for each class, WEIGHTS the pretrained weights. Prints the
median time of each job in seconds, and the ratio of the times, with to without, as the geometric mean over the rounds with its 95% interval.
"""

import argparse
import math
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

JOBS = {
    "ingest": ["ingest", "photos", "{photos}"],
    "finetune": ["finetune", "photos@1", "--epochs", "1", "--size", "96"],
    "classify": ["classify", "photos/1", "{photos}"],
}
# The quantiles of Student's t for a 95% interval, by degrees of freedom.
STUDENT = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26]


class Server:
    """A server of its own, whose worker has a sandbox or not."""

    def __init__(self, binaries: pathlib.Path, folder: pathlib.Path, weights: pathlib.Path, sandbox: str):
        self.hat = binaries / "hat"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SORTINGHAT_")}
        self.environment = kept | {
            "SORTINGHAT_DATA_DIR": str(folder / sandbox),
            "SORTINGHAT_WEIGHTS_DIR": str(weights),
            "SORTINGHAT_SANDBOX": sandbox,
        }
        self.run("up", "--background", "--listen", "127.0.0.1:0")

    def run(self, *arguments: str) -> float:
        began = time.monotonic()
        command = [self.hat, *arguments, "--quiet"]
        subprocess.run(command, env=self.environment, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - began


def interval(ratios: list[float]) -> str:
    logs = [math.log(ratio) for ratio in ratios]
    mean = statistics.mean(logs)
    half = STUDENT[len(logs) - 2] * statistics.stdev(logs) / math.sqrt(len(logs))
    return f"{math.exp(mean):.3f} [{math.exp(mean - half):.3f}, {math.exp(mean + half):.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("binaries", "photos", "weights"):
        parser.add_argument(name, type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("--rounds", type=int, default=7, choices=range(2, 11))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sortinghat-sandbox-") as folder:
        servers = {}
        try:
            for sandbox in ("on", "off"):
                servers[sandbox] = Server(options.binaries, pathlib.Path(folder), options.weights, sandbox)
            measure(servers, str(options.photos), options.rounds)
        finally:
            for server in servers.values():
                server.run("down")


def measure(servers: dict[str, Server], photos: str, rounds: int) -> None:
    took = {(job, sandbox): [] for job in JOBS for sandbox in servers}
    # The first round, which fills caches, does not count.
    for number in range(rounds + 1):
        for job, line in JOBS.items():
            arguments = [argument.format(photos=photos) for argument in line]
            order = list(servers) if number % 2 else list(reversed(servers))
            for sandbox in order:
                seconds = servers[sandbox].run(*arguments)
                if number:
                    took[job, sandbox].append(seconds)
    print(f"{'':10} {'with, s':>8} {'without, s':>11}  ratio")
    for job in JOBS:
        on, off = took[job, "on"], took[job, "off"]
        ratio = interval([a / b for a, b in zip(on, off)])
        print(f"{job:10} {statistics.median(on):8.2f} {statistics.median(off):11.2f}  {ratio}")


if __name__ == "__main__":
    main()
