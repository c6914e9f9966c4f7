"""Keeps what each price version stands for, so that a reader of the ledger needs no policy file."""

from datetime import UTC, datetime

from psycopg.types.json import Jsonb

from headgate.core.policy import CompiledPolicy
from headgate.database.connection import Connection

_PUT = """
insert into headgate.price (version, valid_from, currency, prices) values (%s, %s, %s, %s)
on conflict (version) do nothing
"""


async def put_prices(connection: Connection, policy: CompiledPolicy) -> None:
    """Adds the price versions of a policy that the database does not have."""
    books = [model.prices for model in policy.models.values()]
    periods = {one.version: one for book in books for one in book.all_periods}
    for version, period in sorted(periods.items()):
        begin = None if period.from_s is None else datetime.fromtimestamp(period.from_s, UTC)
        values = (version, begin, period.currency, Jsonb(period.prices.by_kind()))
        await connection.execute(_PUT, values)
