"""`headgate tenants` and `headgate audit`: what the management API shows."""

import json

import click

from headgate.cli.api import AS_JSON, calls_api, segment, show
from headgate.management.client import ApiClient


@click.group("tenants")
def tenants_group() -> None:
    """The tenants of a running gateway."""


@tenants_group.command("list")
@calls_api
@AS_JSON
def tenants_list_command(*, api: ApiClient, as_json: bool) -> None:
    """List the tenants in which you have a role."""
    show(api.rows("/tenants"), ("name", "role", "timezone", "models"), as_json=as_json)


@click.group("audit")
def audit_group() -> None:
    """The change log of a running gateway."""


@audit_group.command("list")
@calls_api
@click.option("--tenant", help="Only the changes of this tenant's keys.")
@AS_JSON
def audit_list_command(*, api: ApiClient, tenant: str | None, as_json: bool) -> None:
    """List the changes, from the oldest on."""
    path = "/changes" if tenant is None else f"/tenants/{segment(tenant)}/changes"
    show(api.rows(path), ("number", "at", "actor", "origin", "action", "object"), as_json=as_json)


@audit_group.command("verify")
@calls_api
@click.option("--number", type=int, help="The number of a head that you noted earlier.")
@click.option("--hash", help="The hash of that head.")
@AS_JSON
def audit_verify_command(
    *, api: ApiClient, number: int | None, hash: str | None, as_json: bool
) -> None:
    """Verify that nobody has edited the change log; exit code 1 if somebody has."""
    if (number is None) != (hash is None):
        raise click.UsageError("--number and --hash go together")
    head = api.call("GET", "/changes/head", number=number, hash=hash)
    if as_json:
        click.echo(json.dumps(head))
    else:
        click.echo(f"the change log is whole: {head['number']} changes, hash {head['hash']}")
