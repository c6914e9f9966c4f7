"""The handler of the audit search: who asked for what, when, and what became of it."""

from collections.abc import Callable
from datetime import datetime
from ipaddress import ip_address
from typing import Any

import msgspec

from headgate.core.issuers import Role
from headgate.ledger.conditions import Condition, Scope
from headgate.ledger.places import BadPlaceError, Place
from headgate.ledger.search import place_of, search
from headgate.management.calls import Answer, Call, Page
from headgate.management.problems import ProblemError
from headgate.management.rights import has_role

FILTERS = (
    *("tenant", "user", "key", "model", "ip", "status", "refused_by", "request_id"),
    *("from", "to"),
)
_PAGE = ("after", "limit")
_MAX_CHARACTERS = 512
_STATUS_DIGITS = 3


async def search_usage(call: Call[None]) -> Answer:
    """A page of the ledger's records, the newest first.

    An operator searches all tenants. Everybody else searches one tenant in which they have a role,
    and with the role `user` they find their own requests alone.
    """
    scope, conditions = _wanted(call)
    limit = call.limit
    try:
        after = Place.read(call.after) if call.after else None
    except BadPlaceError:
        raise ProblemError(400, "must be the `next` of a page before", "after") from None
    async with call.desk.connect() as connection:
        lines = await search(connection, scope, conditions, after, limit)
    return Answer(Page(lines, place_of(lines[-1]).text() if len(lines) == limit else None))


def _wanted(call: Call[None]) -> tuple[Scope, list[Condition]]:
    if unknown := sorted(call.query.keys() - {*FILTERS, *_PAGE}):
        raise ProblemError(
            400, f"there is no such filter; there are {', '.join(FILTERS)}", unknown[0]
        )
    for name, value in call.query.items():
        if not 0 < len(value) <= _MAX_CHARACTERS or "\0" in value:
            raise ProblemError(400, f"must have 1 to {_MAX_CHARACTERS} characters, none NUL", name)
    tenant, user = _scope(call)
    values = {
        "tenant": tenant,
        "user": user,
        "key": call.query.get("key"),
        "model": call.query.get("model"),
        "ip": _read(call, "ip", ip_address, "must be an IP address"),
        "status": _read(call, "status", _status, "must be an HTTP status"),
        "limit": call.query.get("refused_by"),
        "id": call.query.get("request_id"),
        "since": _read(call, "from", _time, "must be a time such as 2026-10-01T00:00:00Z"),
        "until": _read(call, "to", _time, "must be a time such as 2026-11-01T00:00:00Z"),
    }
    found = [Condition(name, value) for name, value in values.items() if value is not None]
    return Scope(sees_all=True), found  # the conditions have the tenant and the user


def _scope(call: Call[None]) -> tuple[str | None, str | None]:
    """The tenant and the user to search, as far as the manager may. None is all."""
    manager, tenant, user = call.manager, call.query.get("tenant"), call.query.get("user")
    if manager.is_operator:
        return tenant, user
    if tenant is None:
        if len(manager.tenants) > 1:
            raise ProblemError(400, "You have roles in several tenants: name one.", "tenant")
        [tenant] = manager.tenants
    if has_role(manager, Role.FINANCE, tenant):
        return tenant, user
    if not has_role(manager, Role.USER, tenant):
        raise ProblemError(403, "This needs the role `user` in that tenant.")
    if user not in (None, manager.name):
        raise ProblemError(403, "The role `user` finds its own requests alone.")
    return tenant, manager.name


def _read(call: Call[None], name: str, read: Callable[[str], Any], rule: str) -> Any:
    """A value of the query; None without one. Raises ProblemError."""
    text = call.query.get(name)
    if text is None:
        return None
    try:
        return read(text)
    except (ValueError, OverflowError):
        raise ProblemError(400, rule, name) from None


def _status(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) == _STATUS_DIGITS):
        raise ValueError
    return int(text)


def _time(text: str) -> datetime:
    time = msgspec.convert(text, datetime)
    if time.tzinfo is None:
        raise ValueError
    return time
