"""Conditions on the records of the ledger, as SQL over `headgate.usage_line`: whose, and which.

Every value is a parameter of the query. Users are found by the id of a person, as in the indexes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from headgate.database.connection import Connection
from headgate.ledger.outcomes import REASON, RESULT

NOBODY = UUID(int=0)
"""The id of no person: a name that the ledger does not know."""
_PERSON = "select id from headgate.person where name = %s"
_COLUMNS = {
    "tenant": "tenant",
    "user": "person_id",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The requests of a reader: all, all of some tenants, or their own in others.

    `user` is the reader's name, or the id of the person once it is `resolved`.
    """

    sees_all: bool = False
    tenants: tuple[str, ...] = ()
    own_tenants: tuple[str, ...] = ()
    user: str | UUID = ""

    def sql(self) -> tuple[str, list[object]]:
        """The condition, and its values. Without an `or` where it needs none, for the indexes."""
        if self.sees_all:
            return "true", []
        parts: list[tuple[str, list[object]]] = []
        if self.tenants or not self.own_tenants:
            parts.append(_tenant_in(self.tenants))
        if self.own_tenants:
            text, values = _tenant_in(self.own_tenants)
            parts.append((f"({text} and person_id = %s)", [*values, self.user]))
        texts, values_of = zip(*parts, strict=True)
        return f"({' or '.join(texts)})", [value for values in values_of for value in values]


def _tenant_in(tenants: Sequence[str]) -> tuple[str, list[object]]:
    if len(tenants) == 1:
        return "tenant = %s", [tenants[0]]
    return "tenant = any(%s)", [list(tenants)]


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


def where(scope: Scope, conditions: Sequence[Condition]) -> tuple[str, list[object]]:
    """All of them together, whose users are `resolved`, and their values."""
    parts = [scope.sql(), *(one.sql() for one in conditions)]
    texts, values = zip(*parts, strict=True)
    return " and ".join(texts), [value for found in values for value in found]


async def resolved(
    connection: Connection, scope: Scope, conditions: Sequence[Condition]
) -> tuple[Scope, list[Condition]]:
    """The same with the ids of people in place of their names."""
    if not scope.sees_all and scope.own_tenants:
        scope = replace(scope, user=await _person(connection, str(scope.user)))
    return scope, [
        replace(one, value=await _person(connection, one.value))
        if one.field == "user" and isinstance(one.value, str)
        else one
        for one in conditions
    ]


async def _person(connection: Connection, name: str) -> UUID:
    row = await (await connection.execute(_PERSON, (name,))).fetchone()
    return NOBODY if row is None else row[0]
