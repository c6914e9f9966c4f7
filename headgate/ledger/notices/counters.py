"""The counters whose limits have thresholds. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from headgate.core.policy import CompiledPolicy, Each, Limit, Tenant
from ratelimit.demand import Subject, counter_of
from ratelimit.windows import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """A counter of a limit in its window. `key` is its name in the store.

    `user`, `key_id` and `model` are those that it counts alone; empty where it counts all.
    """

    tenant: str
    limit: Limit
    window: Window
    key: str
    user: str = ""
    key_id: str = ""
    model: str = ""


def tenants_with_each(policy: CompiledPolicy) -> list[str]:
    """The tenants some of whose thresholds are those of a user, a key or a model."""
    return [
        tenant.name
        for tenant in policy.tenants.values()
        if any(limit.notify and limit.each for limit in tenant.limits)
    ]


def has_notices(policy: CompiledPolicy) -> bool:
    """Whether the policy asks for any notice."""
    return any(
        tenant.notices.digest is not None or any(limit.notify for limit in tenant.limits)
        for tenant in policy.tenants.values()
    )


def counters_of(
    policy: CompiledPolicy, subjects: Iterable[Subject], now_s: float
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
        for limit in _met(known, subject):
            assert known is not None  # noqa: S101 - it has limits
            _add(found, known, limit, subject, now_s)
    return {tenant: list(counters.values()) for tenant, counters in found.items()}


def _met(tenant: Tenant | None, subject: Subject) -> Iterator[Limit]:
    for limit in () if tenant is None else tenant.limits:
        is_user = not limit.users or subject.user in limit.users
        is_model = not limit.models or subject.model in limit.models
        if limit.notify and limit.each and is_user and is_model:
            yield limit


def _add(
    found: dict[str, dict[str, Counter]],
    tenant: Tenant,
    limit: Limit,
    subject: Subject,
    now_s: float,
) -> None:
    key, window = counter_of(limit, tenant, subject, now_s)
    assert window is not None, "only limits with windows have thresholds"  # noqa: S101
    found.setdefault(tenant.name, {})[key] = Counter(
        tenant=tenant.name,
        limit=limit,
        window=window,
        key=key,
        user=subject.user if Each.USER in limit.each else "",
        key_id=subject.key if Each.KEY in limit.each else "",
        model=subject.model if Each.MODEL in limit.each else "",
    )
