"""Budgets: how full each limit is, when it begins again, and where it is going."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from headgate.console.fullness import (
    THRESHOLDS,
    Counter,
    counters_asked,
    counters_of,
    query_of,
)
from headgate.console.visit import View, Visit
from headgate.core.issuers import Role
from headgate.core.policy import Caller, Windowed
from headgate.database.connection import Connection
from headgate.ledger.conditions import Condition, Scope
from headgate.ledger.sums import callers_of, sums_of
from headgate.management.notices import NoticeBody
from headgate.management.problems import ProblemError
from headgate.management.rights import OPERATOR_TOKEN, has_role
from ratelimit.store.protocol import StoreError
from ratelimit.windows import window

DAYS = 31
MAX_CALLERS = 500
MAX_ROWS = 25
MAX_NOTICES = 10
_NOTICES = "/tenants/{tenant}/notices"


async def show(visit: Visit) -> View:
    """The limits of the reader's tenants, the fullest first."""
    chosen = visit.query("tenant")
    if chosen and chosen not in visit.tenants:
        raise ProblemError(403, "You have no role in that tenant.")
    tenants = [chosen] if chosen else visit.tenants
    async with visit.desk.connect() as connection:
        callers = {name: await _callers(visit, connection, name) for name in tenants}
        counters, problem = await _counters(visit, callers)
        budgets = [
            await _with_booked(visit, connection, one)
            for one in counters
            if one.is_budget and not one.who
        ]
    others = [one for one in counters if not (one.is_budget or one.who)]
    own = [one for one in counters if one.who]
    values: dict[str, Any] = {
        "budgets": budgets,
        "notices": await _notices(visit, tenants),
        "others": others,
        "own": own[:MAX_ROWS],
        "left_out": len(own) - MAX_ROWS,
        "spent": [one for one in budgets if one.percent >= THRESHOLDS[1]],
        "near": [one for one in budgets if THRESHOLDS[0] <= one.percent < THRESHOLDS[1]],
        "chosen": chosen,
        "tenants": visit.tenants,
        "problem": problem,
        "thresholds": THRESHOLDS,
        "sees_all": all(has_role(visit.manager, Role.FINANCE, name) for name in tenants),
    }
    return View("budgets.html", values)


async def _callers(visit: Visit, connection: Connection, tenant: str) -> list[Caller]:
    """The callers of the last month, as far as the reader may see them."""
    since = [Condition("since", visit.now - timedelta(days=DAYS)), Condition("tenant", tenant)]
    found = await callers_of(connection, visit.scope, since, MAX_CALLERS)
    callers = [Caller(tenant, user, key) for user, key in found]
    name = visit.manager.name
    is_known = name == OPERATOR_TOKEN or any(one.user == name for one in callers)
    return callers if is_known else [*callers, Caller(tenant, name, "")]


async def _counters(
    visit: Visit, callers: Mapping[str, Sequence[Caller]]
) -> tuple[list[Counter], str]:
    """All counters, and why there are none if the store does not answer."""
    now_s = visit.desk.clock.now_s()
    found: list[Counter] = []
    for name, of_tenant in callers.items():
        asked = counters_asked(visit.policy.tenants[name], of_tenant, now_s)
        if not asked:
            continue
        try:
            used = await visit.surroundings.peek(query_of(name, asked, now_s))
        except StoreError as error:
            return [], str(error)
        found += counters_of(name, asked, used, now_s)
    return sorted(found, key=lambda one: -one.percent), ""


async def _notices(visit: Visit, tenants: Sequence[str]) -> list[NoticeBody]:
    """The newest notices of the tenants whose notices the reader may see."""
    found: list[NoticeBody] = []
    for name in tenants:
        if has_role(visit.manager, Role.FINANCE, name):
            page = await visit.call("GET", _NOTICES, tenant=name, limit=str(MAX_NOTICES))
            found += page.body.data
    return sorted(found, key=lambda one: one.decided_at, reverse=True)[:MAX_NOTICES]


async def _with_booked(visit: Visit, connection: Connection, one: Counter) -> Counter:
    """A budget of a whole tenant beside what the ledger has booked in its window.

    The store holds running requests, too. The ledger has those that have ended.
    """
    shape, rule = one.rule.shape, one.rule
    is_whole = isinstance(shape, Windowed) and not (rule.users or rule.models)
    if not is_whole or not has_role(visit.manager, Role.FINANCE, one.tenant):
        return one
    assert isinstance(shape, Windowed)  # noqa: S101 - is_whole says so
    calendar = visit.policy.tenants[one.tenant].calendar
    begin_s = window(shape.per, calendar, visit.desk.clock.now_s()).start_s
    scope = Scope(tenants=(one.tenant,))
    since = [Condition("since", datetime.fromtimestamp(begin_s, UTC))]
    sums = await sums_of(connection, scope, since)
    return replace(one, booked_nanos=sums["cost_nanos"])
