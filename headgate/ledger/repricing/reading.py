"""Reads the billed records of a month for a repricing, if the ledger still has all of them."""

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, date, datetime, time, timedelta

from psycopg.rows import kwargs_row

from headgate.core.answer_cache import HIT_DETAILS
from headgate.core.policy import CompiledPolicy
from headgate.database.connection import Connection
from headgate.ledger.months import dropped_months
from headgate.ledger.outcomes import REASON
from headgate.ledger.repricing.pricing import Repricer
from headgate.ledger.repricing.values import BilledRecord, RepricedLine, RepricingError
from headgate.ledger.showback.closed import reports
from headgate.ledger.showback.corrections import RowsGoneError, booked_of, late_lines
from headgate.ledger.showback.period import period_of
from headgate.ledger.showback.reading import read_lines
from headgate.ledger.showback.values import MonthReport, Period

_RECORDS = f"""
select
  coalesce(tenant, '') as tenant, coalesce(person_id::text, '') as person,
  coalesce(model, '') as model, coalesce(base, model, '') as base, version, ended_at, source,
  details is not distinct from %(hit)s as is_from_cache,
  coalesce(prompt_tokens, 0) as prompt, coalesce(cached_tokens, 0) as cached,
  coalesce(completion_tokens, 0) as completion, coalesce(reasoning_tokens, 0) as reasoning,
  audio_seconds, coalesce(price_version, '') as charged_version,
  coalesce(cost_nanos, 0) as charged_nanos
from headgate.usage_record
where ended_at >= %(begin)s and ended_at < %(end)s and {REASON} is null
  and (%(tenant)s::text is null or tenant = %(tenant)s)
"""  # noqa: S608 (parts of the ledger)
_CURRENCIES = """
select distinct currency from headgate.price where version = any(%s) and currency is not null
"""
_REGISTERED = "select name from headgate.adapter"
_PAGE_ROWS = 10_000


async def read_repriced(
    connection: Connection, policy: CompiledPolicy, month: str, tenant: str | None
) -> tuple[Period, tuple[RepricedLine, ...]]:
    """The month as it is booked, and its lines by the price book of the policy. Changes nothing.

    All is of one moment. Raises RepricingError: records were dropped, there are none, or the policy
    lacks a model or has another currency.
    """
    async with connection.transaction():
        await connection.execute("set transaction isolation level repeatable read, read only")
        period = await _whole_period(connection, policy, month)
        repricer = Repricer(policy, await _registered(connection))
        async for record in _records(connection, period, tenant):
            repricer.add(record)
        lines = repricer.lines()
        if not lines:
            whose = "" if tenant is None else f" of the tenant {tenant}"
            raise RepricingError(f"the ledger has no billed requests{whose} in {month}")
        await _refuse_other_currency(connection, policy, {one.charged_version for one in lines})
    return period, lines


async def _records(
    connection: Connection, period: Period, tenant: str | None
) -> AsyncIterator[BilledRecord]:
    """By a cursor of the server: a month has more records than fit into memory."""
    span = {"begin": period.begin, "end": period.end, "tenant": tenant, "hit": HIT_DETAILS}
    rows = kwargs_row(BilledRecord)
    async with connection.cursor(name="headgate_repricing", row_factory=rows) as cursor:
        cursor.itersize = _PAGE_ROWS
        await cursor.execute(_RECORDS, span)
        async for record in cursor:
            yield record


async def _whole_period(connection: Connection, policy: CompiledPolicy, month: str) -> Period:
    """The begin and the end of a month whose records are all there. Raises RepricingError."""
    closed = [one async for one in reports(connection)]
    found = next((one for one in closed if one.period.month == month), None)
    period = period_of(month, policy.showback) if found is None else found.period
    gone = _days_in(period, await dropped_months(connection))
    if found is not None:
        is_whole = await _has_all_of(connection, found, closed)
    else:
        is_whole = not gone
    if not is_whole:
        days = f"of {gone} were dropped" if gone else "that its closed report has are gone"
        raise RepricingError(f"records of {month} {days}: a repricing needs each of them")
    return period


async def _has_all_of(
    connection: Connection, report: MonthReport, closed: Sequence[MonthReport]
) -> bool:
    """Whether the ledger has at least what a closed month, and its corrections, have booked."""
    period = report.period
    now = await read_lines(connection, period.begin, period.end, report.label)
    try:
        late_lines(period.month, now, booked_of(period.month, closed))
    except RowsGoneError:
        return False
    return True


def _days_in(period: Period, dropped: Collection[date]) -> str:
    """The days of dropped months in a period, such as `2026-10-01 to 2026-10-31 (UTC)`."""
    days = []
    for month in sorted(dropped):
        begin, end = max(period.begin, _midnight(month)), min(period.end, _midnight(_next(month)))
        if begin < end:
            days.append(f"{begin:%Y-%m-%d} to {end - timedelta.resolution:%Y-%m-%d}")
    return f"{', '.join(days)} (UTC)" if days else ""


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


def _next(month: date) -> date:
    return (month + timedelta(days=31)).replace(day=1)


async def _registered(connection: Connection) -> set[str]:
    """The adapters that were ever registered at run time."""
    return {name for (name,) in await (await connection.execute(_REGISTERED)).fetchall()}


async def _refuse_other_currency(
    connection: Connection, policy: CompiledPolicy, versions: Collection[str]
) -> None:
    """Raises RepricingError for records that were charged in another currency."""
    rows = await (await connection.execute(_CURRENCIES, (sorted(versions),))).fetchall()
    other = sorted({currency for (currency,) in rows} - {policy.currency})
    if other:
        raise RepricingError(
            f"the month was charged in {', '.join(other)}, and the policy's currency is"
            f" {policy.currency or 'none'}: sums of two currencies have no difference"
        )
