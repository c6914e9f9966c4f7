"""Searches the ledger for finished requests, and sums them. Every query is of one scope.

A page of requests has no count and no offset: the next one begins behind the last row (keyset).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import dict_row

from headgate.database.connection import DEADLINE_S, Connection, within
from headgate.ledger.outcomes import REASON, RESULT
from headgate.ledger.places import Place

GROUPS = ("tenant", "user", "model", "key", "status", "pod", "result", "hour", "day")
"""The groups of a sum."""

_COLUMNS = {
    "tenant": "tenant",
    "user": '"user"',
    "user_id": "person_id",
    "key": "key",
    "model": "model",
    "status": "status",
    "pod": "pod",
    "limit": '"limit"',
}
_IS = {
    "since": "ended_at >= %s",
    "until": "ended_at < %s",
    **{name: f"{column} = %s" for name, column in _COLUMNS.items()},
    "ip": "ip = %s::inet",
    "label": "labels ->> %s = %s",
    "id": "request_id = %s",
    "slower": "duration_us >= %s",
    "dearer": "cost_nanos >= %s",
    "result": f"{RESULT} = %s",
    "billed": f"coalesce({REASON}, 'yes') = %s",
}
FIELDS = tuple(_IS)
"""The fields that a condition may have. Times are in microseconds, money is in nanos.

`billed` is `yes`, or the reason why a request was not billed.
"""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The requests of a reader: all, all of some tenants, or their own in others."""

    sees_all: bool = False
    tenants: tuple[str, ...] = ()
    own_tenants: tuple[str, ...] = ()
    user: str = ""

    def sql(self) -> tuple[str, list[object]]:
        """The condition, and its values."""
        if self.sees_all:
            return "true", []
        own = '(tenant = any(%s) and "user" = %s)'
        values: list[object] = [list(self.tenants), list(self.own_tenants), self.user]
        return f"(tenant = any(%s) or {own})", values


@dataclass(frozen=True, slots=True)
class Label:
    """A label of a key, and its value. None is any value."""

    name: str
    value: str | None


@dataclass(frozen=True, slots=True)
class Condition:
    """A rule that a request must meet, or must not meet. `field` is one of FIELDS.

    A `value` of None is met by any value: excluded, it finds the requests without one. The value of
    the field `label` is a Label.
    """

    field: str
    value: object
    excludes: bool = False

    def sql(self) -> tuple[str, list[object]]:
        """The condition, and its values. A row whose value is unknown is not excluded."""
        text, values = self._met()
        return (f"({text}) is not true" if self.excludes else text), values

    def _met(self) -> tuple[str, list[object]]:
        match self.value:
            case None:
                return f"{_COLUMNS[self.field]} is not null", []
            case Label(name=name, value=None):
                return "labels ->> %s is not null", [name]
            case Label(name=name, value=value):
                return _IS[self.field], [name, value]
        return _IS[self.field], [self.value]


Row = Mapping[str, Any]
"""A row of `headgate.usage_line` by the names of its columns, and its `result`."""


async def find_requests(
    connection: Connection,
    scope: Scope,
    conditions: Sequence[Condition],
    limit: int,
    before: Place | None = None,
) -> list[Row]:
    """At most `limit` requests, the newest first. Raises DatabaseAwayError."""
    where, values = _where(scope, conditions)
    if before is not None:
        where += " and (ended_at, request_id) < (%s, %s)"
        values += [before.ended_at, before.request_id]
    query = f"""select *, {RESULT} as result from headgate.usage_line where {where}
      order by ended_at desc, request_id desc limit %s"""  # noqa: S608 (parts of this module)
    return await _rows(connection, query, [*values, limit])


async def request_of(connection: Connection, scope: Scope, request_id: str) -> Row | None:
    """The request with this id, the newest of them; None if the scope has none."""
    found = await find_requests(connection, scope, [Condition("id", request_id)], 1)
    return found[0] if found else None


async def sums_of(connection: Connection, scope: Scope, conditions: Sequence[Condition]) -> Row:
    """The sums of all these requests."""
    where, values = _where(scope, conditions)
    query = f"select {_SUMS} from headgate.usage_line where {where}"  # noqa: S608
    return (await _rows(connection, query, values))[0]


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
    where, values = _where(scope, conditions)
    by_time = group in ("hour", "day")
    named = f"date_trunc('{group}', ended_at, %s)" if by_time else _named(group)
    order = "name" if by_time else "cost_nanos desc, requests desc, name"
    query = f"""select {named} as name, {_SUMS} from headgate.usage_line where {where}
      group by 1 order by {order}"""  # noqa: S608 (parts of this module)
    return await _rows(connection, query, [*([zone] if by_time else []), *values])


@dataclass(frozen=True, slots=True)
class Step:
    """The step of a sum over time: `hour` or `day`, of a time zone."""

    unit: str
    zone: str


async def sums_over_time(
    connection: Connection, scope: Scope, conditions: Sequence[Condition], group: str, step: Step
) -> list[Row]:
    """The sums for each value of a group, as `name`, in each step, as `time`."""
    where, values = _where(scope, conditions)
    query = f"""select {_named(group)} as name,
      date_trunc('{step.unit}', ended_at, %s) as time, {_SUMS}
      from headgate.usage_line where {where} group by 1, 2 order by 2"""  # noqa: S608
    return await _rows(connection, query, [step.zone, *values])


async def callers_of(
    connection: Connection, scope: Scope, conditions: Sequence[Condition], limit: int
) -> list[tuple[str, str]]:
    """The user and the key of who has called most, at most `limit` of them."""
    where, values = _where(scope, conditions)
    query = f"""select "user", key from headgate.usage_line
      where {where} and "user" is not null and key is not null
      group by 1, 2 order by count(*) desc, 1, 2 limit %s"""  # noqa: S608 (parts of this module)
    return [(row["user"], row["key"]) for row in await _rows(connection, query, [*values, limit])]


def _named(group: str) -> str:
    if group not in GROUPS:
        raise ValueError(f"no group {group!r}; allowed: {', '.join(GROUPS)}")
    return RESULT if group == "result" else f'"{group}"'


def _where(scope: Scope, conditions: Sequence[Condition]) -> tuple[str, list[object]]:
    parts = [scope.sql(), *(one.sql() for one in conditions)]
    texts, values = zip(*parts, strict=True)
    return " and ".join(texts), [value for found in values for value in found]


async def _rows(connection: Connection, query: str, values: Sequence[object]) -> list[Row]:
    async def read() -> list[Row]:
        async with connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(query, values)
            return list(await cursor.fetchall())

    return await within(DEADLINE_S, connection, read())
