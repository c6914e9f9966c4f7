"""Reads the report of a month: the document of a closed one, the ledger for an open one."""

from collections.abc import Sequence
from datetime import datetime

from headgate.core.policy import CompiledPolicy
from headgate.database.connection import Connection
from headgate.ledger.showback.build import month_report
from headgate.ledger.showback.closed import MonthError, read_closed, reports
from headgate.ledger.showback.corrections import RowsGoneError, booked_of, late_lines, unbooked
from headgate.ledger.showback.period import is_month, month_before, period_of
from headgate.ledger.showback.reading import read_corrections, read_lines, read_names, read_prices
from headgate.ledger.showback.values import Line, MonthReport, Period, Statement

DEADLINE_S = 300.0
"""The longest time for a report: an open month of a hundred million records is all read."""


async def read_statement(
    connection: Connection, policy: CompiledPolicy, month: str, now: datetime
) -> Statement:
    """The report of a month as it is shown. Raises MonthError.

    All that it shows is of one moment. A closed month is compared with closed ones only.
    """
    if not is_month(month):
        raise MonthError("a month is written as 2026-10")
    async with connection.transaction():
        await connection.execute("set transaction isolation level repeatable read, read only")
        found = await read_closed(connection, month)
        if found is None:
            report, closing = await open_report(connection, policy, month, now), None
        else:
            report, closing = found
        before = await _before(connection, policy, month, is_closed=closing is not None)
        people = {line.person for line in report.lines} | ({closing.by} if closing else set())
        names = await read_names(connection, people)
    return Statement(report=report, at=now, closing=closing, before=before, names=names)


async def open_report(
    connection: Connection, policy: CompiledPolicy, month: str, now: datetime
) -> MonthReport:
    """The report of an open month by the ledger. Raises MonthError if it has not begun."""
    period = period_of(month, policy.showback)
    if now < period.begin:
        raise MonthError(f"{month} begins at {period.begin:%Y-%m-%dT%H:%MZ}")
    late, without_rows = await _late(connection, period)
    return await _report(connection, policy, period, late, without_rows)


async def _report(
    connection: Connection,
    policy: CompiledPolicy,
    period: Period,
    late: Sequence[Line] = (),
    without_rows: Sequence[str] = (),
) -> MonthReport:
    own = await read_lines(connection, period.begin, period.end, policy.showback.label)
    lines = [*own, *late]
    prices = await read_prices(connection, (line.price_version for line in lines))
    return month_report(policy, period, lines, prices, without_rows)


async def _before(
    connection: Connection, policy: CompiledPolicy, month: str, *, is_closed: bool
) -> MonthReport | None:
    """The month before; None if it is not known, or has no usage."""
    earlier = month_before(month)
    found = await read_closed(connection, earlier)
    if found is not None or is_closed:
        return None if found is None else found[0]
    report = await _report(connection, policy, period_of(earlier, policy.showback))
    return report if report.lines else None


async def _late(connection: Connection, period: Period) -> tuple[list[Line], list[str]]:
    """The corrections of the closed months, and months whose records are gone."""
    late: list[Line] = []
    gone: list[str] = []
    closed = [one async for one in reports(connection) if one.period.begin < period.begin]
    for report in closed:
        month = report.period.month
        now = await read_lines(connection, report.period.begin, report.period.end, report.label)
        try:
            late += late_lines(month, now, booked_of(month, closed))
        except RowsGoneError:
            gone.append(month)
    late += unbooked(await read_corrections(connection), closed)
    return late, gone
