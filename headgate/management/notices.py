"""The handler of the notices: which thresholds of limits were passed, and who was told."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import msgspec

from headgate.database.connection import DEADLINE_S, within
from headgate.ledger.notices.outbox import Listed, read_notices
from headgate.management.calls import Answer, Call, Page
from headgate.management.problems import ProblemError
from headgate.management.records import Output


class NoticeBody(Output):
    """A passed threshold of a limit, or a digest.

    `threshold` is a percent, `forecast` or `digest`. `limit` and `used` are in the unit of `count`;
    for cost, 1e-9 of the currency. `per` is empty for requests in flight and for a smooth limit.
    `deliveries` says by channel: sent, waiting or given up.
    """

    id: str
    decided_at: datetime
    tenant: str
    user: str | None
    key: str | None
    model: str | None
    limit_id: str
    count: str
    per: str
    limit: int
    threshold: str
    used: int
    forecast: int | None
    begins_at: datetime
    ends_at: datetime
    deliveries: Mapping[str, str]


async def list_notices(call: Call[None]) -> Answer:
    """A page of the notices of the tenant, or of all, the newest first."""
    before, limit = _place(call.after), call.limit
    async with call.desk.connect() as connection:
        reading = read_notices(connection, call.tenant or None, limit, before)
        found = await within(DEADLINE_S, connection, reading)
    last = found[-1].notice if len(found) == limit else None
    place = None if last is None else f"{last.decided_at.isoformat()} {last.id}"
    return Answer(Page([_body(one) for one in found], place))


def _place(cursor: str) -> tuple[datetime, str] | None:
    if not cursor:
        return None
    at, _, id = cursor.partition(" ")
    try:
        moment, known = msgspec.convert(at, datetime), UUID(id)
    except ValueError:
        raise ProblemError(400, "must be the `next` of a page before", "after") from None
    if moment.tzinfo is None:
        raise ProblemError(400, "must be the `next` of a page before", "after")
    return moment, str(known)


def _body(listed: Listed) -> NoticeBody:
    notice = listed.notice
    return NoticeBody(
        id=notice.id,
        decided_at=notice.decided_at,
        tenant=notice.tenant,
        user=notice.user,
        key=notice.key or None,
        model=notice.model or None,
        limit_id=notice.limit_id,
        count=notice.count,
        per=notice.per,
        limit=notice.most,
        threshold=notice.threshold,
        used=notice.used,
        forecast=notice.forecast,
        begins_at=notice.begin_at,
        ends_at=notice.end_at,
        deliveries=listed.deliveries,
    )
