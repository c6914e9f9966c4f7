"""`headgate users` and `headgate tokens`: who may call no more."""

import json
from datetime import datetime

import click

from headgate.cli.api import AS_JSON, calls_api, segment, show
from headgate.management.client import ApiClient

_REVOCATION = ("id", "issuer", "user", "token_id", "issued_before", "created_at", "lifted_at")
TENANT = click.option("--tenant", required=True)


@click.group("users")
def users_group() -> None:
    """The users of a tenant, and who of them is blocked."""


@users_group.command("list")
@calls_api
@TENANT
@AS_JSON
def users_list_command(*, api: ApiClient, tenant: str, as_json: bool) -> None:
    """List the users who have keys or are blocked."""
    rows = api.rows(f"/tenants/{segment(tenant)}/users")
    show(rows, ("name", "display_name", "blocked_at"), as_json=as_json)


@users_group.command("block")
@calls_api
@TENANT
@click.argument("user")
@AS_JSON
def users_block_command(*, api: ApiClient, tenant: str, user: str, as_json: bool) -> None:
    """Refuse a user, whatever key or token they show. Every replica does within a second."""
    _change(api, tenant, user, "block", as_json=as_json)


@users_group.command("unblock")
@calls_api
@TENANT
@click.argument("user")
@AS_JSON
def users_unblock_command(*, api: ApiClient, tenant: str, user: str, as_json: bool) -> None:
    """Let a user in again."""
    _change(api, tenant, user, "unblock", as_json=as_json)


@users_group.command("pseudonymise")
@calls_api
@click.argument("user")
@AS_JSON
def users_pseudonymise_command(*, api: ApiClient, user: str, as_json: bool) -> None:
    """Take the name of USER away for good. Their requests and all sums stay."""
    made = api.call("POST", f"/users/{segment(user)}/pseudonymise")
    click.echo(json.dumps(made) if as_json else f"{user} is {made['name']} from now on")


@click.group("tokens")
def tokens_group() -> None:
    """Tokens of issuers that count no more although they have not expired."""


@tokens_group.command("list")
@calls_api
@AS_JSON
def tokens_list_command(*, api: ApiClient, as_json: bool) -> None:
    """List the revocations, also those that were lifted."""
    show(api.rows("/revocations"), _REVOCATION, as_json=as_json)


@tokens_group.command("revoke")
@calls_api
@click.option("--user", help="All tokens of this user, such as okta:00u1.")
@click.option("--issued-before", help="Of the user, only tokens issued before this time (ISO).")
@click.option("--issuer", help="The issuer's name in the policy, with --token-id.")
@click.option("--token-id", help="The one token with this `jti`.")
@AS_JSON
def tokens_revoke_command(*, api: ApiClient, as_json: bool, **body: str | None) -> None:
    """Revoke tokens. Every replica refuses them within a second."""
    before = body["issued_before"]
    if before is not None:
        body["issued_before"] = _moment(before)
    made = api.call("POST", "/revocations", body)
    what = made["user"] or made["token_id"]
    click.echo(json.dumps(made) if as_json else f"revocation {made['id']} of {what}")


@tokens_group.command("lift")
@calls_api
@click.argument("revocation")
@AS_JSON
def tokens_lift_command(*, api: ApiClient, revocation: str, as_json: bool) -> None:
    """End a revocation."""
    lifted = api.call("POST", f"/revocations/{segment(revocation)}/lift")
    click.echo(json.dumps(lifted) if as_json else f"revocation {lifted['id']} is lifted")


def _change(api: ApiClient, tenant: str, user: str, how: str, *, as_json: bool) -> None:
    changed = api.call("POST", f"/tenants/{segment(tenant)}/users/{segment(user)}/{how}")
    state = "is blocked" if changed["blocked_at"] else "is not blocked"
    click.echo(json.dumps(changed) if as_json else f"{changed['name']} {state} in {tenant}")


def _moment(text: str) -> str:
    """The time with its zone; that of this machine if it names none."""
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except ValueError:
        raise click.UsageError("--issued-before is no time, as in 2027-01-31T18:00:00") from None
