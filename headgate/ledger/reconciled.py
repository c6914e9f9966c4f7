"""Statements of the reconciliation that are kept, and their sum over a month."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.errors import ExclusionViolation, UniqueViolation

from headgate.database.connection import Connection
from headgate.ledger.engine_counters import EngineTokens
from headgate.ledger.reconcile import Compared, LedgerTokens

_REMOVE = "delete from headgate.reconciliation where begin_at = %s and end_at = %s"
_KEEP = """
insert into headgate.reconciliation (begin_at, end_at, compared_at) values (%s, %s, %s)
"""
_KEEP_POD = """
insert into headgate.reconciled_pod
  (begin_at, pod, model, engine_prompt, engine_completion,
   ledger_requests, ledger_prompt, ledger_completion, unsure)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_SPAN = """
select coalesce(sum(end_at - begin_at), interval '0'), max(compared_at)
from headgate.reconciliation where begin_at >= %s and end_at <= %s
"""
_PODS = """
select pod, max(model), sum(engine_prompt)::bigint, sum(engine_completion)::bigint,
  sum(ledger_requests)::bigint, sum(ledger_prompt)::bigint, sum(ledger_completion)::bigint,
  sum(unsure)::bigint
from headgate.reconciled_pod join headgate.reconciliation using (begin_at)
where begin_at >= %s and end_at <= %s group by pod order by pod
"""


class OverlapError(ValueError):
    """A span that overlaps one with a kept statement; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """The kept statements within a span, added up by pod. They stand for `covered` of its time.

    `compared_at` is when the newest was made, None if there is none.
    """

    lines: Sequence[Compared]
    covered: timedelta
    compared_at: datetime | None


async def keep_statement(
    connection: Connection,
    span: tuple[datetime, datetime],
    now: datetime,
    lines: Sequence[Compared],
) -> None:
    """Keeps the statement of a span, in the place of an earlier one. Raises OverlapError."""
    begin, end = span
    async with connection.transaction():
        await connection.execute(_REMOVE, (begin, end))
        try:
            await connection.execute(_KEEP, (begin, end, now))
        except (ExclusionViolation, UniqueViolation):
            raise OverlapError(
                f"a kept statement overlaps {begin:%Y-%m-%dT%H:%MZ} to {end:%Y-%m-%dT%H:%MZ}:"
                " keep spans that follow each other, such as whole hours"
            ) from None
        async with connection.cursor() as cursor:
            await cursor.executemany(_KEEP_POD, [(begin, *_values(one)) for one in lines])


async def reconciled_within(connection: Connection, begin: datetime, end: datetime) -> Reconciled:
    """The kept statements of spans that lie within this one."""
    row = await (await connection.execute(_SPAN, (begin, end))).fetchone()
    assert row is not None  # noqa: S101 - sums are one row
    rows = await (await connection.execute(_PODS, (begin, end))).fetchall()
    lines = [_compared(*one) for one in rows]
    return Reconciled(lines=lines, covered=row[0], compared_at=row[1])


def _values(one: Compared) -> tuple[object, ...]:
    engine, ledger = one.engine, one.ledger
    return (
        *(one.pod, engine.model, engine.prompt, engine.completion),
        *(ledger.requests, ledger.prompt, ledger.completion, ledger.unsure),
    )


def _compared(pod: str, model: str, *numbers: int) -> Compared:
    prompt, completion, requests, ledger_prompt, ledger_completion, unsure = numbers
    return Compared(
        pod=pod,
        engine=EngineTokens(model=model, prompt=prompt, completion=completion),
        ledger=LedgerTokens(
            requests=requests, prompt=ledger_prompt, completion=ledger_completion, unsure=unsure
        ),
    )
