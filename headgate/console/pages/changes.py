"""The change log, the newest change first."""

from collections.abc import Mapping
from datetime import UTC, datetime

from headgate.console.visit import View, Visit, address
from headgate.core.issuers import Role
from headgate.identity.changes import Change
from headgate.identity.read_log import changes_before
from headgate.management.problems import ProblemError

ROWS = 50


async def show(visit: Visit) -> View:
    """The changes of one tenant, or of all for an operator."""
    allowed = visit.tenants_with(Role.FINANCE)
    tenant = visit.query("tenant") or ("" if visit.manager.is_operator else allowed[0])
    if tenant not in allowed and not (visit.manager.is_operator and not tenant):
        raise ProblemError(403, "This needs the role `finance` in that tenant.")
    async with visit.desk.connect() as connection:
        found = await changes_before(connection, _number(visit), ROWS + 1, tenant or None)
    older = ""
    if len(found) > ROWS:
        older = address("/changes", tenant=tenant, before=found[ROWS - 1].change.number)
    values = {
        "rows": [(one, time_of(one.change), differences(one.change)) for one in found[:ROWS]],
        "tenant": tenant,
        "tenants": allowed,
        "sees_all": visit.manager.is_operator,
        "older": older,
        "newest": address("/changes", tenant=tenant) if visit.query("before") else "",
    }
    return View("changes.html", values)


def time_of(change: Change) -> datetime:
    """The time of a change."""
    return datetime.fromtimestamp(change.at_s, UTC)


def _number(visit: Visit) -> int | None:
    text = visit.query("before")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ProblemError(400, "`before` is no number of a change. Begin again with the newest.")
    return int(text)


def differences(change: Change) -> list[tuple[str, str, str]]:
    """The fields that a change has changed: name, value before, and value behind."""
    before: Mapping[str, object] = change.before or {}
    after: Mapping[str, object] = change.after or {}
    names = sorted(name for name in {*before, *after} if name not in ("person", "version"))
    pairs = [(name, _text(before.get(name)), _text(after.get(name))) for name in names]
    return [(name, was, is_now) for name, was, is_now in pairs if was != is_now]


def _text(value: object) -> str:
    if value in (None, [], {}, ""):
        return "–"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    return str(value)
