"""The options and kinds of arguments that several commands take."""

import re
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import click

from headgate.core.contract import Counting
from headgate.core.lean_contract import HookPath
from headgate.core.sizes import size_text
from headgate.dataplane.affinity import SALT_FORM
from headgate.dataplane.box import MAX_BODY_LIMIT_BYTES, MIN_BODY_LIMIT_BYTES
from headgate.dataplane.tracing import SMALLEST_RATIO
from headgate.policy import NAME_RULE, is_name
from headgate.program.settings import (
    Address,
    BoxSettings,
    GrpcServer,
    LogFormat,
    LogLevel,
    ServiceSettings,
)

SERVICES, BOX = ServiceSettings(), BoxSettings()
"""The defaults of the options of `serve` and of `up`."""

E = TypeVar("E", bound=StrEnum)


class Member(click.Choice[E]):
    """A member of an enumeration, by its value."""

    def normalize_choice(self, choice: object, ctx: click.Context | None) -> str:  # noqa: ARG002
        """The word for a member on the command line."""
        return str(choice)


class HostPort(click.ParamType[Address]):
    """`HOST:PORT`, also `[::1]:8080`; port 0 takes a free one."""

    name = "host:port"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address:
        """Reads the text; a wrong one ends the command with a usage error."""
        if isinstance(value, Address):
            return value
        host, _, port = str(value).rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            self.fail(f"{value!r} is not HOST:PORT, for example 127.0.0.1:8080", param, ctx)
        return Address(host.strip("[]"), int(port))


class Salt(click.ParamType[str]):
    """A salt, which goes into a script of Envoy."""

    name = "salt"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """Reads the text; a wrong one ends the command with a usage error."""
        if not re.fullmatch(SALT_FORM, str(value)):
            self.fail("a salt is 16 to 64 letters and digits (value not shown)", param, ctx)
        return str(value)


FILE = click.Path(path_type=Path, dir_okay=False)
POLICY = click.option("--policy", type=FILE, help="The policy file [headgate.yaml].")
STORE = click.option(
    "--store",
    default=SERVICES.store.url,
    show_default=True,
    help="memory, or redis://HOST:PORT/DB; docs/commands.md lists the other forms.",
)
STORE_PASSWORD = click.option(
    "--store-password-file", type=FILE, help="Holds the password of Redis."
)
STORE_DEADLINE = click.option(
    "--store-deadline-ms",
    type=click.IntRange(min=1),
    default=round(SERVICES.store.deadline_s * 1000),
    show_default=True,
    help="How long one call to Redis may take.",
)
CACHE_SECRET = click.option(
    "--cache-secret-file",
    type=FILE,
    help="Holds the secret of the answer cache; without it no answer is kept.",
)
DATABASE = click.option(
    "--database",
    metavar="URL",
    help="postgresql://USER@HOST:PORT/DATABASE of keys that are issued at run time.",
)
DATABASE_PASSWORD = click.option(
    "--database-password-file", type=FILE, help="Holds the password of the database's role."
)
KEYS_STALE = click.option(
    "--keys-stale-s",
    type=click.FloatRange(min=1),
    default=SERVICES.database.keys_stale_s,
    show_default=True,
    help="How long the database's keys are taken while it is away; revocations wait then.",
)
LEDGER_SPOOL = click.option(
    "--ledger-spool",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keeps usage records in this folder until the database has them; needs a database.",
)
API = click.option(
    "--api",
    type=HostPort(),
    help="Serves the management API here; it needs a database.",
)
API_TLS_CERT = click.option(
    "--api-tls-cert", type=FILE, help="The API speaks TLS: the certificate chain, PEM."
)
API_TLS_KEY = click.option("--api-tls-key", type=FILE, help="The API's private key, PEM.")
API_URL = click.option(
    "--api-url",
    metavar="URL",
    help="Where browsers reach the API, such as https://api.example.org [its own address].",
)
OPERATOR_TOKEN = click.option(
    "--operator-token-file",
    type=FILE,
    help="Holds the token of the API's operator; written if it is missing.",
)
AUTH_FAILURES = click.option(
    "--auth-failures-per-minute",
    type=click.IntRange(min=1),
    default=SERVICES.auth_failures_per_minute,
    show_default=True,
    help="How often an address may come without a known key before it gets 429.",
)
WORKERS = click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=SERVICES.workers,
    show_default=True,
    help="How many processes answer hooks; more than one needs a Redis.",
)
RATELIMIT_CONFIG = click.option(
    "--ratelimit-config",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A file or directory that configures envoyproxy/ratelimit; may be repeated.",
)
LOG_FORMAT = click.option(
    "--log-format",
    type=Member(LogFormat),
    default=SERVICES.log.format,
    show_default=True,
    help="One line of text or one JSON object for each event.",
)
LOG_LEVEL = click.option(
    "--log-level",
    type=Member(LogLevel),
    default=SERVICES.log.level,
    show_default=True,
    help="The least severe events to log.",
)
GRPC_SERVER = click.option(
    "--grpc-server",
    type=Member(GrpcServer),
    default=SERVICES.grpc_server.value,
    show_default=True,
    help="The gRPC server of the hooks: Headgate's own, or grpcio's, which costs more.",
)
COUNTING = click.option(
    "--counting",
    type=Member(Counting),
    default=BOX.counting.value,
    show_default=True,
    help="Who counts the tokens of answers: a filter in Envoy, or ext_proc.",
)
OTLP = click.option(
    "--otlp",
    metavar="URL",
    help="Sends traces to this collector, by OTLP over gRPC, such as http://127.0.0.1:4317.",
)
OTLP_RATIO = click.option(
    "--otlp-ratio",
    type=click.FloatRange(SMALLEST_RATIO, 1),
    default=1.0,
    show_default=True,
    help="The part of the requests that get a trace.",
)
OTLP_FOLLOW_CLIENT = click.option(
    "--otlp-follow-client",
    is_flag=True,
    help="The flag of a client's traceparent decides in place of the ratio.",
)


PATH = click.option(
    "--path",
    type=Member(HookPath),
    help="How Envoy asks about a request: by one call for everything, or by four hooks"
    " [lean in one box, standard in a mesh and with --counting extproc].",
)


AFFINITY_SALT = click.option(
    "--affinity-salt",
    metavar="SALT",
    type=Salt(),
    help="Hash the beginning of each prompt with this salt in the proxy, for `affinity: prompt`.",
)


def chosen_path(path: HookPath | None, counting: Counting, default: HookPath) -> HookPath:
    """The path to take. Raises UsageError for lean with ext_proc, which lean does not ask."""
    if counting is not Counting.EXTPROC:
        return path or default
    if path is HookPath.LEAN:
        raise click.UsageError(
            "--counting extproc needs --path standard: the lean path does not ask ext_proc"
        )
    return HookPath.STANDARD


_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


class Size(click.ParamType[int]):
    """A size in bytes, such as `32MiB`, `50MB` or a plain number, between two bounds."""

    name = "size"

    def __init__(self, smallest: int, largest: int) -> None:
        self._smallest, self._largest = smallest, largest

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Reads the text; a wrong one ends the command with a usage error."""
        matched = re.fullmatch(r"([0-9]{1,12}) ?([a-z]*)", str(value).strip().lower())
        unit = _UNITS.get(matched[2]) if matched else None
        if matched is None or unit is None:
            self.fail(f"{str(value)!r} is not a size, for example 32MiB or 50MB", param, ctx)
        size = int(matched[1]) * unit
        if not self._smallest <= size <= self._largest:
            bounds = f"{size_text(self._smallest)} to {size_text(self._largest)}"
            self.fail(f"{str(value)!r} is not in the range of {bounds}", param, ctx)
        return size


LEDGER_SPOOL_LIMIT = click.option(
    "--ledger-spool-limit",
    metavar="SIZE",
    type=Size(16 * 1024**2, 1024**4),
    default=size_text(SERVICES.ledger.spool_limit_bytes).replace(" ", ""),
    show_default=True,
    help="The most that the spool holds. Records beyond it are lost, and counted.",
)
BODY_LIMIT = click.option(
    "--body-limit",
    "body_limit_bytes",
    metavar="SIZE",
    type=Size(MIN_BODY_LIMIT_BYTES, MAX_BODY_LIMIT_BYTES),
    default=size_text(BOX.body_limit_bytes).replace(" ", ""),
    show_default=True,
    help="The largest request body; Envoy holds it while it is read. A larger one gets 413.",
)


class Name(click.ParamType[str]):
    """A name that the policy file takes."""

    name = "name"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """The text itself; a wrong one ends the command with a usage error."""
        if not is_name(str(value)):
            self.fail(f"{str(value)!r} is not a name; allowed: {NAME_RULE}", param, ctx)
        return str(value)
