"""A real coordinator and a real worker on loopback, in a temporary folder, for the tests of this folder.

SORTINGHAT_BIN names the folder of the programs; without it, that is target/debug of the checkout.
"""

import contextlib
import ctypes
import hashlib
import ipaddress
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
PROGRAMS = pathlib.Path(os.environ.get("SORTINGHAT_BIN", CHECKOUT / "target" / "debug"))
PATIENCE_S = 120


class Server:
    """A coordinator and a worker. `arguments` are for the coordinator, `worker` for the worker."""

    def __init__(self, arguments=(), worker=(), scheme="http", has_worker=True):
        self._folder = tempfile.TemporaryDirectory(prefix="sortinghat-test-")
        self.folder = pathlib.Path(self._folder.name)
        self._arguments, self._worker_arguments, self._scheme = arguments, worker, scheme
        self._processes = {}
        self.start_coordinator()
        if has_worker:
            self.start_worker()

    @property
    def url(self):
        return f"{self._scheme}://{self.address}"

    def start_coordinator(self):
        data, listen = self.folder / "coordinator", getattr(self, "address", "127.0.0.1:0")
        (data / "coordinator.addr").unlink(missing_ok=True)
        objects = f"file://{self.folder / 'objects'}"
        arguments = ["--listen", listen, "--data-dir", data, "--object-store", objects, "--lease-ttl", "5s", *self._arguments]
        self._start("coordinator", "sortinghat-coordinator", *arguments)
        self.address = self._wait_for(data / "coordinator.addr")

    def start_worker(self):
        objects = f"file://{self.folder / 'objects'}"
        arguments = ["run", "--coordinator", self.url, "--object-store", objects, "--data-dir", self.folder / "worker"]
        device = ["--device", "cpu", "--threads", "2"]
        self._start("worker", "sortinghat-worker", *arguments, *device, *self._worker_arguments)

    def stop_worker(self):
        process = self._processes.pop("worker")
        process.terminate()
        process.wait(PATIENCE_S)

    def kill_coordinator(self):
        process = self._processes.pop("coordinator")
        process.kill()
        process.wait()

    def _start(self, name, program, *arguments):
        (self.folder / "objects").mkdir(exist_ok=True)
        with open(self.folder / f"{name}.log", "ab") as log:
            command = [PROGRAMS / program, *arguments]
            # Nothing stays behind when the tests are killed.
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=_end_with_parent)

    def _wait_for(self, path):
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if path.exists() and (text := path.read_text().strip()):
                return text
            if self._processes["coordinator"].poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the coordinator does not listen: {(self.folder / 'coordinator.log').read_text()[-2000:]}")

    def stop(self):
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.wait(PATIENCE_S)
        self._folder.cleanup()


def _end_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Gate:
    """A proxy that admits only callers with the certificate `cert.pem` of a folder, with which it shows itself, too."""

    def __init__(self, folder, address):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        context.load_verify_locations(folder / "cert.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["h2"])
        host, port = address.split(":")
        self._context, self._target = context, (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, plain):
        with contextlib.suppress(OSError), self._context.wrap_socket(plain, server_side=True) as caller:
            with socket.create_connection(self._target) as server:
                threading.Thread(target=self._copy, args=(server, caller), daemon=True).start()
                self._copy(caller, server)

    def _copy(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self):
        self._listener.close()


def certificate(folder):
    """Writes cert.pem and key.pem for 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=2))
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = made.add_extension(addresses, critical=False).sign(key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(signed.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    (folder / "key.pem").chmod(0o600)


def tokens_file(path, token):
    """A tokens file with one user and one worker, whose token is the user's with "-worker" at its end."""
    digest = lambda text: hashlib.sha256(text.encode()).hexdigest()
    path.write_text(
        f'[[tokens]]\nid = "ann"\nsha256 = "{digest(token)}"\nrole = "user"\ntenant = "lab"\n'
        f'[[tokens]]\nid = "mill"\nsha256 = "{digest(token + "-worker")}"\nrole = "worker"\ntenants = ["lab"]\n'
    )
    path.chmod(0o600)
