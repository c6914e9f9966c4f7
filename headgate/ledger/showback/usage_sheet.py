"""The main sheet of the report: the use of each group, its cost and its share. Pure."""

from collections.abc import Sequence
from decimal import Decimal

from headgate.ledger.showback.clouds import unshared_cost
from headgate.ledger.showback.groups import group_rows, grouped_corrections, total_row
from headgate.ledger.showback.table import Cell, Column, Sheet, Unit, column_sum
from headgate.ledger.showback.values import By, GroupRow, MonthReport, Statement, Usage

_PERCENT = Decimal("0.1")


def usage_sheet(statement: Statement, by: By, tenant: str | None = None) -> Sheet:
    """The use and its cost, with a total.

    A correction is a row of its own, and so is what nobody used of a pool: the total of the shares
    is the bill.
    """
    columns = _usage_columns(statement, by)
    has_pools = bool(statement.report.pools) or any(
        line.shared_nanos for line in statement.report.lines
    )
    rows = [
        ("usage", "", *_cells(one, has_share=has_pools))
        for one in group_rows(statement, by, tenant)
    ]
    rows += [
        ("correction", month, *_cells(row, has_share=False))
        for month, row in grouped_corrections(statement, by, tenant)
    ]
    if tenant is None and any(pool.unshared_nanos for pool in statement.report.pools):
        rows.append(_unshared(columns, statement.report))
    return Sheet(f"by {by}", columns, tuple(rows), _total(columns, rows, statement, tenant))


def _usage_columns(statement: Statement, by: By) -> tuple[Column, ...]:
    text, count, money, percent = Unit.TEXT, Unit.COUNT, Unit.MONEY, Unit.PERCENT
    clouds = [
        column
        for one in statement.report.clouds
        for column in (
            Column(f"at {one.name} of {one.day}", money, True),
            Column(f"saving to {one.name}", money, True),
        )
    ]
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
        Column("hits", count, True),
        Column("hit_tokens", count, True),
        Column("cost", money, True),
        Column("cost_per_request", Unit.RATE),
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


def _cells(row: GroupRow, *, has_share: bool) -> tuple[Cell, ...]:
    """The cells of a row. A row without a share of the pools is neither a saving nor a loss."""
    usage = row.usage
    share = row.used_nanos + row.idle_nanos
    clouds = (
        (there, None if there is None or not has_share else there - share)
        for there in row.cloud_nanos.values()
    )
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
        usage.hits,
        usage.hit_tokens,
        usage.cost_nanos,
        _each(usage),
        row.used_nanos,
        row.idle_nanos,
        share,
        row.before_nanos,
        percent(usage.cost_nanos - (row.before_nanos or 0), row.before_nanos),
        row.budget_nanos,
        percent(usage.cost_nanos, row.budget_nanos),
        row.forecast_nanos,
        *(cell for pair in clouds for cell in pair),
    )


def _each(usage: Usage) -> int | None:
    """The mean cost of a request."""
    return usage.cost_nanos // usage.requests if usage.requests else None


def percent(part: int, whole: int | None) -> Decimal | None:
    """A part in per cent, with one decimal; None without a whole."""
    return (Decimal(100 * part) / whole).quantize(_PERCENT) if whole else None


def _unshared(columns: Sequence[Column], report: MonthReport) -> tuple[Cell, ...]:
    nanos = sum(pool.unshared_nanos for pool in report.pools)
    known: dict[str, Cell] = {"kind": "unshared_idle", "corrects": "", columns[2].name: ""}
    known |= {"pool_idle": nanos, "pool_share": nanos}
    known |= {f"saving to {one.name}": -unshared_cost(report, one) for one in report.clouds}
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
    every |= {"forecast": row.forecast_nanos, "cost_per_request": _each(row.usage)}
    empty: dict[Unit, Cell] = {Unit.TEXT: ""}
    return tuple(
        column_sum(rows, at) if column.adds_up else every.get(column.name, empty.get(column.unit))
        for at, column in enumerate(columns)
    )
