"""Connections to the database, with deadlines that hold even when nothing comes back."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg import AsyncConnection

from headgate.core.errors import OperatorError
from headgate.database.address import DatabaseAddress

Connection: TypeAlias = AsyncConnection[tuple[Any, ...]]

DEADLINE_S = 5.0
"""The longest time for a statement that no caller gives less."""

T = TypeVar("T")


class DatabaseAwayError(Exception):
    """The database cannot be reached, or did not answer in time. Nothing is known to be done."""


@asynccontextmanager
async def connected(
    address: DatabaseAddress, deadline_s: float = DEADLINE_S
) -> AsyncIterator[Connection]:
    """A connection whose statements commit by themselves, closed with the block.

    Raises DatabaseAwayError when there is none in time. An error of the connection inside the block
    is a DatabaseAwayError, too.
    """
    try:
        async with asyncio.timeout(deadline_s):
            connection = await AsyncConnection.connect(
                **address.connection_options(),  # type: ignore[arg-type]  # libpq's are all text
                autocommit=True,
            )
    except (psycopg.OperationalError, OSError, OperatorError) as error:
        raise DatabaseAwayError(first_line(error)) from None
    try:
        yield connection
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise DatabaseAwayError(first_line(error)) from None
    finally:
        await connection.close()


async def within(deadline_s: float, connection: Connection, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work` on the connection, which is cut when the deadline passes.

    Cancelling `work` would wait for the server once more, which may be the one that is silent.
    Raises DatabaseAwayError.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=deadline_s)
        if not task.done():
            raise DatabaseAwayError(f"the database did not answer within {deadline_s:g} s")
        return task.result()
    finally:
        if not task.done():
            _cut(connection)
            await asyncio.gather(task, return_exceptions=True)


def _cut(connection: Connection) -> None:
    """Ends the connection's socket, so that all who wait for it get an error at once."""
    with socket.socket(fileno=os.dup(connection.fileno())) as twin:
        twin.shutdown(socket.SHUT_RDWR)


def first_line(error: Exception) -> str:
    """The first line of an error. libpq's further lines are hints. None holds a password."""
    if isinstance(error, TimeoutError):
        return "the database did not answer in time"
    return str(error).strip().partition("\n")[0]
