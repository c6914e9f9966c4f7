"""The digest of a tenant: what its people used in a period, and what they were told."""

from datetime import datetime
from typing import Any

from headgate.core.policy import Tenant
from headgate.database.connection import Connection

_SUMS = """
select count(*), count(distinct person_id), count(*) filter (where "limit" is not null),
  coalesce(sum(prompt_tokens), 0)::bigint, coalesce(sum(completion_tokens), 0)::bigint,
  coalesce(sum(cost_nanos), 0)::bigint
from headgate.usage_record where tenant = %s and ended_at >= %s and ended_at < %s
"""
_TOLD = """
select count(*) from headgate.notice
where tenant = %s and decided_at >= %s and decided_at < %s and threshold <> 'digest'
"""
_NAMES = ("requests", "users", "refused", "prompt_tokens", "completion_tokens", "cost_nanos")


async def digest_of(
    connection: Connection, tenant: Tenant, begin: datetime, end: datetime
) -> dict[str, Any]:
    """The sums of the ledger from `begin` until before `end`, without a name of a person.

    `refused` are requests that a limit refused, `notices` the thresholds that were passed.
    """
    span = (tenant.name, begin, end)
    sums = await (await connection.execute(_SUMS, span)).fetchone()
    told = await (await connection.execute(_TOLD, span)).fetchone()
    assert sums is not None, "sums are one row"  # noqa: S101
    assert told is not None, "a count is one row"  # noqa: S101
    return dict(zip(_NAMES, sums, strict=True)) | {"notices": told[0]}
