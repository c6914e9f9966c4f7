"""Explore: the sums of any group over any time, as a table and as CSV."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from starlette.responses import Response

from headgate.console.filters import ANY, FilterError, conditions_of, filters_of
from headgate.console.over_time import MEASURES, Slots, over_time, slots_of
from headgate.console.pages.overview import total
from headgate.console.visit import View, Visit, address
from headgate.console.words import day as day_of
from headgate.console.words import moment
from headgate.ledger.cells import as_csv
from headgate.ledger.conditions import Condition
from headgate.ledger.sums import GROUPS, Row, Step, sums_by, sums_over_time
from headgate.management.problems import ProblemError

TIMES = (("today", "today"), ("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days"))
ROWS = 500
MAX_DAYS = 92
"""The most days of a chart."""
_COLUMNS = [
    "requests",
    "users",
    "answered",
    "refused",
    "failed",
    "aborted",
    "prompt_tokens",
    "cached_tokens",
]
_COLUMNS += ["completion_tokens", "cost_nanos"]


async def show(visit: Visit) -> View | Response:
    """One row for each value of the group, the dearest first, or the same as CSV."""
    group, since = visit.query("by", "tenant"), visit.query("since", "30d")
    measure = visit.query("of", "cost")
    if group not in GROUPS:
        raise ProblemError(422, f"There is no group of this name. Allowed: {', '.join(GROUPS)}.")
    if measure not in MEASURES:
        raise ProblemError(422, f"There is no such measure. Allowed: {', '.join(MEASURES)}.")
    texts = visit.request.query_params.getlist("f")
    try:
        filters = filters_of([*texts, f"since:{since}"])
        conditions = conditions_of(filters, visit.reading)
    except FilterError as error:
        raise ProblemError(422, str(error)) from None
    step = Step("hour" if since == "today" else "day", visit.choice.zone.key)
    async with visit.desk.connect() as connection:
        rows = await sums_by(connection, visit.scope, conditions, group, step.zone)
        steps = await sums_over_time(connection, visit.scope, conditions, _series(group), step)
    if visit.query("format") == "csv":
        return _csv(visit, group, rows)
    own = [*texts, f"since:{since}"]
    values = {
        "group": group,
        "groups": GROUPS,
        "since": since,
        "times": TIMES,
        "texts": texts,
        "rows": [
            (_name(visit, group, row), _drill(visit, group, row, own), row) for row in rows[:ROWS]
        ],
        "left_out": len(rows) - ROWS,
        "total": total(rows),
        "top": max((row["cost_nanos"] for row in rows), default=0),
        "measure": measure,
        "measures": list(MEASURES),
        "chart": over_time(steps, measure, _slots(visit, conditions, step)),
        "csv": address("/explore", by=group, since=since, f=texts, format="csv"),
    }
    return View("explore.html", values)


def _series(group: str) -> str:
    """The group of a chart over time: a group that is a time itself is shown by result."""
    return "result" if group in ("day", "hour") else group


def _slots(visit: Visit, conditions: Sequence[Condition], step: Step) -> Slots:
    found = [one.value for one in conditions if one.field == "since" and not one.excludes]
    begins = [visit.now - timedelta(days=MAX_DAYS), *(x for x in found if isinstance(x, datetime))]
    return slots_of(max(begins), visit.now, step.unit, visit.choice.zone)


def _name(visit: Visit, group: str, row: Row) -> str:
    if row["name"] is None:
        return "none"
    if group == "day":
        return day_of(row["name"], visit.choice.zone)
    return moment(row["name"], visit.choice.zone) if group == "hour" else str(row["name"])


def _drill(visit: Visit, group: str, row: Row, texts: list[str]) -> str:
    """The address of the requests that the row sums."""
    name = row["name"]
    if group in ("day", "hour"):
        begin = name.astimezone(visit.choice.zone if group == "day" else UTC)
        end = begin + timedelta(**{f"{group}s": 1})  # a local day has 23 to 25 hours
        own = [f"since:{begin.isoformat()}", f"until:{end.isoformat()}"]
    else:
        own = [f"-{group}:{ANY}" if name is None else f"{group}:{name}"]
    return address("/requests", f=[*texts, *own])


def _csv(visit: Visit, group: str, rows: list[Row]) -> Response:
    lines = ([_name(visit, group, row), *(row[name] for name in _COLUMNS)] for row in rows)
    headers = {"content-disposition": f'attachment; filename="by-{group}.csv"'}
    table = as_csv((group, *_COLUMNS), lines)
    return Response(table, headers=headers, media_type="text/csv; charset=utf-8")
