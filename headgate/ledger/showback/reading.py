"""Reads the lines of a month from the ledger: sums over its records."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from headgate.database.connection import Connection
from headgate.ledger.outcomes import REASON
from headgate.ledger.showback.corrections import repricing_line
from headgate.ledger.showback.values import Line, Reason, Usage

_LINES = f"""
select
  coalesce(tenant, ''), coalesce(person_id::text, ''), coalesce(model, ''),
  coalesce(base, model, ''), coalesce(labels ->> %(label)s, ''), coalesce(price_version, ''),
  {REASON} as reason,
  count(*),
  sum(greatest(coalesce(prompt_tokens, 0) - coalesce(cached_tokens, 0), 0))::bigint,
  sum(coalesce(cached_tokens, 0))::bigint,
  sum(coalesce(completion_tokens, 0))::bigint,
  sum(coalesce(reasoning_tokens, 0))::bigint,
  sum(coalesce(audio_seconds, 0))::bigint,
  sum(case when source in ('partial', 'estimate')
    then coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0) else 0 end)::bigint,
  sum(coalesce(cost_nanos, 0))::bigint
from headgate.usage_line
where ended_at >= %(begin)s and ended_at < %(end)s
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
    values = {"begin": begin, "end": end, "label": label}
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
