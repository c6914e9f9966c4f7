"""The handlers of what the API only shows: tenants, limits and the change log."""

from headgate.core.issuers import Role
from headgate.database.connection import DEADLINE_S, within
from headgate.identity.change_log import verify
from headgate.identity.changes import BrokenChainError, Head
from headgate.identity.read_log import changes_after
from headgate.management.calls import LARGEST, Answer, Call, Page, whole_number
from headgate.management.problems import ProblemError
from headgate.management.records import (
    HeadBody,
    change_body,
    limit_body,
    tenant_body,
)
from headgate.management.rights import has_role

_HASH_BYTES = 32


async def list_tenants(call: Call[None]) -> Answer:
    """A page of the tenants in which the manager has a role, by name."""
    manager, limit = call.manager, call.limit
    names = [
        name
        for name in sorted(call.policy.tenants)
        if name > call.after and has_role(manager, Role.USER, name)
    ][:limit]
    data = [
        tenant_body(
            call.policy.tenants[name],
            Role.OPERATOR if manager.is_operator else manager.tenants[name],
        )
        for name in names
    ]
    return Answer(Page(data, names[-1] if len(names) == limit else None))


async def list_limits(call: Call[None]) -> Answer:
    """A page of the limits of the tenant, by their ids."""
    after, most = call.after, call.limit
    limits = call.policy.tenants[call.tenant].limits
    found = sorted((one for one in limits if one.id > after), key=lambda one: one.id)[:most]
    data = [limit_body(limit) for limit in found]
    return Answer(Page(data, found[-1].id if len(found) == most else None))


async def list_changes(call: Call[None]) -> Answer:
    """A page of the change log from the oldest change on, of the tenant or of all."""
    number, limit = whole_number({"after": call.after or "1"}, "after", 1, LARGEST), call.limit
    number = number if call.after else 0
    async with call.desk.connect() as connection:
        reading = changes_after(connection, number, limit, call.tenant or None)
        found = await within(DEADLINE_S, connection, reading)
    data = [change_body(change) for change in found]
    return Answer(Page(data, str(found[-1].change.number) if len(found) == limit else None))


async def verify_changes(call: Call[None]) -> Answer:
    """The head of the change log, if nobody has edited it; else the problem 409."""
    async with call.desk.connect() as connection:
        try:
            head = await verify(connection, _noted(call))
        except BrokenChainError as error:
            raise ProblemError(409, f"the change log is not what was written: {error}") from None
    return Answer(HeadBody(number=head.number, hash=head.hash.hex()))


def _noted(call: Call[None]) -> Head | None:
    """The head that the manager noted earlier. Raises ProblemError."""
    if not {"number", "hash"} & call.query.keys():
        return None
    number = whole_number(call.query, "number", 0, LARGEST)
    try:
        hash = bytes.fromhex(call.query.get("hash", ""))
    except ValueError:
        hash = b""
    if len(hash) != _HASH_BYTES:
        raise ProblemError(400, "must be the hash of a noted head, 64 hex digits", "hash")
    return Head(number, hash)
