"""The rows of a report: its lines, grouped and summed. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from datetime import timedelta

from headgate.ledger.showback.clouds import cloud_cost
from headgate.ledger.showback.values import (
    By,
    GroupRow,
    Line,
    MonthReport,
    Reason,
    Statement,
    Usage,
)

_KEY: dict[By, Callable[[Line], str]] = {
    By.TENANT: lambda line: line.tenant,
    By.USER: lambda line: line.person,
    By.MODEL: lambda line: line.model,
    By.LABEL: lambda line: line.label,
}
_FIELDS = [field.name for field in fields(Usage)]
_MICROSECOND = timedelta(microseconds=1)


def group_rows(statement: Statement, by: By, tenant: str | None = None) -> list[GroupRow]:
    """A row for each tenant, user, model or label with billed usage, the dearest first.

    With `tenant`, only that tenant's usage counts.
    """
    key = _KEY[by]
    own = _keyed(_billed(statement.report, tenant), key)
    before = None if statement.before is None else _keyed(_billed(statement.before, tenant), key)
    rows = [
        _row(
            statement,
            (by, name),
            lines,
            None if before is None else total(before.get(name, ())).cost_nanos,
            statement.report.budgets.get(name) if by is By.TENANT else None,
        )
        for name, lines in own.items()
    ]
    return sorted(rows, key=lambda row: (-row.usage.cost_nanos, row.key))


def total_row(statement: Statement, tenant: str | None = None) -> GroupRow:
    """The row of everything: each of its sums is that of any grouping."""
    before = None
    if statement.before is not None:
        before = total(_billed(statement.before, tenant)).cost_nanos
    return _row(statement, (By.TENANT, ""), _billed(statement.report, tenant), before, None)


def total(lines: Iterable[Line]) -> Usage:
    """The sum of the usage of lines."""
    sums = dict.fromkeys(_FIELDS, 0)
    for line in lines:
        for name in _FIELDS:
            sums[name] += getattr(line.usage, name)
    return Usage(**sums)


def not_billed(report: MonthReport, tenant: str | None = None) -> dict[Reason, int]:
    """The requests that were not billed, by reason."""
    counts = dict.fromkeys(Reason, 0)
    for line in report.lines:
        if line.reason is not None and line.corrects is None and tenant in (None, line.tenant):
            counts[line.reason] += line.usage.requests
    return counts


def grouped_corrections(
    statement: Statement, by: By, tenant: str | None = None
) -> list[tuple[str, GroupRow]]:
    """The billed corrections as rows, each with the month that it corrects."""
    found: dict[tuple[str, str], list[Line]] = {}
    for line in corrections(statement.report, tenant):
        if line.reason is None:
            found.setdefault((line.corrects or "", _KEY[by](line)), []).append(line)
    return [
        (month, _row(statement, (by, key), lines, None, None))
        for (month, key), lines in sorted(found.items())
    ]


def corrections(report: MonthReport, tenant: str | None = None) -> list[Line]:
    """The lines of earlier months that came after they were closed."""
    return [
        line for line in report.lines if line.corrects is not None and tenant in (None, line.tenant)
    ]


def _billed(report: MonthReport, tenant: str | None) -> list[Line]:
    return [line for line in report.lines if line.is_billed and tenant in (None, line.tenant)]


def _keyed(lines: Iterable[Line], key: Callable[[Line], str]) -> dict[str, list[Line]]:
    keyed: dict[str, list[Line]] = {}
    for line in lines:
        keyed.setdefault(key(line), []).append(line)
    return keyed


def _row(
    statement: Statement,
    group: tuple[By, str],
    lines: Sequence[Line],
    before_nanos: int | None,
    budget_nanos: int | None,
) -> GroupRow:
    usage = total(lines)
    by, key = group
    is_late = any(line.corrects for line in lines)
    return GroupRow(
        key=key,
        name=statement.names.get(key, key) if by is By.USER else None,
        users=len({line.person for line in lines if line.person}),
        usage=usage,
        used_nanos=sum(line.used_nanos for line in lines),
        idle_nanos=sum(line.idle_nanos for line in lines),
        before_nanos=before_nanos,
        forecast_nanos=None if is_late else _forecast(statement, usage.cost_nanos),
        budget_nanos=budget_nanos,
        cloud_nanos={one.name: cloud_cost(one, lines) for one in statement.report.clouds},
    )


def _forecast(statement: Statement, nanos: int) -> int | None:
    """The cost at the end of an open month, at the pace so far."""
    period = statement.report.period
    passed = (statement.at - period.begin) // _MICROSECOND
    whole = (period.end - period.begin) // _MICROSECOND
    if statement.closing is not None or not 0 < passed < whole:
        return None
    return nanos * whole // passed
