"""A month's report as the page shows it: its rows, its strip of months, its drills. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from headgate.console.visit import address
from headgate.ledger.showback.period import month_before
from headgate.ledger.showback.table import Cell, Sheet
from headgate.ledger.showback.text import in_cents
from headgate.ledger.showback.values import By, MonthReport, Period, Statement

STRIP = 13
_HEIGHT = 44.0
CentRow: TypeAlias = Mapping[str, Cell]
"""A row of a sheet by the names of its columns. Money is in cents that add up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """The cost of a month in nanos: used and idle parts of the pools, or the cost by price."""

    used_nanos: int
    idle_nanos: int
    has_pools: bool

    @property
    def whole_nanos(self) -> int:
        """All of it."""
        return self.used_nanos + self.idle_nanos


@dataclass(frozen=True, slots=True, kw_only=True)
class StripMonth:
    """One month of the picker. Without a `bill` nothing is known yet."""

    month: str
    is_closed: bool
    is_shown: bool
    bill: Bill | None
    used_px: float
    idle_px: float


def bill_of(report: MonthReport, tenant: str | None) -> Bill:
    """The bill of all tenants, or the part of one. Idle that nobody shares is in the whole."""
    lines = [one for one in report.lines if tenant in (None, one.tenant)]
    used = sum(line.used_nanos for line in lines)
    idle = sum(line.idle_nanos for line in lines)
    if tenant is None:
        idle += sum(pool.unshared_nanos for pool in report.pools)
    if used or idle:
        return Bill(used_nanos=used, idle_nanos=idle, has_pools=True)
    cost = sum(line.usage.cost_nanos for line in lines)
    return Bill(used_nanos=cost, idle_nanos=0, has_pools=False)


def strip(
    last: str, closed: Mapping[str, Bill], shown: str, bill: Bill | None
) -> tuple[StripMonth, ...]:
    """The picker: the months until `last`. Those that are neither closed nor shown have no bar."""
    names = [last]
    while len(names) < STRIP:
        names.append(month_before(names[-1]))
    bills = dict(closed) | ({} if bill is None else {shown: bill})
    highest = max((one.whole_nanos for one in bills.values()), default=0)
    return tuple(
        _of_strip(name, name in closed, name == shown, bills.get(name), highest)
        for name in reversed(names)
    )


def _of_strip(
    month: str, is_closed: bool, is_shown: bool, bill: Bill | None, highest: int
) -> StripMonth:
    scale = _HEIGHT / highest if highest else 0.0
    return StripMonth(
        month=month,
        is_closed=is_closed,
        is_shown=is_shown,
        bill=bill,
        used_px=bill.used_nanos * scale if bill else 0.0,
        idle_px=bill.idle_nanos * scale if bill else 0.0,
    )


def cent_rows(sheet: Sheet) -> tuple[list[CentRow], CentRow | None]:
    """The rows of a sheet and its total, so that each column adds up as shown."""
    names = [column.name for column in sheet.columns]
    rows: list[CentRow] = [dict(zip(names, row, strict=True)) for row in in_cents(sheet)]
    return (rows[:-1], rows[-1]) if sheet.total else (rows, None)


def drill(period: Period, by: By, row: CentRow, tenant: str | None) -> str:
    """The address of the requests behind a row of the usage sheet; empty if there are none."""
    if row["kind"] != "usage":
        return ""
    field = "user_id" if by is By.USER else str(by)
    name = row[field]
    own = [f"{field}:{name}" if name else f"-{field if by is not By.USER else 'user'}:*"]
    return address("/requests", f=[*own, *of_period(period, tenant), "billed:yes"])


def of_period(period: Period, tenant: str | None) -> list[str]:
    """The filters of a month's requests."""
    found = [f"since:{_iso(period.begin)}", f"until:{_iso(period.end)}"]
    return found if tenant is None else [f"tenant:{tenant}", *found]


def _iso(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True, slots=True)
class Share:
    """A part of the bill as one bar shows it, in per cent of the whole. `kind` is its fill."""

    name: str
    kind: str
    cents: int
    x: float
    width: float


def shares(rows: Sequence[CentRow], names: Sequence[str], *, has_pools: bool) -> list[Share]:
    """The bill as one bar: what each row used, in the order of the table, then idle."""
    column = "pool_used" if has_pools else "cost"
    parts = [(name, "f1", _number(row[column])) for row, name in zip(rows, names, strict=True)]
    if has_pools:
        parts.append(("idle", "fi", sum(_number(row["pool_idle"]) for row in rows)))
    whole = sum(cents for _, _, cents in parts)
    found, x = [], 0.0
    for name, kind, cents in parts:
        width = 100 * cents / whole if whole else 0.0
        if cents > 0:
            found.append(Share(name, kind, cents, x, width))
            x += width
    return found


def _number(cell: Cell) -> int:
    return int(cell or 0)


def estimated_share(statement: Statement, tenant: str | None) -> tuple[int, int]:
    """The billed tokens that no usage of vLLM has confirmed, and all billed tokens."""
    usages = [
        line.usage
        for line in statement.report.lines
        if line.is_billed and tenant in (None, line.tenant)
    ]
    return sum(one.estimated_tokens for one in usages), sum(one.tokens for one in usages)
