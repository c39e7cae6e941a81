"""Runs the pods that the chart renders, one by one, in containerd: what a node would do with them, without a cluster.

Each container gets what its pod asks for: user, read-only root, no capabilities, the runtime's seccomp profile, no new privileges, a memory
limit, and its volumes. All of them share one network, in which names are looked up in a file.
"""

import os
import pathlib
import shutil
import subprocess
import time

USER = 65532
# How long a program may take to do what is waited for.
PATIENCE_S = 120
# What containerd leaves to a container unless it is told otherwise.
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
                "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE")
PROGRAMS = {"coordinator": "/usr/bin/sortinghat-coordinator", "worker": "/usr/bin/sortinghat-worker", "hat": "/usr/bin/hat"}
UNITS = {"Mi": 1 << 20, "Gi": 1 << 30}


class Failed(Exception):
    """Something did not happen as it should. The message says what, and what was printed."""


def wait_until(what: str, happened) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {PATIENCE_S} s")
        time.sleep(0.2)


class Node:
    """A containerd of our own, and the folders that stand for Secrets, ConfigMaps and claims."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.socket = folder / "containerd.sock"
        self.logs = folder / "logs"
        self.logs.mkdir()
        configuration = folder / "containerd.toml"
        configuration.write_text(
            f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{self.socket}"\n'
        )
        with open(self.logs / "containerd", "w") as log:
            self.containerd = subprocess.Popen(["containerd", "--config", str(configuration)], stdout=log, stderr=log)
        wait_until("containerd answers", lambda: self.ctr("version", check=False).returncode == 0)

    def ctr(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        done = subprocess.run(["ctr", "--address", str(self.socket), "--namespace", "sortinghat", *arguments],
                              capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise Failed(f"ctr {' '.join(arguments[:3])}: {done.stderr}\n{done.stdout}")
        return done

    def take_image(self, archive: pathlib.Path) -> str:
        """The name of the image in an archive."""
        said = self.ctr("images", "import", "--base-name", archive.name.split(".")[0], str(archive)).stdout
        return next(word for word in said.split() if word.startswith("sortinghat-"))

    def stop(self) -> None:
        for name in self.ctr("tasks", "ls", "--quiet", check=False).stdout.split():
            self.ctr("tasks", "kill", "--signal", "SIGKILL", name, check=False)
            wait_until(f"{name} ends", lambda name=name: self.status(name) != "RUNNING")
            self.ctr("tasks", "delete", name, check=False)
        self.containerd.terminate()
        self.containerd.wait()

    def status(self, name: str) -> str:
        for line in self.ctr("tasks", "ls", check=False).stdout.splitlines()[1:]:
            if line.split()[0] == name:
                return line.split()[2]
        return "GONE"

    def log_of(self, name: str) -> str:
        path = self.logs / name
        return path.read_text(errors="replace") if path.exists() else ""

    def volume(self, volume: dict, objects: dict, pod: str) -> pathlib.Path:
        """The folder on this machine that a volume of a pod is."""
        if "persistentVolumeClaim" in volume:
            return owned(self.folder / "claims" / volume["persistentVolumeClaim"]["claimName"])
        folder = owned(self.folder / "volumes" / pod / volume["name"])
        if "secret" in volume:
            for item in volume["secret"]["items"]:
                write(folder / item["path"], objects["Secret", volume["secret"]["secretName"]][item["key"]])
        if "configMap" in volume:
            for name, text in objects["ConfigMap", volume["configMap"]["name"]].items():
                write(folder / name, text)
        return folder

    def run(self, name: str, pod: dict, image: str, objects: dict, hosts: pathlib.Path, arguments=None, mounts=(), wait=False) -> str:
        """Starts the container of a pod. With `wait`, waits until it has ended and returns what it has printed."""
        spec, container = pod["spec"], pod["spec"]["containers"][0]
        assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        assert container["securityContext"]["readOnlyRootFilesystem"] and not container["securityContext"]["allowPrivilegeEscalation"]
        options = ["--read-only", "--seccomp", "--snapshotter", "overlayfs", "--with-ns", f"network:/proc/{os.getpid()}/ns/net"]
        options += [part for capability in CAPABILITIES for part in ("--cap-drop", f"CAP_{capability}")]
        limit = container["resources"]["limits"]["memory"]
        options += ["--memory-limit", str(int(limit[:-2]) * UNITS[limit[-2:]])]
        for entry in container.get("env", []):
            options += ["--env", f"{entry['name']}={entry['value']}"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for mount in container["volumeMounts"]:
            source = self.volume(volumes[mount["name"]], objects, name)
            options += bind(source, mount["mountPath"], mount.get("readOnly", False))
        options += bind(hosts, "/etc/hosts", True)
        for source, target in mounts:
            options += bind(source, target, True)
        command = [PROGRAMS[container["name"]], *(arguments or container["args"])]
        if wait:
            return self.ctr("run", "--rm", *options, image, name, *command).stdout
        self.ctr("run", "--detach", "--log-uri", f"file://{self.logs / name}", *options, image, name, *command)
        return ""

    def end(self, name: str, signal: str) -> tuple[int, float]:
        """Sends a signal; returns the exit code, and how many seconds the process took to end."""
        begun = time.monotonic()
        self.ctr("tasks", "kill", "--signal", signal, name)
        wait_until(f"{name} ends", lambda: self.status(name) != "RUNNING")
        took = time.monotonic() - begun
        code = self.ctr("tasks", "delete", name, check=False).returncode
        self.ctr("containers", "delete", name, check=False)
        return code, took


def bind(source: pathlib.Path, target: str, read_only: bool) -> list[str]:
    return ["--mount", f"type=bind,src={source},dst={target},options=rbind:{'ro' if read_only else 'rw'}"]


def owned(folder: pathlib.Path) -> pathlib.Path:
    """A folder that the pods' group can write, as the kubelet makes it for `fsGroup`."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, 0, USER)
    folder.chmod(0o2775)
    return folder


def write(path: pathlib.Path, text: str) -> None:
    path.write_text(text)
    os.chown(path, 0, USER)
    path.chmod(0o440)


def needed_programs() -> list[str]:
    return [program for program in ("containerd", "ctr", "runc", "ip", "openssl", "unshare") if not shutil.which(program)]
