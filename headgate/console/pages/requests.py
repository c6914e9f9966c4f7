"""The search for requests, its export, and one request from question to bill."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from headgate.console.charts import Phase, time_line
from headgate.console.filters import Filter, FilterError, conditions_of, filters_of
from headgate.console.visit import View, Visit, address
from headgate.ledger.cells import as_csv
from headgate.ledger.places import BadPlaceError, Place
from headgate.ledger.search import place_of, request_of, search
from headgate.ledger.usage_lines import UsageLine
from headgate.management.problems import ProblemError

ROWS = 50
EXPORT_ROWS = 10_000
OFTEN = (
    ("refused today", ("since:today", "result:refused")),
    ("failed today", ("since:today", "result:failed")),
    ("slower than 10 s", ("slower:10",)),
    ("last hour", ("since:1h",)),
)
COLUMNS = (
    *("time", "ended_at", "request_id", "result", "status", "limit", "tenant", "user", "key"),
    *("ip", "user_agent", "model", "prompt_tokens", "cached_tokens", "completion_tokens"),
    *("cost", "ttft_s", "duration_s", "pod"),
)
"""The columns of the export, with the names that they have in records and in the API."""
_ENLARGED_US = 16_000


async def show(visit: Visit) -> View | Response:
    """The newest requests that match, or the same as CSV."""
    try:
        filters = _filters(visit)
        conditions = conditions_of(filters, visit.reading)
        problem = ""
    except FilterError as error:
        filters, conditions, problem = [], [], str(error)
    is_csv = visit.query("format") == "csv" and not problem
    limit, before = EXPORT_ROWS if is_csv else ROWS, _place(visit.query("before"))
    found: list[UsageLine] = []
    if not problem:
        async with visit.desk.connect() as connection:
            found = await search(connection, visit.scope, conditions, before, limit + (not is_csv))
    if is_csv:
        return _csv(found)
    return View("requests.html", _values(visit, filters, found, problem))


def _filters(visit: Visit) -> list[Filter]:
    return filters_of(visit.request.query_params.getlist("f"), visit.query("q"))


def _values(
    visit: Visit, filters: list[Filter], found: list[UsageLine], problem: str
) -> dict[str, Any]:
    texts = [str(one) for one in filters]
    rows, older = found[:ROWS], ""
    if len(found) > ROWS:
        older = address("/requests", f=texts, before=place_of(rows[-1]).text())
    tokens = [(one, address("/requests", f=[x for x in texts if x != str(one)])) for one in filters]
    return {
        "tokens": tokens,
        "texts": texts,
        "rows": rows,
        "older": older,
        "newest": address("/requests", f=texts) if visit.query("before") else "",
        "csv": address("/requests", f=texts, format="csv"),
        "often": [(name, address("/requests", f=list(f))) for name, f in OFTEN],
        "problem": problem,
        "typed": visit.query("q") if problem else "",
    }


def _place(text: str) -> Place | None:
    """The row behind which a page begins. Raises ProblemError."""
    try:
        return Place.read(text) if text else None
    except BadPlaceError:
        message = "`before` is no place in a search. Begin again with the newest."
        raise ProblemError(400, message) from None


def _csv(rows: Sequence[UsageLine]) -> Response:
    table = as_csv(COLUMNS, ([_plain(getattr(row, name)) for name in COLUMNS] for row in rows))
    headers = {"content-disposition": 'attachment; filename="requests.csv"'}
    return Response(table, headers=headers, media_type="text/csv; charset=utf-8")


def _plain(value: object) -> object:
    """Times as ISO 8601 in UTC, addresses as text."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value if value is None or isinstance(value, int | float) else str(value)


async def show_one(visit: Visit) -> View:
    """One request. Another's looks as if it did not exist."""
    request_id = visit.request.path_params["request_id"]
    if "\0" in request_id:
        raise ProblemError(404, "There is no such request, or none that you may see.")
    async with visit.desk.connect() as connection:
        row = await request_of(connection, visit.scope, request_id)
    if row is None:
        raise ProblemError(404, "There is no such request, or none that you may see.")
    phases, whole_us = phases_of(row), _micros(row.duration_s)
    near = time_line(phases, _ENLARGED_US) if whole_us > 20 * _ENLARGED_US else None
    values = {
        "row": row,
        "phases": phases,
        "line": time_line(phases, max(whole_us, 1)) if phases else None,
        "near": near,
        "used": (row.prompt_tokens or 0) + (row.completion_tokens or 0),
        "is_known": row.prompt_tokens is not None or row.completion_tokens is not None,
    }
    return View("request.html", values)


def phases_of(row: UsageLine) -> list[Phase]:
    """The parts of a request's time that Envoy and the tap have measured, one behind another.

    A refused request has one part, as no pod has seen it.
    """
    whole = _micros(row.duration_s)
    if row.to_upstream_s is None or row.ended is None:
        return [Phase("At the door", "fb" if row.result == "refused" else "fq", 0, whole, "Envoy")]
    begun_s = row.upstream_first_byte_s if row.ttft_s is None else row.ttft_s
    marks = [("At the door", "f3", _micros(row.to_upstream_s), "Envoy")]
    if begun_s is not None:
        marks.append(("Queue and prompt in the pod", "f2", _micros(begun_s), "Envoy"))
    marks.append(("Answer" if begun_s is not None else "In the pod", "f1", whole, "Envoy"))
    phases, at = [], 0
    for name, kind, until, by in marks:
        end = min(max(until, at), whole)
        phases.append(Phase(name, kind, at, end, by))
        at = end
    return phases


def _micros(seconds: float) -> int:
    """Whole microseconds, as the ledger has them."""
    return round(seconds * 1_000_000)
