"""The partitions of the ledger: made ahead of time, dropped when they are old enough."""

import re
from datetime import UTC, date, datetime, timedelta

from psycopg import sql

from headgate.database.connection import Connection
from headgate.ledger.store import ensure_month

_AHEAD = timedelta(days=45)
FIRST_YEAR, LAST_YEAR = 2000, 2099
"""Those of which the database makes months."""
_PARTITIONS = """
select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'headgate.usage_record'::regclass order by 1
"""
_NOTE = """
insert into headgate.dropped_month (month) values (%s) on conflict do nothing
"""
_DROPPED = "select month from headgate.dropped_month order by 1"
_CLEAR = """
update {} set ip = null, user_agent = null where ip is not null or user_agent is not null
"""
_NAME = re.compile(r"usage_record_([0-9]{4})_([0-9]{2})")


async def provide_months(connection: Connection, now_s: float) -> None:
    """Makes the partitions of this month and the next, so that no batch waits for one.

    A clock that is years off makes none: records wait for no month of its.
    """
    now = datetime.fromtimestamp(now_s, UTC).date()
    for month in sorted({now.replace(day=1), (now + _AHEAD).replace(day=1)}):
        if FIRST_YEAR <= month.year <= LAST_YEAR:
            await ensure_month(connection, month)


async def months(connection: Connection) -> list[date]:
    """The first days of the months that have a partition."""
    rows = await (await connection.execute(_PARTITIONS)).fetchall()
    found = (_NAME.fullmatch(name) for (name,) in rows)
    return [date(int(one[1]), int(one[2]), 1) for one in found if one is not None]


async def drop_months(connection: Connection, before: date) -> list[date]:
    """Drops the months that end before a day, with their records, and notes which; needs the
    schema's owner."""
    old = [month for month in await months(connection) if month < before.replace(day=1)]
    for month in old:
        async with connection.transaction():
            await connection.execute(sql.SQL("drop table {}").format(_partition(month)))
            await connection.execute(_NOTE, (month,))
    return old


async def dropped_months(connection: Connection) -> list[date]:
    """The first days of the months that were ever dropped."""
    return [month for (month,) in await (await connection.execute(_DROPPED)).fetchall()]


async def clear_addresses(connection: Connection, before: date) -> int:
    """Clears the client's address and program in months that end before a day; needs the schema's
    owner. Returns the number of records that had one."""
    cleared = 0
    for month in await months(connection):
        if month < before.replace(day=1):
            query = sql.SQL(_CLEAR).format(_partition(month))
            cleared += (await connection.execute(query)).rowcount
    return cleared


def _partition(month: date) -> sql.Identifier:
    return sql.Identifier("headgate", f"usage_record_{month:%Y_%m}")


def first_kept(now_s: float, keep_months: int) -> date:
    """The first day of the oldest month to keep, if `keep_months` whole months are kept beside
    the current one."""
    now = datetime.fromtimestamp(now_s, UTC).date()
    number = now.year * 12 + now.month - 1 - keep_months
    return date(number // 12, number % 12 + 1, 1)
