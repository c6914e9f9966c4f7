"""`headgate ledger reprice`, `repricing` and `correct`: a month by another price book."""

import asyncio
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from headgate.cli.options import DATABASE_PASSWORD, FILE, Name
from headgate.core.clock import Clock, SystemClock
from headgate.core.errors import OperatorError
from headgate.core.policy import CompiledPolicy
from headgate.database.address import DatabaseAddress, database_address
from headgate.database.connection import DatabaseAwayError, connected
from headgate.database.migrate import check_schema
from headgate.identity.change_log import Actor, person_id, recorded
from headgate.ledger.price_list import put_prices
from headgate.ledger.repricing.correcting import order_corrections
from headgate.ledger.repricing.kept import (
    document_of,
    put_repricing,
    read_repricing,
    refuse_taken,
)
from headgate.ledger.repricing.reading import read_repriced
from headgate.ledger.repricing.sheet import repricing_csv, repricing_text
from headgate.ledger.repricing.values import Repricing, RepricingError
from headgate.ledger.showback.period import is_month
from headgate.ledger.showback.reading import read_names, read_prices
from headgate.ledger.showback.text import amount
from headgate.policy import load_policy

ORIGIN = "headgate ledger"
"""Where the change comes from, in the change log."""

T = TypeVar("T")

_ACTOR = click.option(
    "--actor", type=Name(), required=True, help="Who does this, for the change log."
)
_DATABASE = click.option(
    "--database", metavar="URL", required=True, help="The ledger's, as of `import`."
)


@click.command("reprice")
@click.argument("name", type=Name())
@click.option("--month", required=True, help="Such as 2026-10.")
@click.option("--tenant", help="Only the requests of this tenant.")
@click.option("--policy", type=FILE, required=True, help="The file with the prices to reckon by.")
@_ACTOR
@_DATABASE
@DATABASE_PASSWORD
def reprice_command(
    *,
    name: str,
    month: str,
    tenant: str | None,
    policy: Path,
    actor: str,
    database: str,
    database_password_file: Path | None,
) -> None:
    """Keep under NAME what a month would have cost by a policy's prices. It changes no record."""
    if not is_month(month):
        raise click.UsageError("--month is written as 2026-10")
    asked = _Asked(
        name=name, month=month, tenant=tenant, by=Actor(actor, ORIGIN), policy=load_policy(policy)
    )
    address = database_address(database, database_password_file)
    made, checksum = _done(_made(address, asked, SystemClock()))
    requests = sum(line.requests for line in made.lines)
    click.echo(f"repriced {requests:,} requests of {month} as {name}, SHA-256 {checksum}")


@click.command("repricing")
@click.argument("name", type=Name())
@click.option(
    "--format",
    "kind",
    type=click.Choice(("table", "csv", "json")),
    default="table",
    show_default=True,
)
@_DATABASE
@DATABASE_PASSWORD
def repricing_command(
    name: str, *, kind: str, database: str, database_password_file: Path | None
) -> None:
    """Show the repricing NAME."""
    address = database_address(database, database_password_file)
    sys.stdout.buffer.write(_done(_shown(address, name, kind)))


@click.command("correct")
@click.argument("name", type=Name())
@_ACTOR
@_DATABASE
@DATABASE_PASSWORD
def correct_command(
    name: str, *, actor: str, database: str, database_password_file: Path | None
) -> None:
    """Make the differences of the repricing NAME corrections in the next open month."""
    address = database_address(database, database_password_file)
    found, nanos = _done(_corrected(address, name, Actor(actor, ORIGIN), SystemClock()))
    click.echo(f"the next open month corrects {found.month} by {amount(nanos)} {found.currency}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    name: str
    month: str
    tenant: str | None
    by: Actor
    policy: CompiledPolicy


async def _made(address: DatabaseAddress, asked: _Asked, clock: Clock) -> tuple[Repricing, str]:
    """The repricing, which is kept now, and its checksum."""
    async with connected(address) as connection:
        await check_schema(connection)
        await refuse_taken(connection, asked.name)
        await put_prices(connection, asked.policy)
        period, lines = await read_repriced(connection, asked.policy, asked.month, asked.tenant)
        versions = {one for line in lines for one in (line.charged_version, line.new_version)}
        prices = await read_prices(connection, versions)
        async with recorded(connection, asked.by, clock) as recorder:
            made = Repricing(
                name=asked.name,
                month=asked.month,
                begin=period.begin,
                end=period.end,
                tenant=asked.tenant,
                currency=asked.policy.currency or "",
                made_at=datetime.fromtimestamp(recorder.now_s, UTC),
                made_by=await person_id(connection, asked.by.name),
                lines=lines,
                prices=prices,
            )
            checksum = await put_repricing(connection, made)
            after = {"month": asked.month, "checksum": checksum}
            await recorder.write("ledger.reprice", asked.name, None, after)
    return made, checksum


async def _corrected(
    address: DatabaseAddress, name: str, by: Actor, clock: Clock
) -> tuple[Repricing, int]:
    """The repricing whose corrections are ordered now, and their sum in nanos."""
    async with connected(address) as connection:
        await check_schema(connection)
        found, checksum = await read_repricing(connection, name)
        async with recorded(connection, by, clock) as recorder:
            nanos = await order_corrections(connection, found)
            after = {"month": found.month, "checksum": checksum}
            await recorder.write("ledger.correct", name, None, after)
    return found, nanos


async def _shown(address: DatabaseAddress, name: str, kind: str) -> bytes:
    async with connected(address) as connection:
        await check_schema(connection)
        found, checksum = await read_repricing(connection, name)
        people = {line.person for line in found.lines} | {found.made_by}
        names = await read_names(connection, people)
    match kind:
        case "json":
            return document_of(found)
        case "csv":
            return repricing_csv(found, names).encode()
        case _:
            return repricing_text(found, checksum, names).encode()


def _done(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except DatabaseAwayError as error:
        raise OperatorError(f"the database is away: {error}") from None
    except RepricingError as error:
        raise OperatorError(str(error)) from None
