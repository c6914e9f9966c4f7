"""Tenants and their keys. Each change of a key is a call of the management API."""

from datetime import datetime, time, timedelta
from typing import Any

from starlette.responses import RedirectResponse, Response

from headgate.console.visit import View, Visit, address
from headgate.core.issuers import Role
from headgate.core.policy import Count, Per
from headgate.identity.keys import KeyRuleError
from headgate.ledger.conditions import Condition
from headgate.ledger.sums import sums_by
from headgate.management.problems import ProblemError
from headgate.management.records import IssuedKeyBody, KeyBody, KeyLimitBody, NewKey, Rotation
from headgate.management.rights import has_role, owns
from headgate.policy import limit_text

OVERLAPS = (("86400", "24 hours"), ("604800", "7 days"), ("0", "Not at all, it has leaked"))
SOON = timedelta(days=14)
UNUSED = timedelta(days=90)
_KEYS, _ROTATE, _REVOKE = "/tenants/{tenant}/keys", "/keys/{key}/rotate", "/keys/{key}/revoke"
_FIELDS = ("tenant", "user", "models", "name", "expires", "tokens")


async def show(visit: Visit) -> View:
    """The tenants of the reader, and the keys of one of them."""
    tenants = visit.tenants
    chosen = visit.query("tenant") or (tenants[0] if tenants else "")
    month = [Condition("since", visit.now - timedelta(days=30))]
    async with visit.desk.connect() as connection:
        sums = {x["name"]: x for x in await sums_by(connection, visit.scope, month, "tenant")}
    keys, older = await _keys(visit, chosen) if chosen else ([], "")
    rows = [(name, visit.policy.tenants[name], sums.get(name)) for name in tenants]
    values = {
        "tenants": rows,
        "chosen": chosen,
        "keys": [(one, state_of(one, visit.now), _may_change(visit, one)) for one in keys],
        "older": older,
        "may_issue": has_role(visit.manager, Role.ADMIN, chosen),
        "sees_all": has_role(visit.manager, Role.FINANCE, chosen),
        "limits": [limit_text(x) for x in visit.policy.tenants[chosen].limits] if chosen else [],
        "limit_text": limit_text,
        "done": visit.query("done"),
    }
    return View("keys.html", values)


async def _keys(visit: Visit, tenant: str) -> tuple[list[KeyBody], str]:
    """A page of the tenant's keys that the reader may see, and the address of the next."""
    after = {"after": visit.query("after")} if visit.query("after") else {}
    page = (await visit.call("GET", _KEYS, tenant=tenant, **after)).body
    older = address("/keys", tenant=tenant, after=page.next) if page.next else ""
    return list(page.data), older


def state_of(key: KeyBody, now: datetime) -> tuple[str, str]:
    """The shape of a key's state, and the words for it."""
    if key.revoked_at is not None:
        return "bad", f"revoked {key.revoked_at:%-d %b %Y}"
    if key.expires_at is not None and key.expires_at <= now:
        return "off", "expired"
    if key.expires_at is not None and key.expires_at <= now + SOON:
        days = (key.expires_at - now).days
        return "warn", f"expires in {days} d" if days else "expires within a day"
    last = key.last_used_at or key.created_at
    if last < now - UNUSED:
        return "off", f"unused for {(now - last).days} d"
    return "ok", "works"


def _may_change(visit: Visit, key: KeyBody) -> bool:
    is_own = owns(visit.manager, key.tenant, key.user)
    return key.is_live and (has_role(visit.manager, Role.ADMIN, key.tenant) or is_own)


async def show_new(visit: Visit) -> View:
    """The form for a new key."""
    return _form(visit, {"tenant": visit.query("tenant")}, "", "")


async def issue(visit: Visit) -> View:
    """The new key with its secret, which is shown this once; or the form with what is wrong."""
    form = visit.form
    try:
        tenant = form.get("tenant", "")
        issued = (await visit.call("POST", _KEYS, _new_key(visit), tenant=tenant)).body
    except (KeyRuleError, ProblemError) as error:
        if isinstance(error, ProblemError) and error.status not in (400, 422):
            raise
        return _form(visit, form, str(error), error.field or "")
    return _issued(issued, "issued")


def _form(visit: Visit, form: Any, problem: str, field: str) -> View:
    values = {
        "form": {name: form.get(name, "") for name in _FIELDS},
        "tenants": visit.tenants_with(Role.ADMIN),
        "problem": problem,
        "field": field,
        "tomorrow": (visit.now + timedelta(days=1)).date().isoformat(),
    }
    return View("key/new.html", values, 422 if problem else 200)


def _new_key(visit: Visit) -> NewKey:
    """The key of the form. Raises ProblemError for a value that is none."""
    form = visit.form
    models = [x for x in form.get("models", "").replace(",", " ").split() if x]
    tokens = form.get("tokens", "").replace(",", "")
    if tokens and not (tokens.isascii() and tokens.isdigit() and len(tokens) <= 15):
        raise ProblemError(422, "must be a whole number of tokens, or empty", "tokens")
    limits = [KeyLimitBody(count=Count.TOKENS, limit=int(tokens), per=Per.DAY)] if tokens else []
    return NewKey(
        user=form.get("user", ""),
        models=models or None,
        limits=limits,
        labels={"name": form["name"]} if form.get("name") else {},
        expires_at=_end_of_day(visit, form.get("expires", "")),
    )


def _end_of_day(visit: Visit, text: str) -> datetime | None:
    """The end of a day in the reader's zone; None without one."""
    if not text:
        return None
    try:
        day = datetime.combine(datetime.fromisoformat(text).date(), time(), visit.choice.zone)
        return day + timedelta(days=1)
    except (ValueError, OverflowError):
        problem = "must be a day, such as 2027-11-26, or empty"
        raise ProblemError(422, problem, "expires_at") from None


async def show_rotate(visit: Visit) -> View:
    """The form for a new secret."""
    return View("key/rotate.html", {"key": await _key(visit), "overlaps": OVERLAPS})


async def rotate(visit: Visit) -> View:
    """The key with its new secret, which is shown this once."""
    overlap = visit.form.get("overlap", "")
    if overlap not in dict(OVERLAPS):
        raise ProblemError(422, "Choose for how long the old secret still works.")
    body = Rotation(overlap_s=float(overlap))
    issued = (await visit.call("POST", _ROTATE, body, key=_id(visit))).body
    return _issued(issued, "rotated")


async def show_revoke(visit: Visit) -> View:
    """The question before a key ends."""
    return View("key/revoke.html", {"key": await _key(visit)})


async def revoke(visit: Visit) -> Response:
    """Ends the key, and goes back to its tenant."""
    key = (await visit.call("POST", _REVOKE, key=_id(visit))).body
    return RedirectResponse(address("/keys", tenant=key.tenant, done="revoked"), 303)


async def _key(visit: Visit) -> KeyBody:
    """The key of the path, if the reader may change it. Raises ProblemError."""
    key = (await visit.call("GET", "/keys/{key}", key=_id(visit))).body
    if not _may_change(visit, key):
        problem = "This key has ended." if not key.is_live else "This needs the role `admin`."
        raise ProblemError(409 if not key.is_live else 403, problem)
    return key  # type: ignore[no-any-return]


def _id(visit: Visit) -> str:
    return str(visit.request.path_params["key"])


def _issued(issued: IssuedKeyBody, what: str) -> View:
    return View("key/issued.html", {"key": issued.key, "secret": issued.secret, "what": what})
