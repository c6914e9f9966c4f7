"""Sums over the records of the ledger, of one scope each: whole, by group, and over time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from psycopg.rows import dict_row

from headgate.database.connection import Connection
from headgate.ledger.asking import answers
from headgate.ledger.conditions import Condition, Scope, resolved, where
from headgate.ledger.outcomes import RESULT

STATEMENT_S = 20.0
"""The longest time of a sum in the database. It reads every record that it adds."""
GROUPS = ("tenant", "user", "model", "key", "status", "pod", "result", "hour", "day")
"""The groups of a sum."""
_SUMS = f"""
count(*) as requests, count(distinct person_id) as users,
count(*) filter (where {RESULT} = 'answered') as answered,
count(*) filter (where {RESULT} = 'refused') as refused,
count(*) filter (where {RESULT} = 'failed') as failed,
count(*) filter (where {RESULT} = 'aborted') as aborted,
coalesce(sum(prompt_tokens), 0)::bigint as prompt_tokens,
coalesce(sum(cached_tokens), 0)::bigint as cached_tokens,
coalesce(sum(completion_tokens), 0)::bigint as completion_tokens,
coalesce(sum(cost_nanos), 0)::bigint as cost_nanos
"""


Row = Mapping[str, Any]
"""The sums of a group by their names, and the value of the group as `name`."""


async def sums_of(connection: Connection, scope: Scope, conditions: Sequence[Condition]) -> Row:
    """The sums of all these requests."""
    return (await _rows(connection, scope, conditions, _SUMS, ""))[0]


async def sums_by(
    connection: Connection,
    scope: Scope,
    conditions: Sequence[Condition],
    group: str,
    zone: str = "UTC",
) -> list[Row]:
    """The sums for each value of a group, as `name`. Hours and days are those of the zone.

    The sums of all rows are the sum of the whole, for every group, except `users`.
    """
    by_time = group in ("hour", "day")
    named = f"date_trunc('{group}', ended_at, {_quoted(zone)})" if by_time else _named(group)
    order = "name" if by_time else "cost_nanos desc, requests desc, name"
    selected, grouped = f"{named} as name, {_SUMS}", f"group by 1 order by {order}"
    return await _rows(connection, scope, conditions, selected, grouped)


@dataclass(frozen=True, slots=True)
class Step:
    """The step of a sum over time: `hour` or `day`, of a time zone."""

    unit: str
    zone: str


async def sums_over_time(
    connection: Connection, scope: Scope, conditions: Sequence[Condition], group: str, step: Step
) -> list[Row]:
    """The sums for each value of a group, as `name`, in each step, as `time`."""
    time = f"date_trunc('{step.unit}', ended_at, {_quoted(step.zone)})"
    selected = f"{_named(group)} as name, {time} as time, {_SUMS}"
    return await _rows(connection, scope, conditions, selected, "group by 1, 2 order by 2")


async def callers_of(
    connection: Connection, scope: Scope, conditions: Sequence[Condition], limit: int
) -> list[tuple[str, str]]:
    """The user and the key of who has called most, at most `limit` of them."""
    known = [*conditions, Condition("user", None), Condition("key", None)]
    grouped = f"group by 1, 2 order by count(*) desc, 1, 2 limit {int(limit)}"
    rows = await _rows(connection, scope, known, '"user", key', grouped)
    return [(row["user"], row["key"]) for row in rows]


def _named(group: str) -> str:
    if group not in GROUPS:
        raise ValueError(f"no group {group!r}; allowed: {', '.join(GROUPS)}")
    return RESULT if group == "result" else f'"{group}"'


def _quoted(zone: str) -> str:
    """The name of a time zone as a literal: ZoneInfo knows no name with a quote."""
    return f"'{ZoneInfo(zone).key}'"


async def _rows(
    connection: Connection,
    scope: Scope,
    conditions: Sequence[Condition],
    selected: str,
    grouped: str,
) -> list[Row]:
    """The rows by the names of their columns. Raises TooWideError, and DatabaseAwayError."""

    async def read() -> list[Row]:
        text, values = where(*await resolved(connection, scope, conditions))
        query = f"select {selected} from headgate.usage_line where {text} {grouped}"  # noqa: S608
        async with connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(query, values, prepare=False)
            return list(await cursor.fetchall())

    return await answers(connection, STATEMENT_S, read)
