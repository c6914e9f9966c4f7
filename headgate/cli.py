"""The command line: reads arguments, calls the program, prints. Nothing is decided here."""

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click
import uvloop

import headgate
from headgate.app import StoreSettings
from headgate.clock import SystemClock
from headgate.errors import OperatorError
from headgate.policy import describe, key_yaml, load_policy
from headgate.serve import ServeSettings, serve
from headgate.up import Address, UpSettings, up
from registry.keys import new_key
from simulator.__main__ import main as simulate

_FILE = click.Path(path_type=Path, dir_okay=False)
_DEFAULT_POLICY = Path("headgate.yaml")


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
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keeps sockets, Envoy's configuration and logs here [a temporary folder].",
)
def up_command(
    demo: bool,
    policy: Path | None,
    upstream: str | None,
    listen: Address,
    admin: Address,
    store: str,
    records: Path,
    run_dir: Path | None,
) -> None:
    """One box: a real Envoy with the services, in front of one vLLM."""
    if demo and (policy or upstream):
        raise click.UsageError("--demo brings its own policy and upstream")
    if not demo and policy is None:
        policy = _default_policy()
    settings = UpSettings(policy, upstream, listen, admin, store, records, run_dir)
    _run(up(settings, SystemClock(), click.echo))


@cli.command("serve")
@click.option("--policy", type=_FILE, default=_DEFAULT_POLICY, show_default=True)
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
def serve_command(
    policy: Path,
    hooks: str,
    admin: Address,
    store: str,
    store_deadline_ms: int,
    replicas: int,
    records: Path | None,
    drain_s: float,
) -> None:
    """The services alone, for an Envoy or a mesh that runs elsewhere."""
    counted = StoreSettings(store, replicas, store_deadline_ms / 1000)
    settings = ServeSettings(policy, hooks, admin.host, admin.port, counted, records, drain_s)
    _run(serve(settings, SystemClock()))


@cli.command("check")
@click.argument("file", type=_FILE)
def check_command(file: Path) -> None:
    """Check a policy file: every mistake at once, exit code 1 if there is one."""
    click.echo(describe(load_policy(file)))


@cli.group("keys")
def keys_group() -> None:
    """API keys."""


@keys_group.command("new")
@click.option("--tenant", required=True)
@click.option("--user", required=True)
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
    # We start children by exec alone; gRPC's fork handlers would only fill the terminal.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    logging.basicConfig(level=logging.WARNING, format="headgate: %(message)s")
    try:
        cli()
    except OperatorError as error:
        click.echo(f"headgate: {error}", err=True)
        sys.exit(1)


def _default_policy() -> Path:
    if not _DEFAULT_POLICY.exists():
        raise OperatorError(
            f"there is no {_DEFAULT_POLICY} here: name one with --policy FILE, or start with --demo"
        )
    return _DEFAULT_POLICY


def _run(program: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(program)
