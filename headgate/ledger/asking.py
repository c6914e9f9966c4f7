"""Questions to the ledger that may take too long: the database ends them, and says so."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg

from headgate.database.connection import DEADLINE_S, Connection, within

_TIMEOUT = "set local statement_timeout = {milliseconds}"

T = TypeVar("T")


class TooWideError(Exception):
    """The database did not answer in time: the question needs a narrower time or a filter."""

    def __init__(self) -> None:
        super().__init__("This takes too long. Choose less time, or add one more filter.")


async def answers(
    connection: Connection, statement_s: float, read: Callable[[], Awaitable[T]]
) -> T:
    """The result of `read`, each of whose statements takes at most `statement_s`.

    Raises TooWideError, and DatabaseAwayError.
    """

    async def asked() -> T:
        async with connection.transaction():
            await connection.execute(_TIMEOUT.format(milliseconds=round(statement_s * 1000)))
            return await read()

    try:
        return await within(DEADLINE_S + statement_s, connection, asked())
    except psycopg.errors.QueryCanceled:
        raise TooWideError from None
