"""The notices in the database: each decided once, and sent until a receiver has taken it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from typing import Any

from psycopg.types.json import Jsonb

from headgate.database.connection import Connection
from headgate.ledger.notices.thresholds import worth_sending
from headgate.ledger.notices.values import DIGEST, Decided, Notice
from ratelimit.demand import Subject

FIRST_WAIT_S = 10
LONGEST_WAIT_S = 3_600
KEPT_TRYING_DAYS = 3
_LOCK = "select pg_try_advisory_xact_lock(hashtext('headgate.notices'))"
_KEEP = """
insert into headgate.notified_tenant (tenant) select unnest(%s::text[]) on conflict do nothing
"""
_DROP = "delete from headgate.notified_tenant where not tenant = any(%s::text[])"
_TAKE = """
with taken as (
  delete from headgate.met_subject
  where id in (select id from headgate.met_subject order by id limit %s)
  returning tenant, person_id, key, model
)
select distinct t.tenant, coalesce(p.name, ''), coalesce(t.key, ''), coalesce(t.model, '')
from taken t left join headgate.person p on p.id = t.person_id
"""
_PUT = """
insert into headgate.notice (tenant, limit_id, most, threshold, person_id, key, model, count, per,
  begin_at, end_at, used, forecast, currency)
select d.tenant, d.limit_id, d.most, d.threshold, p.id, d.key, d.model, d.count, d.per,
  to_timestamp(d.begin_s), to_timestamp(d.end_s), d.used, d.forecast, d.currency
from jsonb_to_recordset(%s) as d(tenant text, limit_id text, most bigint, threshold text,
  "user" text, key text, model text, count text, per text, begin_s float8, end_s float8,
  used bigint, forecast bigint, currency text)
left join headgate.person p on p.name = d."user"
on conflict do nothing
returning id, tenant, limit_id, most, coalesce(person_id::text, ''), key, model, threshold
"""
_SEND = """
insert into headgate.notice_delivery (notice_id, channel) select %s, unnest(%s::text[])
"""
_FIELDS = ", ".join(
    'p.name as "user"' if one.name == "user" else f"n.{one.name}" for one in fields(Notice)
).replace("n.id,", "n.id::text,")
_FROM = "from headgate.notice n left join headgate.person p on p.id = n.person_id"
_DUE = f"""
select d.channel, {_FIELDS} {_FROM} join headgate.notice_delivery d on d.notice_id = n.id
where d.sent_at is null and d.given_up_at is null and d.next_at <= now()
  and d.channel = any(%s::text[])
order by d.next_at limit 1 for update of d skip locked
"""
_SENT = """
update headgate.notice_delivery
set attempts = attempts + 1, tried_at = now(), sent_at = now(), last_error = null
where notice_id = %s and channel = %s
"""
_FAILED = f"""
update headgate.notice_delivery d set attempts = d.attempts + 1, tried_at = now(), last_error = %s,
  next_at = now() + least({FIRST_WAIT_S} * 2 ^ least(d.attempts, 20), {LONGEST_WAIT_S})
    * interval '1 s',
  given_up_at = case when n.decided_at < now() - interval '{KEPT_TRYING_DAYS} days' then now() end
from headgate.notice n where n.id = d.notice_id and d.notice_id = %s and d.channel = %s
returning d.given_up_at is not null
"""  # noqa: S608 (our own numbers)
_WAITING = """
select extract(epoch from min(n.decided_at))::float8 from headgate.notice_delivery d
join headgate.notice n on n.id = d.notice_id
where d.sent_at is null and d.given_up_at is null and d.channel = any(%s::text[])
"""
_LIST = f"""
select {_FIELDS}, coalesce((select jsonb_object_agg(d.channel, case
    when d.sent_at is not null then 'sent' when d.given_up_at is not null then 'given up'
    else 'waiting' end) from headgate.notice_delivery d where d.notice_id = n.id), '{{}}')
{_FROM} where (%(tenant)s::text is null or n.tenant = %(tenant)s::text)
  and (%(at)s::timestamptz is null or (n.decided_at, n.id) < (%(at)s, %(id)s::uuid))
order by n.decided_at desc, n.id desc limit %(limit)s
"""  # noqa: S608 (the names of our own columns)
_EXPIRE = "delete from headgate.notice where end_at < %s"


@dataclass(frozen=True, slots=True)
class Listed:
    """A notice, and by channel whether it was sent."""

    notice: Notice
    deliveries: Mapping[str, str]


async def is_alone(connection: Connection) -> bool:
    """Whether no other program looks at counters now; holds until the end of the transaction."""
    row = await (await connection.execute(_LOCK)).fetchone()
    return bool(row and row[0])


async def keep_tenants(connection: Connection, tenants: Sequence[str]) -> None:
    """From now on the records of these tenants note whom they have met."""
    await connection.execute(_KEEP, (list(tenants),))
    await connection.execute(_DROP, (list(tenants),))


async def take_subjects(connection: Connection, most: int) -> list[Subject]:
    """Whom records have met since the last look: at most `most` notes of them, each once."""
    cursor = await connection.execute(_TAKE, (most,))
    return [Subject(*row) for row in await cursor.fetchall()]


async def put(
    connection: Connection, decided: Iterable[Decided], channels: Mapping[str, Sequence[str]]
) -> list[str]:
    """Adds those that nobody has decided before, and returns their ids.

    `channels` are those of each tenant. Of the percents that a counter passed at once the highest
    goes out alone.
    """
    rows = [asdict(one) for one in decided]
    found = await (await connection.execute(_PUT, (Jsonb(rows),))).fetchall() if rows else []
    by_counter: dict[tuple[Any, ...], dict[str, str]] = {}
    for id, *counter, threshold in found:
        by_counter.setdefault(tuple(counter), {})[threshold] = id
    for (tenant, *_), ids in by_counter.items():
        sent = {DIGEST} if DIGEST in ids else worth_sending(list(ids))
        for threshold in sent:
            ways = [one for one in channels.get(tenant, ()) if threshold != DIGEST or one == "mail"]
            await connection.execute(_SEND, (ids[threshold], ways))
    return [str(row[0]) for row in found]


async def put_digest(connection: Connection, id: str, digest: Mapping[str, Any]) -> None:
    """Writes what a digest says."""
    await connection.execute(
        "update headgate.notice set digest = %s where id = %s", (Jsonb(digest), id)
    )


async def next_due(connection: Connection, channels: Sequence[str]) -> tuple[str, Notice] | None:
    """A notice that is due on one of these channels, and that channel.

    It is locked until the transaction ends, so no other program sends it meanwhile.
    """
    row = await (await connection.execute(_DUE, (list(channels),))).fetchone()
    return None if row is None else (row[0], _notice(row[1:]))


async def note_sent(connection: Connection, notice: Notice, channel: str) -> None:
    """Its receiver has taken it."""
    await connection.execute(_SENT, (notice.id, channel))


async def note_failed(connection: Connection, notice: Notice, channel: str, error: str) -> bool:
    """Puts it off, twice as long each time; returns whether it is given up as too old."""
    row = await (await connection.execute(_FAILED, (error, notice.id, channel))).fetchone()
    return bool(row and row[0])


async def waiting_since(connection: Connection, channels: Sequence[str]) -> float | None:
    """When the oldest notice was decided that waits on one of these channels; None for none."""
    row = await (await connection.execute(_WAITING, (list(channels),))).fetchone()
    return None if row is None else row[0]


async def read_notices(
    connection: Connection,
    tenant: str | None,
    limit: int,
    before: tuple[datetime, str] | None = None,
) -> list[Listed]:
    """At most `limit` notices of a tenant, or of all, the newest first; those behind `before`."""
    at, id = before or (None, None)
    values = {"tenant": tenant, "at": at, "id": id, "limit": limit}
    rows = await (await connection.execute(_LIST, values)).fetchall()
    return [Listed(_notice(row[:-1]), row[-1]) for row in rows]


async def expire_notices(connection: Connection, before: date) -> int:
    """Removes the notices of windows that ended before a day; needs the schema's owner."""
    return (await connection.execute(_EXPIRE, (before,))).rowcount


def _notice(row: Sequence[Any]) -> Notice:
    names = (one.name for one in fields(Notice))
    return Notice(**dict(zip(names, row, strict=True)))
