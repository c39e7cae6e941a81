"""What Celery makes of the same work: `celery_peer.py PORT COMMAND`. Times are in milliseconds since 1970.

work SLOTS JOBS      prints {"ready"}, runs so many jobs, then prints {"ended_ms", "starts": [[name, ms], ...]}
add JOBS BULK BYTES  sends jobs one by one, since there is no bulk call; prints {"began_ms", "cpu_ms"}
trickle JOBS BYTES   sends one job every 20 ms, prints {"sent": [[name, ms], ...]}
"""

import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time

import redis
from celery import Celery

PORT = sys.argv[1] if len(sys.argv) > 1 and sys.argv[1].isdigit() else os.environ["PEER_PORT"]
STARTS = os.environ.get("PEER_STARTS", os.devnull)

app = Celery("celery_peer", broker=f"redis://127.0.0.1:{PORT}/0")
app.conf.update(task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=4, worker_hijack_root_logger=False)
logging.disable(logging.WARNING)


def now():
    return time.time() * 1000


@app.task(name="noop")
def noop(name, payload):
    with open(STARTS, "a") as starts:
        starts.write(json.dumps([name, now()]) + "\n")


def say(value):
    print(json.dumps(value), flush=True)


def work(slots, jobs):
    with tempfile.NamedTemporaryFile() as starts:
        environment = {**os.environ, "PEER_PORT": PORT, "PEER_STARTS": starts.name}
        command = [sys.executable, "-m", "celery", "-A", "celery_peer", "worker", "-c", str(slots), "--loglevel", "ERROR"]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        folder = os.path.dirname(os.path.abspath(__file__))
        worker = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        while not app.control.inspect(timeout=0.5).ping():
            pass
        say({"ready": True})
        connection = redis.Redis(port=int(PORT))
        done = 0
        while done < jobs:
            time.sleep(0.005)
            done = sum(1 for _ in open(starts.name))
        while connection.hlen("unacked"):
            time.sleep(0.002)
        ended = now()
        worker.terminate()
        worker.wait()
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        say({"ended_ms": ended, "cpu_ms": (usage.ru_utime + usage.ru_stime) * 1000, "starts": [json.loads(line) for line in open(starts.name)]})


def add(jobs, _bulk, size):
    payload, began, cpu = "x" * size, now(), time.process_time()
    with app.producer_pool.acquire(block=True) as producer:
        for number in range(jobs):
            noop.apply_async((str(number), payload), producer=producer)
    say({"began_ms": began, "cpu_ms": (time.process_time() - cpu) * 1000})


def trickle(jobs, size):
    sent = []
    for number in range(jobs):
        sent.append([str(number), now()])
        noop.apply_async((str(number), "x" * size))
        time.sleep(0.02)
    say({"sent": sent})


if __name__ == "__main__":
    {"work": work, "add": add, "trickle": trickle}[sys.argv[2]](*map(int, sys.argv[3:]))
