"""`headgate keys`: API keys of the policy file, and keys at run time."""

import json
import os
from typing import Any

import click

from headgate.cli.api import AS_JSON, calls_api, segment, show
from headgate.cli.key_scope import takes_scope
from headgate.cli.options import Name
from headgate.core.keys import new_key
from headgate.management.client import ApiClient
from headgate.policy import key_yaml

_COLUMNS = ("id", "tenant", "user", "is_live", "expires_at", "last_used_at", "models")


_CLEARED: dict[str, tuple[str, Any]] = {
    "models": ("models", None),
    "limits": ("limits", []),
    "labels": ("labels", {}),
    "end": ("expires_at", None),
}
"""What `--clear` takes, and what it sets."""


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
@takes_scope
@AS_JSON
def issue_command(
    *, api: ApiClient, tenant: str, user: str, scope: dict[str, Any], as_json: bool
) -> None:
    """Issue a key at run time, and print its secret once."""
    body = {"user": user, **scope}
    _print_issued(api.call("POST", f"/tenants/{segment(tenant)}/keys", body), as_json=as_json)


@keys_group.command("edit")
@calls_api
@click.argument("key")
@takes_scope
@click.option(
    "--clear",
    type=click.Choice(tuple(_CLEARED)),
    multiple=True,
    help="Takes away all models, limits or labels of its own, or its end; repeat.",
)
@AS_JSON
def edit_command(
    *, api: ApiClient, key: str, scope: dict[str, Any], clear: tuple[str, ...], as_json: bool
) -> None:
    """Edit a key: an option that is left out changes nothing, and a list is replaced."""
    cleared = dict(_CLEARED[name] for name in clear)
    if twice := sorted(cleared.keys() & scope.keys()):
        raise click.UsageError(f"{', '.join(twice)}: either set it or clear it")
    if not (scope or cleared):
        raise click.UsageError("name what to change: --model, --limit, --label, --hours or --clear")
    changed = api.call("PATCH", f"/keys/{segment(key)}", {**scope, **cleared})
    show([changed], _COLUMNS, as_json=as_json)


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
