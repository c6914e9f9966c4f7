"""The report as sheets: titles, columns and cells, the same for every format. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias

from headgate.ledger.showback.clouds import comparisons
from headgate.ledger.showback.groups import (
    corrections,
    group_rows,
    grouped_corrections,
    not_billed,
    total_row,
)
from headgate.ledger.showback.values import By, GroupRow, Statement

_PERCENT = Decimal("0.1")


class Unit(StrEnum):
    """The content of the cells of a column. Money is in nanos, per cent are decimals."""

    TEXT = "text"
    COUNT = "count"
    MONEY = "money"
    PERCENT = "percent"


Cell: TypeAlias = str | int | Decimal | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name and what its cells hold. `adds_up` if a total may be below it."""

    name: str
    unit: Unit
    adds_up: bool = False


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table. `total` is the row below it, None if there is none."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: tuple[Cell, ...] | None = None


def sheets(statement: Statement, by: By, tenant: str | None = None) -> list[Sheet]:
    """All sheets of a report. With `tenant`, those that are about this tenant alone."""
    own = [usage_sheet(statement, by, tenant), _not_billed(statement, tenant)]
    own.append(_corrections(statement, tenant))
    return own if tenant is not None else [own[0], _pools(statement), _clouds(statement), *own[1:]]


def usage_sheet(statement: Statement, by: By, tenant: str | None = None) -> Sheet:
    """The use and its cost, with a total.

    A correction is a row of its own, and so is what nobody used of a pool: the total of the shares
    is the bill.
    """
    columns = _usage_columns(statement, by)
    rows = [("usage", "", *_cells(one)) for one in group_rows(statement, by, tenant)]
    rows += [
        ("correction", month, *_cells(row))
        for month, row in grouped_corrections(statement, by, tenant)
    ]
    unshared = sum(pool.unshared_nanos for pool in statement.report.pools)
    if tenant is None and unshared:
        rows.append(_unshared(columns, unshared))
    return Sheet(f"by {by}", columns, tuple(rows), _total(columns, rows, statement, tenant))


def _usage_columns(statement: Statement, by: By) -> tuple[Column, ...]:
    text, count, money, percent = Unit.TEXT, Unit.COUNT, Unit.MONEY, Unit.PERCENT
    clouds = (Column(f"at {one.name}", money, True) for one in statement.report.clouds)
    return (
        Column("kind", text),
        Column("corrects", text),
        Column("user_id" if by is By.USER else by, text),
        *((Column("user", text),) if by is By.USER else ()),
        Column("requests", count, True),
        Column("users", count),
        Column("input_tokens", count, True),
        Column("cached_tokens", count, True),
        Column("output_tokens", count, True),
        Column("reasoning_tokens", count, True),
        Column("audio_seconds", count, True),
        Column("estimated_tokens", count, True),
        Column("cost", money, True),
        Column("cost_per_request", money),
        Column("pool_used", money, True),
        Column("pool_idle", money, True),
        Column("pool_share", money, True),
        Column("cost_before", money),
        Column("change_percent", percent),
        Column("budget", money),
        Column("budget_percent", percent),
        Column("forecast", money),
        *clouds,
    )


def _cells(row: GroupRow) -> tuple[Cell, ...]:
    usage = row.usage
    return (
        row.key,
        *(() if row.name is None else (row.name,)),
        usage.requests,
        row.users,
        usage.input_tokens,
        usage.cached_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.audio_seconds,
        usage.estimated_tokens,
        usage.cost_nanos,
        usage.cost_nanos // usage.requests if usage.requests else None,
        row.used_nanos,
        row.idle_nanos,
        row.used_nanos + row.idle_nanos,
        row.before_nanos,
        percent(usage.cost_nanos - (row.before_nanos or 0), row.before_nanos),
        row.budget_nanos,
        percent(usage.cost_nanos, row.budget_nanos),
        row.forecast_nanos,
        *row.cloud_nanos.values(),
    )


def percent(part: int, whole: int | None) -> Decimal | None:
    """A part in per cent, with one decimal; None without a whole."""
    return (Decimal(100 * part) / whole).quantize(_PERCENT) if whole else None


def _unshared(columns: Sequence[Column], nanos: int) -> tuple[Cell, ...]:
    known: dict[str, Cell] = {"kind": "unshared_idle", "corrects": "", columns[2].name: ""}
    known |= {"pool_idle": nanos, "pool_share": nanos}
    return tuple(
        known.get(column.name, "" if column.unit is Unit.TEXT else None) for column in columns
    )


def _total(
    columns: Sequence[Column],
    rows: Sequence[tuple[Cell, ...]],
    statement: Statement,
    tenant: str | None,
) -> tuple[Cell, ...]:
    """Sums where a column adds up; elsewhere what is known of all usage together."""
    row = total_row(statement, tenant)
    every: dict[str, Cell] = {"kind": "total", "users": row.users, "cost_before": row.before_nanos}
    every["change_percent"] = percent(
        row.usage.cost_nanos - (row.before_nanos or 0), row.before_nanos
    )
    every["forecast"] = row.forecast_nanos
    empty: dict[Unit, Cell] = {Unit.TEXT: ""}
    return tuple(
        _sum(rows, at) if column.adds_up else every.get(column.name, empty.get(column.unit))
        for at, column in enumerate(columns)
    )


def _sum(rows: Sequence[tuple[Cell, ...]], at: int) -> int:
    return sum(cell for row in rows if isinstance(cell := row[at], int))


def _pools(statement: Statement) -> Sheet:
    money = Unit.MONEY
    columns = (
        Column("pool", Unit.TEXT),
        Column("kind", Unit.TEXT),
        Column("models", Unit.TEXT),
        Column("quantity", Unit.TEXT),
        Column("rate", Unit.TEXT),
        Column("amount", money, True),
        Column("used", money, True),
        Column("idle", money, True),
        Column("idle_is", Unit.TEXT),
    )
    rows = tuple(
        (
            pool.name,
            pool.kind,
            ", ".join(pool.models),
            pool.quantity,
            pool.rate,
            pool.amount_nanos,
            pool.used_nanos,
            pool.idle_nanos + pool.unshared_nanos,
            _idle_basis(pool.unshared_nanos, is_known=pool.is_idle_known),
        )
        for pool in statement.report.pools
    )
    total: tuple[Cell, ...] = ("total", "", "", "", "", *(_sum(rows, at) for at in (5, 6, 7)), "")
    return Sheet("pools", columns, rows, total)


def _idle_basis(unshared: int, *, is_known: bool) -> str:
    if unshared:
        return "shared by nobody: there was no use"
    return "shared by use" if is_known else "not known: the pool has no full_tokens_per_s"


def _clouds(statement: Statement) -> Sheet:
    money = Unit.MONEY
    columns = (
        Column("list", Unit.TEXT),
        Column("day", Unit.TEXT),
        Column("cost_there", money),
        Column("own_pools", money),
        Column("saving", money),
        Column("result", Unit.TEXT),
        Column("models_without_price", Unit.TEXT),
    )
    rows = tuple(
        (
            one.name,
            one.day.isoformat(),
            one.cloud_nanos,
            one.own_nanos,
            one.saving_nanos,
            "loss" if one.saving_nanos < 0 else "saving",
            ", ".join(one.models_without),
        )
        for one in comparisons(statement.report)
    )
    return Sheet("build or buy", columns, rows)


def _not_billed(statement: Statement, tenant: str | None) -> Sheet:
    columns = (Column("reason", Unit.TEXT), Column("requests", Unit.COUNT, True))
    rows = tuple((reason.value, n) for reason, n in not_billed(statement.report, tenant).items())
    return Sheet("not billed", columns, rows, ("total", sum(n for _, n in rows)))


def _corrections(statement: Statement, tenant: str | None) -> Sheet:
    columns = (
        Column("corrects", Unit.TEXT),
        Column("tenant", Unit.TEXT),
        Column("user_id", Unit.TEXT),
        Column("model", Unit.TEXT),
        Column("reason", Unit.TEXT),
        Column("requests", Unit.COUNT),
        Column("tokens", Unit.COUNT),
        Column("cost", Unit.MONEY, True),
    )
    rows = tuple(
        (
            line.corrects,
            line.tenant,
            line.person,
            line.model,
            line.reason or "",
            line.usage.requests,
            line.usage.tokens,
            line.usage.cost_nanos,
        )
        for line in corrections(statement.report, tenant)
    )
    return Sheet("corrections", columns, rows)
