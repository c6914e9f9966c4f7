"""Many tenants with many limits each, and the callers that meet them."""

import time
from collections.abc import Iterator
from dataclasses import replace
from zoneinfo import ZoneInfo, available_timezones

from headgate.core.policy import Calendar, CompiledPolicy, Tenant
from headgate.policy.load import parse_policy
from ratelimit.answers import ReserveRequest
from ratelimit.demand import Claim, Subject, claims_of

TENANTS = 10_000
LIMITS = 20
USERS = 5
COUNTERS_PER_TENANT = USERS * LIMITS
"""Each limit of `limits_yaml` counts each user apart."""
MODEL = "llama-8b"

_ZONES = 40
_LIMIT = 1_000_000_000
_START_S = 1_800_014_700.0
"""2027-01-15 12:05 UTC: no timezone has a midnight within half an hour of it."""

_EACH = ("user", "[user, model]", "[user, key]")
_PER = ("day", "week", "month", "year")
_COUNT = ("tokens", "requests")


class RunningClock:
    """Runs as fast as time does, from an instant after which no day ends for a while."""

    def __init__(self) -> None:
        self._begun_s = time.monotonic()

    def now_s(self) -> float:
        return _START_S + self.monotonic_s()

    def monotonic_s(self) -> float:
        return time.monotonic() - self._begun_s


def limits_yaml(limits: int, indent: str) -> str:
    """Limits that one request meets all at once, as a policy file has them."""
    lines = [
        f"{indent}- {{count: {count}, limit: {_LIMIT}, per: {per}, each: {each}}}\n"
        for each in _EACH
        for per in _PER
        for count in _COUNT
    ]
    return "".join(lines[:limits])


def policy_of(tenants: int, limits: int = LIMITS) -> CompiledPolicy:
    """A policy of tenants in 40 timezones."""
    text = (
        f"models: {{{MODEL}: {{upstream: 'http://127.0.0.1:8000', context_tokens: 8192}}}}\n"
        f"tenants:\n  one:\n    models: [{MODEL}]\n    limits:\n" + limits_yaml(limits, "    ")
    )
    policy = parse_policy(text.encode(), "bench")
    template = policy.tenants["one"]
    names = sorted(name for name in available_timezones() if "/" in name)
    zones = [ZoneInfo(name) for name in names[:: len(names) // _ZONES]]
    return replace(
        policy,
        tenants={
            tenant_name(number): replace(
                template, name=tenant_name(number), calendar=Calendar(zones[number % len(zones)])
            )
            for number in range(tenants)
        },
    )


def tenant_name(number: int) -> str:
    return f"tenant-{number:05}"


def request_of(number: int, tenant: int, user: int) -> ReserveRequest:
    """The request `number` of one user, for 100 tokens."""
    return ReserveRequest(
        reservation=f"{number:032x}",
        tenant=tenant_name(tenant),
        user=f"user-{user}",
        key=f"key-{user}",
        model=MODEL,
        api=None,
        tokens=100,
    )


def all_claims(
    policy: CompiledPolicy, tenants: int, now_s: float
) -> Iterator[tuple[Tenant, tuple[Claim, ...]]]:
    """The claims of each user of the first `tenants` tenants."""
    for tenant in range(tenants):
        of_tenant = policy.tenants[tenant_name(tenant)]
        for user in range(USERS):
            request = request_of(0, tenant, user)
            subject = Subject(request.tenant, request.user, request.key, request.model)
            yield of_tenant, claims_of(of_tenant, subject, now_s)
