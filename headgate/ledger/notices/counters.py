"""The counters whose limits have thresholds. Pure.

A window of a second or a minute, a bucket and requests in flight come and go all day. For these a
threshold is decided once in a day of the tenant's calendar.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from headgate.core.key_ring import KeyRing, is_run_time
from headgate.core.notices import FORECAST
from headgate.core.policy import CompiledPolicy, Each, Limit, Per, Tenant, Windowed
from ratelimit.demand import Subject, counter_of
from ratelimit.windows import Window, window

SHORT = (Per.SECOND, Per.MINUTE)
"""The windows that are over before anybody has read a notice."""
LOOK_BACK_S = 15
"""Older than the look before. Stores keep a counter for a minute after its window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """A counter of a limit, or those of its last windows. `keys` are the names in the store.

    In `window` a threshold is decided once. `user`, `key_id` and `model` are those that it counts
    alone; empty where it counts all.
    """

    tenant: str
    limit: Limit
    window: Window
    keys: tuple[str, ...]
    user: str = ""
    key_id: str = ""
    model: str = ""

    @property
    def per(self) -> str:
        """The window of the limit; empty for a bucket and for requests in flight."""
        shape = self.limit.shape
        return shape.per if isinstance(shape, Windowed) else ""


def tenants_with_each(policy: CompiledPolicy) -> list[str]:
    """The tenants some of whose thresholds are those of a user, a key or a model."""
    return [
        tenant.name
        for tenant in policy.tenants.values()
        if tenant.notify_keys or any(limit.notify and limit.each for limit in tenant.limits)
    ]


def has_notices(policy: CompiledPolicy) -> bool:
    """Whether the policy asks for any notice."""
    return any(
        tenant.notices.digest is not None
        or tenant.notify_keys
        or any(limit.notify for limit in tenant.limits)
        for tenant in policy.tenants.values()
    )


def counters_of(
    policy: CompiledPolicy, subjects: Iterable[Subject], keys: KeyRing, now_s: float
) -> dict[str, list[Counter]]:
    """By tenant the counters to look at: those of whole tenants, and those that subjects met."""
    found: dict[str, dict[str, Counter]] = {}
    for tenant in policy.tenants.values():
        for limit in tenant.limits:
            if limit.notify and not limit.each:
                everybody = Subject(tenant.name, "", "", "")
                _add(found, tenant, limit, everybody, now_s)
    for subject in subjects:
        known = policy.tenants.get(subject.tenant)
        for limit in _met(known, subject, keys):
            assert known is not None  # noqa: S101 - it has limits
            _add(found, known, limit, subject, now_s)
    return {tenant: list(counters.values()) for tenant, counters in found.items()}


def _is_short(limit: Limit) -> bool:
    """Whether its windows are short ones."""
    return isinstance(limit.shape, Windowed) and limit.shape.per in SHORT


def _comes_and_goes(limit: Limit) -> bool:
    """Whether a threshold is decided once in a day: there is no longer window."""
    return not isinstance(limit.shape, Windowed) or _is_short(limit)


def _met(tenant: Tenant | None, subject: Subject, keys: KeyRing) -> Iterator[Limit]:
    for limit in () if tenant is None else (*tenant.limits, *_own(tenant, subject.key, keys)):
        is_user = not limit.users or subject.user in limit.users
        is_model = not limit.models or subject.model in limit.models
        if limit.notify and limit.each and is_user and is_model:
            yield limit


def _own(tenant: Tenant, key: str, keys: KeyRing) -> Iterator[Limit]:
    """The limits that a key at run time has of its own; none of a key that is not known here."""
    scope = keys.scope_of(key) if tenant.notify_keys and is_run_time(key) else None
    for limit in () if scope is None else scope.limits:
        percents = tuple(one for one in tenant.notify_keys if one != FORECAST)
        yield replace(limit, notify=percents if _comes_and_goes(limit) else tenant.notify_keys)


def _add(
    found: dict[str, dict[str, Counter]],
    tenant: Tenant,
    limit: Limit,
    subject: Subject,
    now_s: float,
) -> None:
    key, span = counter_of(limit, tenant, subject, now_s)
    keys = [key]
    if _is_short(limit):
        times_s = (now_s - back_s for back_s in range(LOOK_BACK_S + 1))
        keys = [counter_of(limit, tenant, subject, at_s)[0] for at_s in times_s]
        span = None
    found.setdefault(tenant.name, {})[key] = Counter(
        tenant=tenant.name,
        limit=limit,
        window=span or window(Per.DAY, tenant.calendar, now_s),
        keys=tuple(dict.fromkeys(keys)),
        user=subject.user if Each.USER in limit.each else "",
        key_id=subject.key if Each.KEY in limit.each else "",
        model=subject.model if Each.MODEL in limit.each else "",
    )
