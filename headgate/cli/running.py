"""The commands that run until they are told to end: `up`, `serve` and `simulate`."""

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click
import uvloop

from extauthz.failures import DEFAULT_PER_MINUTE
from headgate.cli.options import COUNTING, FILE, RATELIMIT_CONFIG, HostPort
from headgate.core.clock import SystemClock
from headgate.core.contract import Counting
from headgate.core.errors import OperatorError
from headgate.dataplane.box import MAX_CONNECTIONS
from headgate.program.app import StoreSettings
from headgate.program.serve import ServeSettings, serve
from headgate.program.tls import TlsFiles
from headgate.program.up import Address, UpSettings, up
from headgate.simulator.__main__ import main as simulate

_AUTH_FAILURES = click.option(
    "--auth-failures-per-minute",
    type=click.IntRange(min=1),
    default=DEFAULT_PER_MINUTE,
    show_default=True,
    help="How often an address may come without a known key, before it gets 429 for it.",
)
_DEFAULT_POLICY = Path("headgate.yaml")


@click.command("up")
@click.option("--demo", is_flag=True, help="A vLLM simulator, a policy and fresh keys to try.")
@click.option("--policy", type=FILE, help="The policy file [headgate.yaml].")
@click.option("--upstream", metavar="URL", help="The vLLM that serves every model of the policy.")
@click.option("--listen", type=HostPort(), default="127.0.0.1:8080", show_default=True)
@click.option("--admin", type=HostPort(), default="127.0.0.1:8081", show_default=True)
@click.option(
    "--store", default="memory", show_default=True, help="memory, or redis://HOST:PORT/DB"
)
@click.option(
    "--records",
    type=FILE,
    default="headgate-usage.jsonl",
    show_default=True,
    help="Where usage records are appended.",
)
@click.option("--tls-cert", type=FILE, help="Clients speak TLS: the certificate chain, PEM.")
@click.option("--tls-key", type=FILE, help="The certificate's private key, PEM.")
@_AUTH_FAILURES
@click.option(
    "--max-connections",
    type=click.IntRange(min=1),
    help=f"How many connections clients may hold open together [{MAX_CONNECTIONS}].",
)
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keeps sockets, Envoy's configuration and logs here [a temporary folder].",
)
@COUNTING
def up_command(
    demo: bool,
    policy: Path | None,
    upstream: str | None,
    listen: Address,
    admin: Address,
    store: str,
    records: Path,
    tls_cert: Path | None,
    tls_key: Path | None,
    auth_failures_per_minute: int,
    max_connections: int | None,
    run_dir: Path | None,
    counting: str,
) -> None:
    """One box: a real Envoy with the services, in front of one vLLM."""
    if demo and (policy or upstream):
        raise click.UsageError("--demo brings its own policy and upstream")
    if not demo and policy is None:
        policy = _default_policy()
    settings = UpSettings(
        policy=policy,
        upstream=upstream,
        listen=listen,
        admin=admin,
        store=store,
        records=records,
        run_dir=run_dir,
        tls=_tls_files(tls_cert, tls_key),
        auth_failures_per_minute=auth_failures_per_minute,
        max_connections=max_connections,
        counting=Counting(counting),
    )
    _run(up(settings, SystemClock(), click.echo))


@click.command("serve")
@click.option("--policy", type=FILE, help="The policy file [headgate.yaml].")
@click.option("--hooks", default="0.0.0.0:9001", show_default=True, help="HOST:PORT or unix:PATH")
@click.option("--admin", type=HostPort(), default="0.0.0.0:9002", show_default=True)
@click.option(
    "--store", default="memory", show_default=True, help="memory, or redis://HOST:PORT/DB"
)
@click.option(
    "--store-deadline-ms",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="How long one call to Redis may take.",
)
@click.option(
    "--replicas",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many replicas share the limits, until Redis has told.",
)
@click.option("--records", type=FILE, help="Where usage records are appended [standard output].")
@click.option("--drain-s", default=10.0, show_default=True, help="How long calls may take to end.")
@_AUTH_FAILURES
@RATELIMIT_CONFIG
@click.option(
    "--ratelimit-count-refused",
    is_flag=True,
    help="Its limits count hits that they refuse; needed where Envoy charges at a stream's end.",
)
def serve_command(
    policy: Path | None,
    hooks: str,
    admin: Address,
    store: str,
    store_deadline_ms: int,
    replicas: int,
    records: Path | None,
    drain_s: float,
    auth_failures_per_minute: int,
    ratelimit_config: tuple[Path, ...],
    ratelimit_count_refused: bool,
) -> None:
    """The services alone, for an Envoy or a mesh that runs elsewhere."""
    if policy is None and (_DEFAULT_POLICY.exists() or not ratelimit_config):
        policy = _DEFAULT_POLICY
    settings = ServeSettings(
        policy=policy,
        hooks=hooks,
        admin_host=admin.host,
        admin_port=admin.port,
        store=StoreSettings(store, replicas, store_deadline_ms / 1000),
        records=records,
        drain_s=drain_s,
        ratelimit_config=ratelimit_config,
        counts_refused=ratelimit_count_refused,
        auth_failures_per_minute=auth_failures_per_minute,
    )
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


def _tls_files(certificate: Path | None, key: Path | None) -> TlsFiles | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise click.UsageError("--tls-cert and --tls-key go together")
    return TlsFiles(certificate, key)


def _default_policy() -> Path:
    if not _DEFAULT_POLICY.exists():
        raise OperatorError(
            f"there is no {_DEFAULT_POLICY} here: name one with --policy FILE, or start with --demo"
        )
    return _DEFAULT_POLICY


def _run(program: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(program)
