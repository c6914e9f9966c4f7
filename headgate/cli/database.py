"""`headgate database`: the schema of your own PostgreSQL."""

from pathlib import Path

import click

from headgate.cli.options import DATABASE_PASSWORD
from headgate.database.address import database_address
from headgate.database.migrate import migrate


@click.group("database")
def database_group() -> None:
    """The schema of your own PostgreSQL."""


@database_group.command("migrate")
@click.option(
    "--database",
    metavar="URL",
    required=True,
    help="postgresql://USER@HOST:PORT/DATABASE, as the owner of the database.",
)
@DATABASE_PASSWORD
def migrate_command(database: str, database_password_file: Path | None) -> None:
    """Bring the schema to the newest version. Run it before the new services start."""
    done = migrate(database_address(database, database_password_file))
    for name in done:
        click.echo(f"applied {name}")
    if not done:
        click.echo("the schema is the newest already")
