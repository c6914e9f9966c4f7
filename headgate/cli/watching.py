"""The commands that ask a running Headgate: `doctor` and `top`."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import click

from headgate.cli.options import BOX, FILE, SERVICES, STORE_PASSWORD, HostPort
from headgate.core.clock import SystemClock
from headgate.doctor.examine import Parts, examine
from headgate.doctor.finding import has_problem
from headgate.doctor.upstreams import expected
from headgate.policy import load_policy
from headgate.program.settings import Address
from headgate.top.watch import first_screen, screens

_SERVE_ADMIN = Address("127.0.0.1", SERVICES.admin.port)
ADMIN = click.option(
    "--admin", type=HostPort(), help=f"The admin port [{BOX.admin}; with --serve {_SERVE_ADMIN}]."
)
SERVE = click.option("--serve", "is_serve", is_flag=True, help="Asks `headgate serve`.")
POLICY_OF_UPSTREAMS = click.option(
    "--policy", type=FILE, help="The policy file, whose vLLMs are asked, too."
)


@click.command("doctor")
@SERVE
@ADMIN
@click.option("--url", help=f"The door [{BOX.listen.url('http')}; with --serve none].")
@click.option(
    "--envoy-admin", metavar="PLACE", help="Envoy's admin: a URL, or the path of a unix socket."
)
@POLICY_OF_UPSTREAMS
@click.option(
    "--upstream-ca", type=FILE, help="The authorities of the vLLMs' certificates [the system's]."
)
@click.option("--store", help="The Redis of --store.")
@STORE_PASSWORD
def doctor_command(
    *,
    is_serve: bool,
    admin: Address | None,
    url: str | None,
    envoy_admin: str | None,
    policy: Path | None,
    upstream_ca: Path | None,
    store: str | None,
    store_password_file: Path | None,
) -> None:
    """Ask every part of a running Headgate: what is wrong, and what to do.

    The exit code is 1 if there is a problem.
    """
    parts = Parts(
        admin_url=admin_url(admin, is_serve),
        door_url=url or (None if is_serve else BOX.listen.url("http")),
        envoy_admin=envoy_admin,
        store=store,
        store_password_file=store_password_file,
        policy=policy,
        upstream_ca=upstream_ca,
    )
    findings = asyncio.run(examine(parts, SystemClock()))
    for finding in findings:
        click.echo(finding.line())
    sys.exit(1 if has_problem(findings) else 0)


@click.command("top")
@SERVE
@ADMIN
@POLICY_OF_UPSTREAMS
@click.option(
    "--interval-s",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    help="The time between two screens, over which rates are taken.",
)
@click.option("--once", is_flag=True, help="Prints one screen and ends.")
def top_command(
    *, is_serve: bool, admin: Address | None, policy: Path | None, interval_s: float, once: bool
) -> None:
    """Show requests, tokens, limits and vLLMs of a running Headgate; Ctrl-C ends it."""
    pods = {} if policy is None else _pods(policy)
    url, clock = admin_url(admin, is_serve), SystemClock()
    if once:
        click.echo(asyncio.run(first_screen(url, pods, interval_s, clock)))
        return
    with suppress(KeyboardInterrupt):
        asyncio.run(_show(screens(url, pods, interval_s, clock)))


async def _show(shown: AsyncIterator[str]) -> None:
    async for screen in shown:
        click.clear()
        click.echo(screen)


def _pods(file: Path) -> dict[str, str]:
    return {one.part.removeprefix("vLLM of "): one.url for one in expected(load_policy(file))}


def admin_url(admin: Address | None, is_serve: bool) -> str:
    """The URL of the admin port of `headgate serve` or `headgate up`."""
    return (admin or (_SERVE_ADMIN if is_serve else BOX.admin)).url("http")
