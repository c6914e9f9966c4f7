"""`headgate keys`: API keys."""

import os

import click

from headgate.cli.options import Name
from headgate.core.keys import new_key
from headgate.policy import key_yaml


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
