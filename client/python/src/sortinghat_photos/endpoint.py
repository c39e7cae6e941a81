"""Where the server is, who the caller is, and how to reach it."""

from __future__ import annotations

import ipaddress
import json
import os
import pathlib
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import grpc
from grpc import aio

from .errors import BadEndpoint

PathLike = str | os.PathLike[str]

USUAL_URL = "http://127.0.0.1:7878"
# Proxies and gateways forget connections on which nothing happens. Two failed pings end a connection that is dead.
_OPTIONS = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that was away is tried again at once when it is back, and not after gRPC's own two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # The client repeats calls itself, because only it knows that each of them may be repeated.
    ("grpc.enable_retries", 0),
]


@dataclass(frozen=True)
class Endpoint:
    """The address of a server, with the token and the certificates for it."""

    url: str
    token: str | None = field(default=None, repr=False)
    ca: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)

    @classmethod
    def find(
        cls,
        server: str | None,
        token: str | None,
        token_file: PathLike | None,
        ca_file: PathLike | None,
        certificate_file: PathLike | None,
        key_file: PathLike | None,
    ) -> Endpoint:
        """What the arguments say, else what the variables of `hat` say, else the server that `hat up` has started."""
        url = server or os.environ.get("SORTINGHAT_SERVER") or _started_here() or USUAL_URL
        token_file = token_file or (None if token else os.environ.get("SORTINGHAT_TOKEN_FILE"))
        if token_file:
            token = _read(token_file).decode().strip()
        ca_file = ca_file or os.environ.get("SORTINGHAT_CA_FILE")
        if bool(certificate_file) != bool(key_file):
            raise BadEndpoint("a client certificate needs its key: set both certificate_file and key_file")
        return cls(
            url if "://" in url else f"{'https' if ca_file else 'http'}://{url}",
            token or os.environ.get("SORTINGHAT_TOKEN") or None,
            _read(ca_file) if ca_file else None,
            _read(certificate_file) if certificate_file else None,
            _read(key_file) if key_file else None,
        )

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def target(self) -> tuple[str, grpc.ChannelCredentials | None]:
        """The address as gRPC wants it, and the credentials of TLS."""
        parts = urlsplit(self.url)
        try:
            port = parts.port
        except ValueError:
            port = None
        if parts.scheme not in ("http", "https") or not parts.hostname or port is None or parts.path.strip("/"):
            raise BadEndpoint(
                f"{self.url!r} cannot be used as the address of a server: write http://HOST:PORT or https://HOST:PORT"
            )
        if parts.scheme == "http":
            if self.token and not _is_loopback(parts.hostname):
                raise BadEndpoint(f"a token is not sent in plain text to another machine: use https instead of {self.url}")
            return parts.netloc, None
        return parts.netloc, grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


def _started_here() -> str | None:
    """The address of the server that `hat up` has started in the folder that `hat` uses, if it has."""
    folder = os.environ.get("SORTINGHAT_DATA_DIR")
    data_home = os.environ.get("XDG_DATA_HOME") or pathlib.Path.home() / ".local" / "share"
    record = (pathlib.Path(folder) if folder else pathlib.Path(data_home) / "sortinghat") / "hat.json"
    try:
        return str(json.loads(record.read_bytes())["url"])
    except (OSError, ValueError, KeyError):
        return None


def _read(path: PathLike) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise BadEndpoint(f"failed to read {os.fspath(path)}: {error.strerror}") from error


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_channel(endpoint: Endpoint) -> grpc.Channel:
    """A channel for the synchronous client. It connects at the first call."""
    target, credentials = endpoint.target()
    if credentials is None:
        return grpc.insecure_channel(target, _OPTIONS)
    return grpc.secure_channel(target, credentials, _OPTIONS)


def open_async_channel(endpoint: Endpoint) -> aio.Channel:
    """A channel for the asynchronous client. It connects at the first call."""
    target, credentials = endpoint.target()
    if credentials is None:
        return aio.insecure_channel(target, _OPTIONS)
    return aio.secure_channel(target, credentials, _OPTIONS)
