"""Closed months in the database: documents that never change, each with its checksum."""

from collections.abc import AsyncIterator
from datetime import datetime
from hashlib import sha256

import msgspec

from headgate.database.connection import Connection
from headgate.ledger.showback.values import Closing, MonthReport

_READ = """
select closed_at, closed_by::text, checksum, document from headgate.closed_month where month = %s
"""
_LAST = "select month, end_at from headgate.closed_month order by begin_at desc limit 1"
_ALL = "select month from headgate.closed_month order by begin_at"
_PUT = """
insert into headgate.closed_month
  (month, begin_at, end_at, closed_at, closed_by, checksum, document)
values (%s, %s, %s, %s, %s, %s, %s) on conflict do nothing returning month
"""
_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(MonthReport)


class MonthError(ValueError):
    """A month that cannot be shown or closed now; the text says why."""


def document_of(report: MonthReport) -> bytes:
    """The document of a report: the same report has the same bytes."""
    return msgspec.json.format(_encoder.encode(report), indent=1) + b"\n"


def report_of(document: bytes) -> MonthReport:
    """The report of a document."""
    return _decoder.decode(document)


async def read_closed(connection: Connection, month: str) -> tuple[MonthReport, Closing] | None:
    """A closed month, None if it is open. Raises MonthError if its document is not the same."""
    row = await (await connection.execute(_READ, (month,))).fetchone()
    if row is None:
        return None
    at, by, checksum, document = row
    if sha256(document).digest() != checksum:
        raise MonthError(f"the document of {month} does not have its checksum: somebody changed it")
    return report_of(document), Closing(at, by, checksum.hex())


async def closed_months(connection: Connection) -> list[str]:
    """The names of the closed months, from the first on."""
    return [month for (month,) in await (await connection.execute(_ALL)).fetchall()]


async def reports(connection: Connection) -> AsyncIterator[MonthReport]:
    """The closed months, from the first on."""
    for month in await closed_months(connection):
        found = await read_closed(connection, month)
        assert found is not None, "a closed month stays"  # noqa: S101
        yield found[0]


async def check_closable(connection: Connection, report: MonthReport, now: datetime) -> None:
    """Raises MonthError for a month that has not ended, or that does not follow the last one."""
    period = report.period
    if now < period.end:
        raise MonthError(f"{period.month} is open until its end, {period.end:%Y-%m-%dT%H:%MZ}")
    row = await (await connection.execute(_LAST)).fetchone()
    if row is not None and row[1] != period.begin:
        raise MonthError(
            f"the last closed month, {row[0]}, ends at {row[1]:%Y-%m-%dT%H:%MZ}: the next one"
            f" begins there, and {period.month} begins at {period.begin:%Y-%m-%dT%H:%MZ}"
        )


async def put_closed(
    connection: Connection, report: MonthReport, person_id: str, now: datetime
) -> Closing:
    """Closes a month for good. Raises MonthError if it is closed already."""
    document = document_of(report)
    checksum = sha256(document)
    period = report.period
    values = (
        period.month, period.begin, period.end, now, person_id, checksum.digest(), document,
    )  # fmt: skip
    if await (await connection.execute(_PUT, values)).fetchone() is None:
        raise MonthError(f"{period.month} is closed already")
    return Closing(now, person_id, checksum.hexdigest())
