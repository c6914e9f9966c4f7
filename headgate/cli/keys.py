"""`headgate keys`: API keys of the policy file, and keys at run time."""

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from headgate.cli.api import AS_JSON, calls_api, segment, show
from headgate.cli.options import Name
from headgate.core.keys import new_key
from headgate.management.client import ApiClient
from headgate.policy import key_yaml

_COLUMNS = ("id", "tenant", "user", "is_live", "expires_at", "last_used_at", "models")


@click.group("keys")
def keys_group() -> None:
    """API keys."""


@keys_group.command("new")
@click.option("--tenant", type=Name(), required=True)
@click.option("--user", type=Name(), required=True)
def new_key_command(tenant: str, user: str) -> None:
    """Print a fresh API key, once, and the YAML that admits it."""
    key = new_key(os.urandom)
    click.echo(f"{key.secret}\n")
    click.echo(
        "The key is not shown again. Give it to its user, and add this to the policy file:\n",
        err=True,
    )
    click.echo(key_yaml(tenant, user, key))


@keys_group.command("issue")
@calls_api
@click.option("--tenant", required=True)
@click.option("--user", required=True)
@click.option("--model", "models", multiple=True, help="The key may use this model only; repeat.")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="How long it lives.")
@AS_JSON
def issue_command(
    *,
    api: ApiClient,
    tenant: str,
    user: str,
    models: tuple[str, ...],
    hours: float | None,
    as_json: bool,
) -> None:
    """Issue a key at run time, and print its secret once."""
    body: dict[str, Any] = {"user": user, "models": list(models) or None}
    if hours is not None:
        body["expires_at"] = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
    _print_issued(api.call("POST", f"/tenants/{segment(tenant)}/keys", body), as_json=as_json)


@keys_group.command("list")
@calls_api
@click.option("--tenant", required=True)
@AS_JSON
def list_command(*, api: ApiClient, tenant: str, as_json: bool) -> None:
    """List the keys at run time of a tenant."""
    show(api.rows(f"/tenants/{segment(tenant)}/keys"), _COLUMNS, as_json=as_json)


@keys_group.command("rotate")
@calls_api
@click.argument("key")
@click.option(
    "--overlap-s", type=click.FloatRange(min=0), default=0.0, help="How long the older go on [0]."
)
@AS_JSON
def rotate_command(*, api: ApiClient, key: str, overlap_s: float, as_json: bool) -> None:
    """Give a key a new secret, and print it once."""
    body = {"overlap_s": overlap_s}
    _print_issued(api.call("POST", f"/keys/{segment(key)}/rotate", body), as_json=as_json)


@keys_group.command("revoke")
@calls_api
@click.argument("key")
@AS_JSON
def revoke_command(*, api: ApiClient, key: str, as_json: bool) -> None:
    """End a key. Every replica refuses it within a second."""
    ended = api.call("POST", f"/keys/{segment(key)}/revoke")
    click.echo(json.dumps(ended) if as_json else f"{ended['id']} has ended")


def _print_issued(issued: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(issued))
        return
    click.echo(issued["secret"])
    click.echo(f"The key {issued['key']['id']} is not shown again. Give it to its user.", err=True)
