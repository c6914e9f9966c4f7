"""The settings of the program: each command-line option is one field here, with its meaning.

The command line builds one value. It is passed on whole, down to the composition root.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from extauthz.failures import DEFAULT_PER_MINUTE
from headgate.core.contract import Counting
from headgate.core.lean_contract import HookPath
from headgate.dataplane.box import BODY_LIMIT_BYTES, Tracing
from ratelimit.descriptors.service import NEAR_LIMIT_RATIO
from ratelimit.store.redis import TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Address:
    """An address to listen on. Port 0 means any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def url(self, scheme: str) -> str:
        """The address for clients of `http` or `https`."""
        return f"{scheme}://{self}"


class GrpcServer(StrEnum):
    """The gRPC server that answers the hooks."""

    OWN = "own"
    """Headgate's own, of `headgate/grpc_server`."""
    GRPCIO = "grpcio"
    """That of the package grpcio, as before 0.2.0."""


class LogFormat(StrEnum):
    """The form of a line of the log."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least severe events of the log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The log of the program, on standard error."""

    format: LogFormat = LogFormat.TEXT
    level: LogLevel = LogLevel.WARNING


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of the certificate with its chain, and of its key; both in PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The store that counts limits."""

    url: str = "memory"
    """`memory`, or the URL of a Redis; see `RedisStore.from_url`."""
    replicas: int = 1
    """How many replicas share the limits, until Redis has said it."""
    deadline_s: float = TIMEOUT_S
    """The longest time for one call to Redis."""
    password_file: Path | None = None
    """Holds the password of Redis; it is read for each new connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """The database of what changes at run time."""

    url: str | None = None
    """The URL of a PostgreSQL, see `database_address`; None for keys of the policy file only."""
    password_file: Path | None = None
    """Holds the password of its role; it is read for each new connection."""
    keys_stale_s: float = 3600.0
    """How long the keys that were read last are taken while the database is away."""
    keys_snapshot: Path | None = None
    """The file that keeps these keys over a restart; None to keep them in memory only."""


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """The way of usage records into the database."""

    spool: Path | None = None
    """The folder that keeps them until they are there; None for no ledger."""
    spool_limit_bytes: int = 1024**3
    """The most that the folder holds. What comes beyond it is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """The management API."""

    address: Address | None = None
    """Where it is served; None for nowhere."""
    tls: TlsFiles | None = None
    """Its certificate. Without one it listens on this machine only."""
    operator_token_file: Path | None = None
    """Holds the operator token; it is written if it is missing."""
    url: str | None = None
    """Where browsers reach it, such as https://api.example.org; None for its own address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """The settings of the services, wherever their Envoy runs."""

    policy: Path | None = None
    """The policy file. Without one the hooks know no caller and no model, and refuse all calls
    that they would decide by it."""
    hooks: str = "0.0.0.0:9001"
    """Where the hooks answer gRPC: `host:port` or `unix:PATH`."""
    grpc_server: GrpcServer = GrpcServer.OWN
    """The server that answers them."""
    workers: int = 1
    """How many processes answer hooks; more than one needs a Redis."""
    admin: Address = Address("0.0.0.0", 9002)  # noqa: S104 - Prometheus and probes call it
    """Where health and metrics are served over HTTP."""
    store: StoreSettings = field(default_factory=StoreSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    api: ApiSettings = field(default_factory=ApiSettings)
    ledger: LedgerSettings = field(default_factory=LedgerSettings)
    records: Path | None = None
    """The file to which usage records are appended; None for standard output."""
    log: LogSettings = field(default_factory=LogSettings)
    cache_secret_file: Path | None = None
    """Holds the secret of the answer cache, 32 bytes or more. Without it no answer is kept."""
    drain_s: float = 10.0
    """The longest time that calls in flight may take to end, once the program stops."""
    auth_failures_per_minute: int = DEFAULT_PER_MINUTE
    """How often one address may fail to show a known key, before it gets 429."""
    ratelimit_config: tuple[Path, ...] = ()
    """Files and directories that configure envoyproxy/ratelimit."""
    ratelimit_count_refused: bool = False
    """Whether the limits of `ratelimit_config` count hits that they refuse."""
    ratelimit_metadata: bool = False
    """Whether answers for `ratelimit_config` carry metadata for later filters."""
    ratelimit_near_limit_ratio: float = NEAR_LIMIT_RATIO
    """From this part of a limit of `ratelimit_config` on, hits count as near it in metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxSettings(ServiceSettings):
    """The settings of one box: those of its services, and those of its Envoy.

    Without a `policy` the box runs the demo.
    """

    listen: Address = Address("127.0.0.1", 8080)
    """Where Envoy listens for clients."""
    admin: Address = Address("127.0.0.1", 8081)
    records: Path | None = Path("headgate-usage.jsonl")
    drain_s: float = 5.0
    upstream: str | None = None
    """The URL of a vLLM that serves every model, in place of the upstreams in the policy."""
    upstream_ca: Path | None = None
    """The certificate authorities, in PEM, that the vLLMs' certificates need; None for the
    system's."""
    tls: TlsFiles | None = None
    """The certificate that Envoy shows to clients; clear text without one."""
    max_connections: int | None = None
    """How many connections clients may hold open together. None for MAX_CONNECTIONS, or for as
    many as the limit of open files allows."""
    body_limit_bytes: int = BODY_LIMIT_BYTES
    """The largest request body; a larger one gets 413."""
    counting: Counting = Counting.PROXY
    """Whether a filter in Envoy or ext_proc counts the tokens of answers."""
    tracing: Tracing | None = None
    """Where Envoy sends spans; None for nowhere."""
    path: HookPath = HookPath.LEAN
    """Whether Envoy asks four hooks about a request, or one for everything. Counting in ext_proc
    and the answer cache need the four."""
    affinity_salt: str | None = None
    """With it a filter hashes the beginning of each prompt, for `affinity: prompt`."""
    database_dir: Path | None = None
    """The folder of a PostgreSQL of the box's own; None for none."""
    run_dir: Path | None = None
    """The folder of sockets, Envoy's configuration and logs; None for a temporary one."""
