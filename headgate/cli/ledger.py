"""`headgate ledger`: usage records in the database."""

import asyncio
import sys
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from headgate.cli.options import DATABASE_PASSWORD, FILE
from headgate.cli.progress import progress
from headgate.core.clock import SystemClock
from headgate.core.errors import OperatorError
from headgate.core.record_lines import files_size_bytes
from headgate.database.address import DatabaseAddress, database_address
from headgate.database.connection import DatabaseAwayError, connected
from headgate.database.migrate import check_schema
from headgate.ledger.feeding import Fed
from headgate.ledger.importing import Import, Source, file_source, pipe_source
from headgate.ledger.months import clear_addresses, drop_months, first_kept
from headgate.ledger.notices.outbox import expire_notices
from headgate.policy import load_policy

BAD_LINES = 3
"""The exit code of an import that left out bad lines."""
_NAMED_BAD_LINES = 10
_STDIN = "-"

T = TypeVar("T")

_URL = click.option(
    "--database",
    metavar="URL",
    required=True,
    help="postgresql://USER@HOST:PORT/DATABASE of the ledger.",
)


@click.group("ledger")
def ledger_group() -> None:
    """Usage records in the database."""


@ledger_group.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True))
@_URL
@DATABASE_PASSWORD
@click.option(
    "--wait-s",
    type=click.FloatRange(min=0),
    default=3600.0,
    show_default=True,
    help="How long it waits for a database that is away.",
)
@click.option("--policy", type=FILE, help="Adds the prices of this policy file, too.")
def import_command(
    files: tuple[Path, ...],
    database: str,
    database_password_file: Path | None,
    wait_s: float,
    policy: Path | None,
) -> None:
    """Add usage records of FILES, plain or gzip; - is standard input, line by line as they come.

    A record that the ledger has is left as it is. Bad lines are named and left out; the exit code
    is 3 then.
    """
    address = database_address(database, database_password_file)
    bad = _BadLines()
    prices = None if policy is None else load_policy(policy)
    connect = partial(connected, address)
    work = Import(connect, SystemClock(), wait_s, bad.name, policy=prices)
    with _sources(files) as sources:
        fed = _done(work.run(sources))
    click.echo(_summary(fed))
    if fed.bad:
        sys.exit(BAD_LINES)


@ledger_group.command("expire")
@_URL
@DATABASE_PASSWORD
@click.option(
    "--keep-months",
    type=click.IntRange(min=1),
    required=True,
    help="How many whole months stay, beside the current one.",
)
@click.option(
    "--keep-addresses-months",
    type=click.IntRange(min=1),
    help="How many whole months keep addresses and programs of clients [as --keep-months].",
)
def expire_command(
    database: str,
    database_password_file: Path | None,
    keep_months: int,
    keep_addresses_months: int | None,
) -> None:
    """Drop the records and notices of old months, as the owner of the database."""
    address = database_address(database, database_password_file)
    before = first_kept(SystemClock().now_s(), keep_months)
    dropped = _done(_drop(address, before))
    for month in dropped:
        click.echo(f"dropped {month:%Y-%m}")
    if not dropped:
        click.echo(f"there are no records from before {before:%Y-%m}")
    if keep_addresses_months is not None:
        cleared_before = first_kept(SystemClock().now_s(), keep_addresses_months)
        cleared = _done(_clear(address, cleared_before))
        click.echo(f"cleared the addresses of {cleared:,} records before {cleared_before:%Y-%m}")


async def _drop(address: DatabaseAddress, before: date) -> list[date]:
    async with connected(address) as connection:
        await check_schema(connection)
        dropped = await drop_months(connection, before)
        await expire_notices(connection, before)
        return dropped


async def _clear(address: DatabaseAddress, before: date) -> int:
    async with connected(address) as connection:
        return await clear_addresses(connection, before)


class _BadLines:
    """Prints the first bad lines, and is silent about the others: their number is in the end."""

    def __init__(self) -> None:
        self._named = 0

    def name(self, source: str, number: int, why: str) -> None:
        self._named += 1
        if self._named <= _NAMED_BAD_LINES:
            click.echo(f"headgate: {source}:{number}: {why}", err=True)


@contextmanager
def _sources(files: Sequence[Path]) -> Iterator[list[Source]]:
    plain = [file for file in files if str(file) != _STDIN]
    with progress("importing", files_size_bytes(plain)) as on_bytes:
        yield [
            pipe_source(sys.stdin.fileno()) if str(file) == _STDIN else file_source(file, on_bytes)
            for file in files
        ]


def _summary(fed: Fed) -> str:
    return (
        f"{fed.added:,} records added, {fed.repeated:,} were there already,"
        f" {fed.bad:,} bad lines left out"
    )


def _done(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except DatabaseAwayError as error:
        raise OperatorError(f"the database is away: {error}") from None
