"""Showback: what a month cost, who used it, whether it is final, and each number's requests."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from starlette.responses import RedirectResponse, Response

from headgate.console.month import (
    Bill,
    bill_of,
    cent_rows,
    drill,
    estimated_share,
    of_period,
    shares,
    strip,
)
from headgate.console.reconciliation import Reconciliation, reconciliation_of
from headgate.console.visit import View, Visit, address
from headgate.core.issuers import Role
from headgate.database.connection import DEADLINE_S, Connection, within
from headgate.ledger.reconciled import reconciled_within
from headgate.ledger.showback.closed import reports
from headgate.ledger.showback.formats import FILES, rendered
from headgate.ledger.showback.period import is_month, month_at, month_before
from headgate.ledger.showback.sheets import sheets
from headgate.ledger.showback.usage_sheet import usage_sheet
from headgate.ledger.showback.values import By, Period, Statement
from headgate.management.problems import ProblemError

_ALL, _ONE = "/reports/{month}", "/tenants/{tenant}/reports/{month}"
REASONS = {
    "limit": ("Refused by a limit (429)", "Stopped before a pod; no GPU time"),
    "access": ("Refused, no access (401, 403)", "Unknown key, or model not allowed"),
    "aborted": ("Left before the answer was counted", "Charged to nobody; in idle"),
    "request": ("Wrong request (4xx)", "Refused by the gateway or by vLLM"),
    "failed": ("Failed in a pod (5xx)", "Charged to nobody; in idle"),
    "free": ("Free by the policy", "Paths without a price"),
}


async def show(visit: Visit) -> View | Response:
    """The report of a month, or a file of it."""
    tenant = _tenant(visit)
    async with visit.desk.connect() as connection:
        closed = await within(DEADLINE_S, connection, _closed(connection, tenant))
    last = month_at(visit.now, visit.policy.showback)
    month = visit.query("month") or (month_before(last) if month_before(last) in closed else last)
    by = _by(visit)
    statement = await _statement(visit, month, tenant)
    kind = visit.query("format")
    if kind:
        return _file(statement, by, tenant, kind)
    values = _values(visit, statement, by, tenant, closed)
    reconciled = await _reconciled(visit, statement.report.period) if tenant is None else None
    return View("showback.html", {**values, "reconciled": reconciled})


def _tenant(visit: Visit) -> str | None:
    """The tenant to show; None is all of them, which only operators see."""
    tenant = visit.query("tenant")
    if tenant or visit.manager.is_operator:
        return tenant or None
    return visit.tenants_with(Role.FINANCE)[0]


def _by(visit: Visit) -> By:
    try:
        return By(visit.query("by", By.TENANT if _tenant(visit) is None else By.USER))
    except ValueError:
        allowed = ", ".join(By)
        raise ProblemError(422, f"There is no such group. Allowed: {allowed}.") from None


async def _closed(connection: Connection, tenant: str | None) -> dict[str, Bill]:
    return {one.period.month: bill_of(one, tenant) async for one in reports(connection)}


async def _statement(visit: Visit, month: str, tenant: str | None) -> Statement:
    """The API's report, with the same check of rights. Raises ProblemError."""
    if not is_month(month):
        raise ProblemError(422, "A month is written as 2026-10.")
    if tenant is None:
        return (await visit.call("GET", _ALL, month=month)).body  # type: ignore[no-any-return]
    answer = await visit.call("GET", _ONE, month=month, tenant=tenant)
    return answer.body  # type: ignore[no-any-return]


async def _reconciled(visit: Visit, period: Period) -> Reconciliation | None:
    """The statements of the month: they are about the pods of all tenants."""
    async with visit.desk.connect() as connection:
        reading = reconciled_within(connection, period.begin, period.end)
        found = await within(DEADLINE_S, connection, reading)
    return reconciliation_of(found, period, visit.now)


def _file(statement: Statement, by: By, tenant: str | None, kind: str) -> Response:
    if kind not in FILES:
        raise ProblemError(422, f"There is no such format. Allowed: {', '.join(FILES)}.")
    ending, media_type = FILES[kind]
    name = f"showback-{statement.report.period.month}-by-{by}.{ending}"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(rendered(statement, by, tenant, kind), headers=headers, media_type=media_type)


def _values(
    visit: Visit, statement: Statement, by: By, tenant: str | None, closed: Mapping[str, Bill]
) -> dict[str, Any]:
    report, period = statement.report, statement.report.period
    rows, total = cent_rows(usage_sheet(statement, by, tenant))
    bill = bill_of(report, tenant)
    key = "user" if by is By.USER else str(by)
    names = [_name(row, key, by) for row in rows]
    last = month_at(visit.now, visit.policy.showback)
    return {
        "statement": statement,
        "period": period,
        "by": by,
        "bys": list(By),
        "tenant": tenant,
        "tenants": visit.tenants_with(Role.FINANCE),
        "sees_all": visit.manager.is_operator,
        "bill": bill,
        "months": strip(last, closed, period.month, bill),
        "rows": [
            (name, drill(period, by, row, tenant), row)
            for name, row in zip(names, rows, strict=True)
        ],
        "total": total,
        "shares": shares(rows, names, has_pools=bill.has_pools),
        "over": [(name, row) for name, row in zip(names, rows, strict=True) if _is_over(row)],
        "estimated": estimated_share(statement, tenant),
        "closer": statement.closing and statement.names.get(statement.closing.by, "an operator"),
        "is_next": _is_next(period, closed, visit.now),
        "is_behind": bool(closed) and period.month < min(closed),
        **_side_tables(statement, by, tenant),
    }


def _is_next(period: Period, closed: Mapping[str, Bill], now: datetime) -> bool:
    """Whether the month has ended and follows the last closed one, if there is any."""
    follows = not closed or month_before(period.month) == max(closed)
    return follows and period.month not in closed and now >= period.end


def _name(row: Mapping[str, Any], key: str, by: By) -> str:
    match row["kind"]:
        case "unshared_idle":
            return "idle, shared by nobody"
        case "correction":
            return f"{row[key] or 'none'}, corrections of {row['corrects']}"
    return str(row[key]) if row[key] else f"no {by}"


def _is_over(row: Mapping[str, Any]) -> bool:
    return row["budget_percent"] is not None and row["budget_percent"] >= 100


def _side_tables(statement: Statement, by: By, tenant: str | None) -> dict[str, Any]:
    """The tables below that of the use, by their titles. A tenant has none of pools."""
    found = {sheet.title: cent_rows(sheet) for sheet in sheets(statement, by, tenant)[1:]}
    period = of_period(statement.report.period, tenant)
    reasons = {str(row["reason"]): row for row in found["not billed"][0]}
    lost = [
        (*REASONS[name], row["requests"], _reason_drill(row, period))
        for name, row in reasons.items()
        if name in REASONS
    ]
    return {
        "pools": found.get("pools", ([], None)),
        "clouds": found.get("build or buy", ([], None))[0],
        "lost": lost,
        "lost_total": found["not billed"][1],
        "cached": reasons["cached"],
        "corrections": found["corrections"][0],
    }


def _reason_drill(row: Mapping[str, Any], period: list[str]) -> str:
    return address("/requests", f=[*period, f"billed:{row['reason']}"])


async def ask_close(visit: Visit) -> View:
    """The question before a month is final."""
    month = str(visit.request.path_params["month"])
    statement = await _statement(visit, month, None)
    if statement.closing is not None:
        raise ProblemError(409, "This month is closed already.")
    bill = bill_of(statement.report, None)
    return View("close.html", {"period": statement.report.period, "bill": bill})


async def close(visit: Visit) -> Response:
    """Closes the month for good, and goes back to it."""
    month = str(visit.request.path_params["month"])
    await visit.call("POST", "/reports/{month}/close", month=month)
    return RedirectResponse(address("/showback", month=month), 303)
