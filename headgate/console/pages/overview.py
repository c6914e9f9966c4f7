"""The overview: what happened today, hour by hour, and in the last 30 days, day by day."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from headgate.console import words
from headgate.console.charts import Bars, Column, bars
from headgate.console.visit import View, Visit
from headgate.database.connection import Connection
from headgate.identity.read_log import changes_before
from headgate.ledger.conditions import Condition, Scope
from headgate.ledger.sums import Row, sums_by, sums_of

DAYS = 30
_LAST_CHANGES = 5


async def show(visit: Visit) -> View:
    """Today's requests and tokens, the tenants of 30 days, and the last changes."""
    zone, scope = visit.choice.zone, visit.scope
    today = visit.now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    since_today = [Condition("since", today)]
    month = [Condition("since", today - timedelta(days=DAYS - 1))]
    async with visit.desk.connect() as connection:
        sums = await sums_of(connection, scope, since_today)
        before = await sums_of(connection, scope, _same_time_last_week(today, visit.now))
        hours = await sums_by(connection, scope, since_today, "hour", zone.key)
        days = await sums_by(connection, scope, month, "day", zone.key)
        tenants = await sums_by(connection, scope, month, "tenant")
        changes = await _changes(connection, scope)
    values = {
        "sums": sums,
        "before": before,
        "requests": chart(hourly(today, hours), hour_words, _requests),
        "tokens": chart(hourly(today, hours), hour_words, _tokens),
        "spent": chart(daily(today, days, DAYS), day_words, cost_parts),
        "tenants": tenants,
        "total": total(tenants),
        "changes": changes,
        "today": today,
    }
    return View("overview.html", values)


def _same_time_last_week(today: datetime, now: datetime) -> list[Condition]:
    week = timedelta(days=7)
    return [Condition("since", today - week), Condition("until", now - week)]


async def _changes(connection: Connection, scope: Scope) -> Sequence[object]:
    if not scope.sees_all:
        return []
    return await changes_before(connection, None, _LAST_CHANGES)


def total(rows: Sequence[Row]) -> dict[str, int]:
    """The sum of the rows of a table. Users are not summed: one may be in several rows."""
    names = "requests refused failed prompt_tokens cached_tokens completion_tokens cost_nanos"
    return {name: sum(row[name] for row in rows) for name in names.split()}


Slots = list[tuple[datetime, Row | None]]


def hourly(today: datetime, rows: Sequence[Row]) -> Slots:
    """The hours of a day with their sums; None for an hour without a request."""
    found = {row["name"].astimezone(today.tzinfo).replace(tzinfo=None): row for row in rows}
    plain = today.replace(tzinfo=None)
    hours = [plain + timedelta(hours=n) for n in range(24)]
    return [(hour, found.get(hour)) for hour in hours]


def daily(today: datetime, rows: Sequence[Row], days: int) -> Slots:
    """The last days with their sums; None for a day without a request."""
    found = {row["name"].astimezone(today.tzinfo).date(): row for row in rows}
    plain = today.replace(tzinfo=None)
    slots = [plain - timedelta(days=n) for n in range(days - 1, -1, -1)]
    return [(slot, found.get(slot.date())) for slot in slots]


def chart(
    slots: Slots,
    label: Callable[[int, datetime], tuple[str, str]],
    values: Callable[[Row], tuple[tuple[tuple[str, int], ...], str]],
) -> Bars:
    """A bar for each slot."""
    columns = []
    for index, (time, row) in enumerate(slots):
        name, short = label(index, time)
        parts, text = values(row) if row is not None else ((), "no request")
        columns.append(Column(values=parts, title=f"{name}: {text}", label=short))
    return bars(columns)


def hour_words(index: int, time: datetime) -> tuple[str, str]:
    """The words of an hour, and its label on the axis, if it has one."""
    return f"{time:%H}:00 to {(time.hour + 1):02}:00", f"{time:%H}:00" if index % 3 == 0 else ""


def day_words(index: int, time: datetime) -> tuple[str, str]:
    """The words of a day, and its label on the axis, if it has one."""
    return f"{time:%-d %b}", f"{time:%-d %b}" if index % 5 == 0 else ""


Parts = tuple[tuple[tuple[str, int], ...], str]


def _requests(row: Row) -> Parts:
    names: Any = (("f1", "answered"), ("fq", "aborted"), ("f3", "refused"), ("fb", "failed"))
    text = "; ".join(f"{words.count(row[name])} {name}" for _, name in names)
    return tuple((kind, row[name]) for kind, name in names), text


def _tokens(row: Row) -> Parts:
    cached = min(row["cached_tokens"], row["prompt_tokens"])
    fresh, out = row["prompt_tokens"] - cached, row["completion_tokens"]
    text = f"{words.count(fresh)} in; {words.count(cached)} in, cached; {words.count(out)} out"
    return (("f1", fresh), ("f2", cached), ("f3", out)), text


def cost_parts(row: Row) -> Parts:
    return (("f1", row["cost_nanos"] // 100_000),), words.money(row["cost_nanos"])
