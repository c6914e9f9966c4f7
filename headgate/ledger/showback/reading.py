"""Reads the lines of a month from the ledger: sums over its records."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from headgate.core.answer_cache import HIT_DETAILS
from headgate.database.connection import Connection
from headgate.ledger.outcomes import REASON
from headgate.ledger.showback.corrections import repricing_line
from headgate.ledger.showback.values import Line, Reason, Usage

_TOKENS = "coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0)"


def _sum(number: str, condition: str = "not is_hit") -> str:
    """The sum of a number over some of the requests, as SQL."""
    return f"coalesce(sum({number}) filter (where {condition}), 0)::bigint"


_LINES = f"""
select
  coalesce(tenant, ''), coalesce(person_id::text, ''), coalesce(model, ''),
  coalesce(base, model, ''), coalesce(labels ->> %(label)s, ''), coalesce(price_version, ''),
  {REASON} as reason,
  count(*),
  {_sum("greatest(coalesce(prompt_tokens, 0) - coalesce(cached_tokens, 0), 0)")},
  {_sum("cached_tokens")},
  {_sum("completion_tokens")},
  {_sum("reasoning_tokens")},
  {_sum("audio_seconds")},
  {_sum(_TOKENS, "not is_hit and source in ('partial', 'estimate')")},
  sum(coalesce(cost_nanos, 0))::bigint,
  count(*) filter (where is_hit),
  {_sum(_TOKENS, "is_hit")}
from (
  select *, details is not distinct from %(hit)s as is_hit from headgate.usage_line
  where ended_at >= %(begin)s and ended_at < %(end)s
) as ended
group by 1, 2, 3, 4, 5, 6, 7
"""  # noqa: S608 (parts of the ledger)
_CORRECTIONS = """
select repricing, month, tenant, person, model, cost_nanos from headgate.repricing_correction
order by 1, 3, 4, 5
"""
_PRICES = "select version, prices from headgate.price where version = any(%s) order by 1"
_NAMES = """
select id::text, coalesce(nullif(display_name, ''), name) from headgate.person
where id::text = any(%s)
"""


async def read_lines(
    connection: Connection, begin: datetime, end: datetime, label: str
) -> list[Line]:
    """The lines of all requests that ended in a span, with the value of this label."""
    values = {"begin": begin, "end": end, "label": label, "hit": HIT_DETAILS}
    rows = await (await connection.execute(_LINES, values)).fetchall()
    return [
        Line(
            tenant=row[0],
            person=row[1],
            model=row[2],
            base=row[3],
            label=row[4],
            price_version=row[5],
            reason=None if row[6] is None else Reason(row[6]),
            corrects=None,
            usage=_usage(row[7:], is_billed=row[6] is None),
        )
        for row in rows
    ]


def _usage(sums: tuple[int, ...], *, is_billed: bool) -> Usage:
    """An unbilled request counts as a request only."""
    if not is_billed:
        return Usage(requests=sums[0])
    return Usage(
        requests=sums[0],
        input_tokens=sums[1],
        cached_tokens=sums[2],
        output_tokens=sums[3],
        reasoning_tokens=sums[4],
        audio_seconds=sums[5],
        estimated_tokens=sums[6],
        cost_nanos=sums[7],
        hits=sums[8],
        hit_tokens=sums[9],
    )


async def read_corrections(connection: Connection) -> list[Line]:
    """The lines of all repricings that were ordered as corrections."""
    rows = await (await connection.execute(_CORRECTIONS)).fetchall()
    return [
        repricing_line(name, month, (tenant, person, model), nanos)
        for name, month, tenant, person, model, nanos in rows
    ]


async def read_prices(
    connection: Connection, versions: Iterable[str]
) -> dict[str, Mapping[str, str]]:
    """The prices of these versions, by kind. One that the database does not know is left out."""
    rows = await (await connection.execute(_PRICES, (sorted(set(versions)),))).fetchall()
    return dict(rows)


async def read_names(connection: Connection, people: Iterable[str]) -> dict[str, str]:
    """The names of people, by id, as they are now."""
    rows = await (await connection.execute(_NAMES, (sorted(set(people)),))).fetchall()
    return dict(rows)
