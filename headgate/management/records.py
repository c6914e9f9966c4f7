"""The bodies of the management API, as JSON. The OpenAPI document is made from them."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from headgate.core.policy import Count, Limit, Per, Smooth, Tenant, Windowed
from headgate.identity.keys import Key, KeyRequest
from headgate.identity.limits import KeyLimit
from headgate.identity.read_log import LoggedChange
from headgate.identity.users import Revocation, User
from headgate.management.fields import Labels, LimitNumber, Models, Overlap, UserName


class Input(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A body that a client sends. A field that is not known is refused."""


class Output(msgspec.Struct, kw_only=True):
    """A body that a client gets. Later versions may add fields."""


class KeyLimitBody(Input):
    """A limit of one key. `concurrent` has no `per`; cost is in 1e-9 of the currency."""

    count: Count
    limit: LimitNumber
    per: Per | None = None


class NewKey(Input):
    """A key to issue. Without `models` it may use all of the tenant's."""

    user: UserName
    models: Models | None = None
    limits: list[KeyLimitBody] = []
    labels: Labels = {}
    expires_at: datetime | None = None

    def request(self, tenant: str) -> KeyRequest:
        """The request for a key of this tenant."""
        return KeyRequest(
            tenant=tenant,
            user=self.user,
            models=_models(self.models),
            limits=_limits(self.limits),
            labels=self.labels,
            expires_s=_end(self.expires_at),
        )


class KeyEdit(Input):
    """An edit of a key. A field that is left out stays; null is no end, or all of the models."""

    models: Models | msgspec.UnsetType | None = msgspec.UNSET
    limits: list[KeyLimitBody] | msgspec.UnsetType = msgspec.UNSET
    labels: Labels | msgspec.UnsetType = msgspec.UNSET
    expires_at: datetime | msgspec.UnsetType | None = msgspec.UNSET

    def of(self, old: KeyRequest) -> KeyRequest:
        """The request with what is changed. Raises ValueError for a time without a zone."""
        end = self.expires_at
        return replace(
            old,
            models=old.models if self.models is msgspec.UNSET else _models(self.models),
            limits=old.limits if self.limits is msgspec.UNSET else _limits(self.limits),
            labels=old.labels if self.labels is msgspec.UNSET else self.labels,
            expires_s=old.expires_s if end is msgspec.UNSET else _end(end),
        )


class Rotation(Input):
    """How long the older secrets of a key go on, in seconds."""

    overlap_s: Overlap = 0.0


class KeyBody(Output):
    """A key at run time, without its secret."""

    id: str
    tenant: str
    user: str
    models: list[str] | None
    limits: list[KeyLimitBody]
    labels: dict[str, str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    is_live: bool


class IssuedKeyBody(Output):
    """A key with its new secret, shown once: null if its Idempotency-Key repeats an issue."""

    key: KeyBody
    secret: str | None


class TenantBody(Output):
    """A tenant of the policy file."""

    name: str
    models: list[str]
    timezone: str
    role: str


class LimitBody(Output):
    """A limit in force. The unit of `limit` is that of `count`; for cost, 1e-9 of the currency."""

    id: str
    count: Count
    limit: int
    per: Per | None
    burst: int | None
    each: list[str]
    users: list[str]
    models: list[str]
    shadow: bool
    on_outage: str
    notify: list[str]


class UserBody(Output):
    """A user who has a key, of the policy file or at run time, or who is blocked.

    `display_name` is as their token said it last, and null if that is not known.
    """

    name: str
    display_name: str | None = None
    blocked_at: datetime | None = None


class NewRevocation(Input):
    """Tokens that shall no longer count.

    With `user`, all of that user's tokens, or those issued before `issued_before`. With `issuer`
    (its name in the policy) and `token_id`, the token with this `jti`.
    """

    user: str | None = None
    issued_before: datetime | None = None
    issuer: str | None = None
    token_id: str | None = None


class RevocationBody(Output):
    """Tokens that no longer count, until `lifted_at`."""

    id: int
    issuer: str
    user: str | None
    token_id: str | None
    issued_before: datetime | None
    created_at: datetime
    lifted_at: datetime | None


class ChangeBody(Output):
    """A row of the change log."""

    number: int
    at: datetime
    actor: str
    origin: str
    action: str
    object: str
    user: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    hash: str


class HeadBody(Output):
    """The newest change of a log that is whole. Note it outside the database."""

    number: int
    hash: str


class Problem(Output):
    """An error, as `application/problem+json` (RFC 9457)."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    field: str | None = None


def seconds(time: datetime) -> float:
    """The time in seconds since the Unix epoch. Raises ValueError without a time zone."""
    if time.tzinfo is None:
        raise ValueError("a time needs its zone, for example 2027-01-31T18:00:00Z")
    return time.timestamp()


def key_body(key: Key, now_s: float) -> KeyBody:
    """A key for its reader."""
    request = key.request
    return KeyBody(
        id=key.id,
        tenant=request.tenant,
        user=request.user,
        models=None if request.models is None else sorted(request.models),
        limits=[KeyLimitBody(count=x.count, limit=x.limit, per=x.per) for x in request.limits],
        labels=dict(request.labels),
        created_at=_time(key.created_s),
        expires_at=_perhaps(request.expires_s),
        revoked_at=_perhaps(key.revoked_s),
        last_used_at=_perhaps(key.last_used_s),
        is_live=key.is_live(now_s),
    )


def tenant_body(tenant: Tenant, role: str) -> TenantBody:
    """A tenant, for a manager with this role in it."""
    models, zone = sorted(tenant.models), str(tenant.calendar.timezone)
    return TenantBody(name=tenant.name, models=models, timezone=zone, role=role)


def limit_body(limit: Limit) -> LimitBody:
    """A limit of a tenant."""
    shape = limit.shape
    return LimitBody(
        id=limit.id,
        count=limit.count,
        limit=limit.limit,
        per=shape.per if isinstance(shape, Windowed | Smooth) else None,
        burst=shape.burst if isinstance(shape, Smooth) else None,
        each=sorted(limit.each),
        users=sorted(limit.users),
        models=sorted(limit.models),
        shadow=limit.shadow,
        on_outage=limit.on_outage,
        notify=list(limit.notify),
    )


def user_body(user: User) -> UserBody:
    """A user, for those who manage their tenant."""
    display_name = user.display_name or None
    return UserBody(name=user.name, display_name=display_name, blocked_at=_perhaps(user.blocked_s))


def revocation_body(revocation: Revocation) -> RevocationBody:
    """A revocation, for its reader."""
    tokens = revocation.tokens
    return RevocationBody(
        id=revocation.id,
        issuer=tokens.issuer,
        user=tokens.user or None,
        token_id=tokens.token_id or None,
        issued_before=_perhaps(tokens.before_s),
        created_at=_time(revocation.created_s),
        lifted_at=_perhaps(revocation.lifted_s),
    )


def change_body(logged: LoggedChange) -> ChangeBody:
    """A change, for its reader."""
    change = logged.change
    return ChangeBody(
        number=change.number,
        at=_time(change.at_s),
        actor=logged.actor,
        origin=change.origin,
        action=change.action,
        object=change.object,
        user=logged.user,
        before=None if change.before is None else dict(change.before),
        after=None if change.after is None else dict(change.after),
        hash=logged.hash.hex(),
    )


def _models(models: list[str] | None) -> tuple[str, ...] | None:
    return None if models is None else tuple(sorted(set(models)))


def _limits(limits: list[KeyLimitBody]) -> tuple[KeyLimit, ...]:
    return tuple(KeyLimit(one.count, one.limit, one.per) for one in limits)


def _end(time: datetime | None) -> float | None:
    return None if time is None else seconds(time)


def _time(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)


def _perhaps(at_s: float | None) -> datetime | None:
    return None if at_s is None else _time(at_s)
