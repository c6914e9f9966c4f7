"""The settings of the one-box Envoy, and how its messages become files."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import betterproto2

from headgate.core.contract import Counting
from headgate.core.errors import OperatorError
from headgate.core.lean_contract import HookPath

BODY_LIMIT_BYTES = 32 * 2**20
"""For images, PDFs and recordings: Anthropic's API takes requests up to 32 MB, and vLLM recordings
up to 25 MB. Envoy holds the whole body while it is read, so the default is no larger."""
MIN_BODY_LIMIT_BYTES = 4 * 2**20
"""While ext_authz answers, Envoy holds up to 1.5 MiB (its buffer and a window of HTTP/2). If a
limit below twice of that came into force then, Envoy would neither read on nor answer."""
MAX_BODY_LIMIT_BYTES = 64 * 2**20
"""The largest body that the services take, to rewrite it."""
MAX_CONNECTIONS = 10_000
LOG_FILE = "envoy.log"


class CertifiedListener(StrEnum):
    """A listener that may have a certificate."""

    DOOR = "door"
    """Envoy's, for clients."""
    API = "api"
    """That of the management API."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """The door's certificate: the chain, beginning with its own certificate, and the key, in PEM.

    `expires_s` is the end of its validity, in seconds since the Unix epoch.
    """

    chain: str
    key: str = field(repr=False)
    expires_s: float


@dataclass(frozen=True, slots=True)
class Tracing:
    """Where Envoy sends spans, and of which requests.

    `collector` is the URL of an OTLP receiver that speaks gRPC, with its default port 4317. `ratio`
    is the part of the requests that get a trace, from 0 to 1. With `follows_client`, a request with
    a `traceparent` gets one if the flag in it says so, whatever the ratio.
    """

    collector: str
    ratio: float = 1.0
    follows_client: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OneBox:
    """One Envoy on this machine.

    - `folder` holds its configuration files and its log.
    - The services answer gRPC on the unix sockets `services_sockets`, one for each process; calls
      go to them in turn. Envoy's admin listens on `admin_socket`. Each path is shorter than 108
      bytes, as Linux requires.
    - `upstreams` maps each base model's name to the URL of its vLLM, `versions` to the URLs of its
      versions, if it has any.
    - A request body above `body_limit_bytes` is refused with 413.
    - The certificates of https upstreams need an authority in the file `upstream_ca`, by default
      one of the system's.
    - With a `certificate` clients speak TLS, otherwise clear text.
    - Client connections beyond `max_connections` are closed at once.
    - With `tracing` Envoy sends spans to a collector.
    - `spares` are the spare versions of base models, for when another one takes no connection.
    - `pods` are those of the clusters whose pods Headgate chooses. Without any at
      the start, none can come later.
    - With an `affinity_salt` a filter hashes the beginning of each prompt with it.
    - `counting` says where the tokens of answers are counted, `path` how the services are asked.
    """

    listen_host: str
    listen_port: int
    services_sockets: Sequence[Path]
    admin_socket: Path
    folder: Path
    upstreams: Mapping[str, str]
    versions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    body_limit_bytes: int = BODY_LIMIT_BYTES
    upstream_ca: Path | None = None
    certificate: Certificate | None = None
    max_connections: int = MAX_CONNECTIONS
    counting: Counting = Counting.PROXY
    tracing: Tracing | None = None
    path: HookPath = HookPath.STANDARD
    pods: Mapping[str, Sequence[str]] = field(default_factory=dict)
    spares: Mapping[str, str] = field(default_factory=dict)
    affinity_salt: str | None = None

    @property
    def bootstrap_file(self) -> Path:
        """The static configuration, which Envoy reads once, at its start."""
        return self.folder / "bootstrap.json"

    @property
    def listeners_file(self) -> Path:
        """The clients' listener (LDS); at the end the file lists none, which closes the streams."""
        return self.folder / "listeners.json"

    @property
    def clusters_file(self) -> Path:
        """The models' clusters (CDS); Envoy follows every change."""
        return self.folder / "clusters.json"

    @property
    def routes_file(self) -> Path:
        """The models' routes (RDS); Envoy follows every change."""
        return self.folder / "routes.json"

    @property
    def certificate_file(self) -> Path:
        """The door's certificate with its key (SDS); Envoy follows every change."""
        return self.folder / "certificate.json"

    @property
    def log_file(self) -> Path:
        return self.folder / LOG_FILE


def render(message: betterproto2.Message) -> str:
    """The message as JSON for Envoy, with the field names of Envoy's documentation."""
    return json.dumps(message.to_dict(casing=betterproto2.Casing.SNAKE), indent=1)


def replace_file(path: Path, text: str) -> None:
    """Writes the file atomically, readable only by its owner.

    Envoy watches for the rename and never reads half a file. Raises OperatorError if the file
    cannot be written (disk full).
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        with open(fresh, "w", encoding="utf-8", opener=_private) as file:
            file.write(text)
        os.replace(fresh, path)
    except OSError as error:
        raise OperatorError(f"cannot write {path}: {error.strerror}") from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)
