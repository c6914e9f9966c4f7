"""The command line: reads arguments, calls the program, prints. Nothing is decided here."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import uvloop

import headgate
from dataplane.box import MAX_CONNECTIONS
from extauthz.failures import DEFAULT_PER_MINUTE
from headgate.app import StoreSettings
from headgate.clock import SystemClock
from headgate.contract import Counting
from headgate.dropin import describe_dropin, load_dropin
from headgate.errors import OperatorError
from headgate.policy import NAME_RULE, PolicyError, describe, is_name, key_yaml, load_policy
from headgate.replay import as_json, as_table, replay_files
from headgate.serve import ServeSettings, serve
from headgate.tls import TlsFiles
from headgate.up import Address, UpSettings, up
from registry.keys import new_key
from simulator.__main__ import main as simulate

_FILE = click.Path(path_type=Path, dir_okay=False)
_RATELIMIT_CONFIG = click.option(
    "--ratelimit-config",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A file or directory that configures envoyproxy/ratelimit; may be given again.",
)
_AUTH_FAILURES = click.option(
    "--auth-failures-per-minute",
    type=click.IntRange(min=1),
    default=DEFAULT_PER_MINUTE,
    show_default=True,
    help="How often an address may come without a known key, before it gets 429 for it.",
)
_DEFAULT_POLICY = Path("headgate.yaml")
_STDERR = 2


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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(headgate.__version__, prog_name="headgate")
def cli() -> None:
    """Identity, quotas and metering for LLM traffic on Envoy and Istio."""


@cli.command("up")
@click.option("--demo", is_flag=True, help="A vLLM simulator, a policy and fresh keys to try.")
@click.option("--policy", type=_FILE, help="The policy file [headgate.yaml].")
@click.option("--upstream", metavar="URL", help="The vLLM that serves every model of the policy.")
@click.option("--listen", type=HostPort(), default="127.0.0.1:8080", show_default=True)
@click.option("--admin", type=HostPort(), default="127.0.0.1:8081", show_default=True)
@click.option(
    "--store", default="memory", show_default=True, help="memory, or redis://HOST:PORT/DB"
)
@click.option(
    "--records",
    type=_FILE,
    default="headgate-usage.jsonl",
    show_default=True,
    help="Where usage records are appended.",
)
@click.option("--tls-cert", type=_FILE, help="Clients speak TLS: the certificate chain, PEM.")
@click.option("--tls-key", type=_FILE, help="The certificate's private key, PEM.")
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
@click.option(
    "--counting",
    type=click.Choice([one.value for one in Counting]),
    default=Counting.PROXY.value,
    show_default=True,
    help="Who counts the tokens of answers: a filter in Envoy, or ext_proc.",
)
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


@cli.command("serve")
@click.option("--policy", type=_FILE, help="The policy file [headgate.yaml].")
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
@click.option("--records", type=_FILE, help="Where usage records are appended [standard output].")
@click.option("--drain-s", default=10.0, show_default=True, help="How long calls may take to end.")
@_AUTH_FAILURES
@_RATELIMIT_CONFIG
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


@cli.command("check")
@click.argument("file", type=_FILE, required=False)
@_RATELIMIT_CONFIG
def check_command(file: Path | None, ratelimit_config: tuple[Path, ...]) -> None:
    """Check a policy file: every mistake at once, exit code 1 if there is one."""
    if file is None and not ratelimit_config:
        raise click.UsageError("name a policy FILE, or files with --ratelimit-config")
    if file is not None:
        click.echo(describe(load_policy(file)))
    if ratelimit_config:
        click.echo(describe_dropin(load_dropin(ratelimit_config)))


@cli.command("replay")
@click.option(
    "--records",
    type=_FILE,
    required=True,
    multiple=True,
    help="Usage records, plain or gzip; several times for several files.",
)
@click.option("--policy", type=_FILE, required=True, help="The policy to try.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True
)
def replay_command(records: tuple[Path, ...], policy: Path, form: str) -> None:
    """Who would have been refused under another policy."""
    report = replay_files(records, load_policy(policy), _progress)
    for line in report.records.bad:
        click.echo(f"headgate: {line}", err=True)
    click.echo(as_json(report) if form == "json" else as_table(report))


@contextmanager
def _progress(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal's standard error, else nothing."""
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=length, label=label, file=sys.stderr, hidden=hidden) as bar:
        yield bar.update


@cli.group("keys")
def keys_group() -> None:
    """API keys."""


@keys_group.command("new")
@click.option("--tenant", type=Name(), required=True)
@click.option("--user", type=Name(), required=True)
def new_key_command(tenant: str, user: str) -> None:
    """Print a fresh API key, once, and the YAML that admits it."""
    key = new_key(os.urandom)
    click.echo(f"{key.secret}\n")
    click.echo("Shown this once. Give it to its user, and add this to the policy file:\n", err=True)
    click.echo(key_yaml(tenant, user, key))


@cli.command(
    "simulate",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def simulate_command(options: tuple[str, ...]) -> None:
    """The vLLM simulator alone: the same API without a GPU (--help lists its options)."""
    sys.exit(simulate(list(options)))


def main() -> None:
    """The program's entry: an operator's mistake is one line on standard error and exit code 1."""
    _open_standard_streams()
    logging.basicConfig(level=logging.WARNING, format="headgate: %(message)s")
    try:
        cli()
    except PolicyError as error:  # each line begins with the file's name and line
        click.echo(str(error), err=True)
        sys.exit(1)
    except OperatorError as error:
        click.echo(f"headgate: {error}", err=True)
        sys.exit(1)


def _open_standard_streams() -> None:
    """Opens those that are closed (`>&-`): a socket under their numbers would be written into."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)


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
