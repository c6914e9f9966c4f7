"""Orders the differences of a repricing as corrections of its month, which is closed."""

from collections import Counter

from headgate.database.connection import Connection
from headgate.ledger.repricing.values import Repricing, RepricingError
from headgate.ledger.showback.closed import reports
from headgate.ledger.showback.corrections import booked_of

_OTHER = """
select repricing from headgate.repricing_correction
where month = %(month)s and (%(tenant)s::text is null or tenant = %(tenant)s) limit 1
"""
_PUT = """
insert into headgate.repricing_correction (repricing, month, tenant, person, model, cost_nanos)
values (%s, %s, %s, %s, %s, %s)
"""


async def order_corrections(connection: Connection, repricing: Repricing) -> int:
    """Orders them, and returns their sum in nanos. Call it in a transaction of the change log.

    Raises RepricingError if the month is open, or has charged records that the run lacks. It also
    does so without a difference, and if a repricing has corrected the month already.
    """
    await _refuse_old(connection, repricing)
    asked = {"month": repricing.month, "tenant": repricing.tenant}
    other = await (await connection.execute(_OTHER, asked)).fetchone()
    if other is not None:
        raise RepricingError(
            f"{repricing.month} has corrections by the repricing {other[0]} already: a second one"
            " would count the same difference twice"
        )
    sums = Counter[tuple[str, str, str]]()
    for line in repricing.lines:
        sums[line.tenant, line.person, line.model] += line.difference_nanos
    rows = [
        (repricing.name, repricing.month, *whose, nanos) for whose, nanos in sums.items() if nanos
    ]
    if not rows:
        raise RepricingError(f"the repricing {repricing.name} has no difference to correct")
    async with connection.cursor() as cursor:
        await cursor.executemany(_PUT, rows)
    return sum(sums.values())


async def _refuse_old(connection: Connection, repricing: Repricing) -> None:
    """Raises RepricingError unless the month is closed, and the run has all that it charged."""
    closed = [one async for one in reports(connection)]
    if repricing.month not in {one.period.month for one in closed}:
        raise RepricingError(
            f"{repricing.month} is open: close it first, as corrections are lines of a later month"
        )
    booked = sum(
        line.usage.cost_nanos
        for line in booked_of(repricing.month, closed)
        if repricing.tenant in (None, line.tenant)
    )
    if sum(line.charged_nanos for line in repricing.lines) < booked:
        raise RepricingError(
            f"the repricing {repricing.name} lacks records that {repricing.month} has charged"
            " since: make a new one"
        )
