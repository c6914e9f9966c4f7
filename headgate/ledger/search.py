"""Searches the ledger, from the newest request backwards.

Each page is one walk along an index from a place in it, so a late page costs as much as the first.
Nothing is counted: a count reads every row that it counts.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from headgate.database.connection import Connection
from headgate.ledger.asking import answers
from headgate.ledger.conditions import Condition, Scope, resolved, where
from headgate.ledger.places import Place
from headgate.ledger.usage_lines import FIELDS, SELECT, UsageLine

STATEMENT_S = 3.0
"""The longest time of a search in the database; one that finds rarely anything may need more."""

_BEHIND = "ended_at <= %s and (ended_at, request_id) < (%s, %s)"
_ORDER = "order by ended_at desc, request_id desc limit %s"

Statement: TypeAlias = tuple[str, list[object]]


def statement(
    scope: Scope, conditions: Sequence[Condition], after: Place | None, limit: int
) -> Statement:
    """The query of a page of `limit` rows behind a place. Users are resolved."""
    text, values = where(scope, conditions)
    if after is not None:
        text += f" and {_BEHIND}"
        values += [after.ended_at, after.ended_at, after.request_id]
    return f"{SELECT} where {text} {_ORDER}", [*values, limit]


async def search(
    connection: Connection,
    scope: Scope,
    conditions: Sequence[Condition],
    after: Place | None,
    limit: int,
) -> list[UsageLine]:
    """A page of at most `limit` requests of the scope, the newest first.

    Raises TooWideError, and DatabaseAwayError.
    """

    async def read() -> list[UsageLine]:
        query, values = statement(*await resolved(connection, scope, conditions), after, limit)
        cursor = await connection.execute(query, values, prepare=False)
        return [_line(row) for row in await cursor.fetchall()]

    return await answers(connection, STATEMENT_S, read)


async def request_of(connection: Connection, scope: Scope, request_id: str) -> UsageLine | None:
    """The request with this id, the newest of them; None if the scope has none."""
    found = await search(connection, scope, [Condition("id", request_id)], None, 1)
    return found[0] if found else None


def _line(row: tuple[Any, ...]) -> UsageLine:
    return UsageLine(**dict(zip(FIELDS, row, strict=True)))


def place_of(line: UsageLine) -> Place:
    """The place behind a request."""
    return Place(line.ended_at, line.request_id)
