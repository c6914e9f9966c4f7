"""`headgate login` and `headgate logout`: a token of an issuer for the commands of the API."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from headgate.cli.api import API, CA
from headgate.core.clock import SystemClock
from headgate.core.errors import OperatorError
from headgate.core.issuers import LoginToken
from headgate.management.client import ApiClient
from headgate.management.client_tokens import check_address, kept_logins
from headgate.management.device_flow import DeviceFlow, Prompt, Way


@click.command("login")
@API
@CA
@click.option("--issuer", help="The issuer's name in the policy, if it has several.")
def login_command(*, url: str, ca: Path | None, issuer: str | None) -> None:
    """Log in at an issuer, for all commands that call the API."""
    check_address(url)
    way = _chosen(ApiClient(url, None, ca).rows("/login"), url, issuer)
    login = DeviceFlow(way.issuer, SystemClock(), time.sleep).log_in(way, _ask)
    tenants = list(ApiClient(url, login.token, ca).rows("/tenants"))
    kept_logins().put(url, login)
    roles = ", ".join(f"{one['name']} ({one['role']})" for one in tenants)
    click.echo(f"You are logged in at {url}: {roles or 'no tenant'}")


@click.command("logout")
@API
def logout_command(*, url: str) -> None:
    """Forget the login, and end it at its issuer."""
    logins = kept_logins()
    login = logins.get(url)
    logins.remove(url)
    if login is None:
        click.echo(f"There is no login at {url}")
        return
    try:
        DeviceFlow(login.issuer, SystemClock(), time.sleep).revoke(login)
    except OperatorError as error:
        click.echo(f"The login is forgotten here, but not ended at its issuer: {error}", err=True)
    click.echo(f"You are logged out at {url}")


def _ask(prompt: Prompt) -> None:
    click.echo(f"Open {prompt.url} and confirm the code {prompt.code}", err=True)


def _chosen(rows: Iterable[dict[str, Any]], url: str, issuer: str | None) -> Way:
    ways = {row["name"]: Way(**{**row, "token": LoginToken(row["token"])}) for row in rows}
    if not ways:
        raise OperatorError(f"{url}: no issuer of the policy has `device_login`; use --token-file")
    if issuer is None and len(ways) == 1:
        return next(iter(ways.values()))
    if issuer not in ways:
        raise OperatorError(f"name one of these with --issuer: {', '.join(sorted(ways))}")
    return ways[issuer]
