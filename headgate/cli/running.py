"""The commands that run until a signal ends them: `up`, `serve` and `simulate`.

Most options carry the name of their field in `headgate.program.settings`: they are passed on to it
as they are.
"""

import asyncio
import sys
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import uvloop

from headgate.cli.fields import box_fields, service_fields
from headgate.cli.options import (
    AFFINITY_SALT,
    API,
    API_TLS_CERT,
    API_TLS_KEY,
    API_URL,
    AUTH_FAILURES,
    BODY_LIMIT,
    BOX,
    CACHE_SECRET,
    COUNTING,
    DATABASE,
    DATABASE_PASSWORD,
    FILE,
    GRPC_SERVER,
    KEYS_STALE,
    LEDGER_SPOOL,
    LEDGER_SPOOL_LIMIT,
    LOG_FORMAT,
    LOG_LEVEL,
    OPERATOR_TOKEN,
    OTLP,
    OTLP_FOLLOW_CLIENT,
    OTLP_RATIO,
    PATH,
    POLICY,
    RATELIMIT_CONFIG,
    SERVICES,
    STORE,
    STORE_DEADLINE,
    STORE_PASSWORD,
    WORKERS,
    HostPort,
)
from headgate.core.clock import SystemClock
from headgate.core.errors import OperatorError
from headgate.dataplane.box import MAX_CONNECTIONS
from headgate.program.logs import configure_logs
from headgate.program.serve import serve
from headgate.program.settings import (
    BoxSettings,
    ServiceSettings,
)
from headgate.program.up import up
from headgate.simulator.__main__ import main as simulate

_DEFAULT_POLICY = Path("headgate.yaml")


@click.command("up")
@click.option("--demo", is_flag=True, help="A vLLM simulator, a policy and fresh keys to try.")
@POLICY
@click.option("--upstream", metavar="URL", help="The vLLM that serves every model of the policy.")
@click.option(
    "--upstream-ca", type=FILE, help="The authorities of the vLLMs' certificates [the system's]."
)
@click.option("--listen", type=HostPort(), default=BOX.listen, show_default=True)
@click.option("--admin", type=HostPort(), default=BOX.admin, show_default=True)
@STORE
@STORE_PASSWORD
@STORE_DEADLINE
@click.option(
    "--database-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Starts a PostgreSQL with its data in this folder, for keys issued at run time.",
)
@DATABASE
@DATABASE_PASSWORD
@KEYS_STALE
@LEDGER_SPOOL
@LEDGER_SPOOL_LIMIT
@API
@API_TLS_CERT
@API_TLS_KEY
@API_URL
@OPERATOR_TOKEN
@click.option(
    "--records",
    type=FILE,
    default=BOX.records,
    show_default=True,
    help="Where usage records are appended.",
)
@click.option("--tls-cert", type=FILE, help="Clients speak TLS: the certificate chain, PEM.")
@click.option("--tls-key", type=FILE, help="The certificate's private key, PEM.")
@CACHE_SECRET
@AUTH_FAILURES
@GRPC_SERVER
@WORKERS
@LOG_FORMAT
@LOG_LEVEL
@click.option(
    "--max-connections",
    type=click.IntRange(min=1),
    help=f"How many connections clients may hold open together [{MAX_CONNECTIONS}].",
)
@click.option(
    "--drain-s",
    type=click.FloatRange(min=0),
    default=BOX.drain_s,
    show_default=True,
    help="How long running requests may take to end, once it is stopped.",
)
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keeps sockets, Envoy's configuration and logs here [a temporary folder].",
)
@BODY_LIMIT
@COUNTING
@OTLP
@OTLP_RATIO
@OTLP_FOLLOW_CLIENT
@PATH
@AFFINITY_SALT
def up_command(*, demo: bool, **options: Any) -> None:
    """One box: a real Envoy with the services, in front of one vLLM."""
    settings = BoxSettings(**box_fields(options))
    if demo and (settings.policy or settings.upstream):
        raise click.UsageError("--demo brings its own policy and upstream")
    if not demo and settings.policy is None:
        settings = replace(settings, policy=_default_policy())
    configure_logs(settings.log)
    _run(up(settings, SystemClock(), click.echo))


@click.command("serve")
@POLICY
@click.option("--hooks", default=SERVICES.hooks, show_default=True, help="HOST:PORT or unix:PATH")
@click.option("--admin", type=HostPort(), default=SERVICES.admin, show_default=True)
@STORE
@STORE_PASSWORD
@STORE_DEADLINE
@DATABASE
@DATABASE_PASSWORD
@KEYS_STALE
@LEDGER_SPOOL
@LEDGER_SPOOL_LIMIT
@API
@API_TLS_CERT
@API_TLS_KEY
@API_URL
@OPERATOR_TOKEN
@click.option(
    "--keys-snapshot",
    type=FILE,
    help="Keeps the database's keys in this file, for a start while the database is away.",
)
@click.option(
    "--replicas",
    type=click.IntRange(min=1),
    default=SERVICES.store.replicas,
    show_default=True,
    help="How many replicas share the limits, until Redis reports the number.",
)
@click.option("--records", type=FILE, help="Where usage records are appended [standard output].")
@click.option(
    "--drain-s",
    type=click.FloatRange(min=0),
    default=SERVICES.drain_s,
    show_default=True,
    help="How long running requests of the proxies may take to end.",
)
@CACHE_SECRET
@AUTH_FAILURES
@GRPC_SERVER
@WORKERS
@LOG_FORMAT
@LOG_LEVEL
@RATELIMIT_CONFIG
@click.option(
    "--ratelimit-count-refused",
    is_flag=True,
    help="Its limits count hits that they refuse; needed where Envoy charges at a stream's end.",
)
@click.option(
    "--ratelimit-metadata",
    is_flag=True,
    help="Its answers carry metadata for later filters, as with RESPONSE_DYNAMIC_METADATA.",
)
@click.option(
    "--ratelimit-near-limit-ratio",
    type=click.FloatRange(0, 1),
    default=SERVICES.ratelimit_near_limit_ratio,
    show_default=True,
    help="From this part of its limits on, metrics count hits as near the limit.",
)
def serve_command(**options: Any) -> None:
    """The services alone, for an Envoy or a mesh that runs elsewhere."""
    settings = ServiceSettings(**service_fields(options))
    if settings.policy is None and (_DEFAULT_POLICY.exists() or not settings.ratelimit_config):
        settings = replace(settings, policy=_DEFAULT_POLICY)
    configure_logs(settings.log)
    _run(serve(settings, SystemClock()))


@click.command(
    "simulate",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def simulate_command(options: tuple[str, ...]) -> None:
    """The vLLM simulator alone: the same API without a GPU (--help lists its options)."""
    sys.exit(simulate(list(options)))


def _default_policy() -> Path:
    if not _DEFAULT_POLICY.exists():
        raise OperatorError(
            f"there is no {_DEFAULT_POLICY} here: name one with --policy FILE, or start with --demo"
        )
    return _DEFAULT_POLICY


def _run(program: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(program)
