"""A reader's own usage: 30 days, by day and by model, and their newest requests."""

from datetime import timedelta

from headgate.console.pages.overview import DAYS, chart, cost_parts, daily, day_words, total
from headgate.console.visit import View, Visit
from headgate.core.issuers import Role
from headgate.ledger.conditions import Condition, Scope
from headgate.ledger.search import search
from headgate.ledger.sums import sums_by
from headgate.management.rights import OPERATOR_TOKEN

_NEWEST = 10


async def show(visit: Visit) -> View:
    """The requests under the reader's own name, whatever else they may see."""
    zone, name = visit.choice.zone, visit.manager.name
    today = visit.now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    tenants = tuple(visit.tenants_with(Role.USER))
    scope = Scope(own_tenants=tenants, user=name)
    month = [Condition("since", today - timedelta(days=DAYS - 1))]
    async with visit.desk.connect() as connection:
        days = await sums_by(connection, scope, month, "day", zone.key)
        models = await sums_by(connection, scope, month, "model")
        newest = await search(connection, scope, month, None, _NEWEST)
    values = {
        "name": name,
        "is_token": name == OPERATOR_TOKEN,
        "spent": chart(daily(today, days, DAYS), day_words, cost_parts),
        "models": models,
        "total": total(models),
        "rows": newest,
    }
    return View("usage.html", values)
