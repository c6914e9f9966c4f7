"""`headgate cache`: the answers that a running gateway keeps."""

import json

import click

from headgate.cli.api import AS_JSON, calls_api, segment
from headgate.management.client import ApiClient


@click.group("cache")
def cache_group() -> None:
    """The answer cache of a running gateway."""


@cache_group.command("purge")
@calls_api
@click.option("--tenant", required=True, help="The tenant whose answers are forgotten.")
@AS_JSON
def cache_purge_command(*, api: ApiClient, tenant: str, as_json: bool) -> None:
    """Forget all answers of a tenant at once."""
    purged = api.call("POST", f"/tenants/{segment(tenant)}/cache/purge")
    said = f"{purged['answers']} answers of {purged['tenant']} are forgotten"
    click.echo(json.dumps(purged) if as_json else said)
