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

from headgate.cli.options import (
    API,
    API_TLS_CERT,
    API_TLS_KEY,
    AUTH_FAILURES,
    BODY_LIMIT,
    BOX,
    COUNTING,
    DATABASE,
    DATABASE_PASSWORD,
    FILE,
    GRPC_SERVER,
    KEYS_STALE,
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
    chosen_path,
)
from headgate.core.clock import SystemClock
from headgate.core.contract import Counting
from headgate.core.errors import OperatorError
from headgate.core.lean_contract import HookPath
from headgate.dataplane.box import MAX_CONNECTIONS, Tracing
from headgate.dataplane.tracing import collector as check_collector
from headgate.program.logs import configure_logs
from headgate.program.serve import serve
from headgate.program.settings import (
    Address,
    ApiSettings,
    BoxSettings,
    DatabaseSettings,
    LogFormat,
    LogLevel,
    LogSettings,
    ServiceSettings,
    StoreSettings,
    TlsFiles,
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
@API
@API_TLS_CERT
@API_TLS_KEY
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
def up_command(
    *,
    demo: bool,
    store: str,
    store_deadline_ms: int,
    store_password_file: Path | None,
    database: str | None,
    database_password_file: Path | None,
    keys_stale_s: float,
    api: Address | None,
    api_tls_cert: Path | None,
    api_tls_key: Path | None,
    operator_token_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    otlp: str | None,
    otlp_ratio: float,
    otlp_follow_client: bool,
    log_format: LogFormat,
    log_level: LogLevel,
    path: HookPath | None,
    counting: Counting,
    **options: Any,
) -> None:
    """One box: a real Envoy with the services, in front of one vLLM."""
    settings = BoxSettings(
        store=StoreSettings(
            store, deadline_s=store_deadline_ms / 1000, password_file=store_password_file
        ),
        database=_database(database, database_password_file, keys_stale_s),
        api=_api(api, api_tls_cert, api_tls_key, operator_token_file),
        tls=_tls_files(tls_cert, tls_key, "--tls-cert and --tls-key"),
        tracing=None if otlp is None else _tracing(otlp, otlp_ratio, otlp_follow_client),
        log=LogSettings(log_format, log_level),
        path=chosen_path(path, counting, BOX.path),
        counting=counting,
        **options,
    )
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
@API
@API_TLS_CERT
@API_TLS_KEY
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
def serve_command(
    *,
    store: str,
    replicas: int,
    store_deadline_ms: int,
    store_password_file: Path | None,
    database: str | None,
    database_password_file: Path | None,
    keys_stale_s: float,
    keys_snapshot: Path | None,
    api: Address | None,
    api_tls_cert: Path | None,
    api_tls_key: Path | None,
    operator_token_file: Path | None,
    log_format: LogFormat,
    log_level: LogLevel,
    **options: Any,
) -> None:
    """The services alone, for an Envoy or a mesh that runs elsewhere."""
    settings = ServiceSettings(
        store=StoreSettings(store, replicas, store_deadline_ms / 1000, store_password_file),
        database=_database(database, database_password_file, keys_stale_s, keys_snapshot),
        api=_api(api, api_tls_cert, api_tls_key, operator_token_file),
        log=LogSettings(log_format, log_level),
        **options,
    )
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


def _api(
    address: Address | None, certificate: Path | None, key: Path | None, token_file: Path | None
) -> ApiSettings:
    if address is None and (certificate or key or token_file):
        raise click.UsageError("--api-tls-cert, --api-tls-key and --operator-token-file need --api")
    tls = _tls_files(certificate, key, "--api-tls-cert and --api-tls-key")
    return ApiSettings(address=address, tls=tls, operator_token_file=token_file)


def _tracing(otlp: str, ratio: float, follow_client: bool) -> Tracing:
    tracing = Tracing(otlp, ratio, follow_client)
    check_collector(tracing)
    return tracing


def _tls_files(certificate: Path | None, key: Path | None, options: str) -> TlsFiles | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise click.UsageError(f"{options} go together")
    return TlsFiles(certificate, key)


def _database(
    url: str | None, password_file: Path | None, stale_s: float, snapshot: Path | None = None
) -> DatabaseSettings:
    if url is None and (password_file or snapshot):
        raise click.UsageError("--database-password-file and --keys-snapshot go with a --database")
    return DatabaseSettings(
        url=url, password_file=password_file, keys_stale_s=stale_s, keys_snapshot=snapshot
    )


def _default_policy() -> Path:
    if not _DEFAULT_POLICY.exists():
        raise OperatorError(
            f"there is no {_DEFAULT_POLICY} here: name one with --policy FILE, or start with --demo"
        )
    return _DEFAULT_POLICY


def _run(program: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(program)
