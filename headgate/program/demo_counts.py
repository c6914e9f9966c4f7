"""The limits of the demo, counted as if its made-up requests had passed them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from headgate.core.clock import Clock
from headgate.core.policy import CompiledPolicy
from headgate.program.demo_month import demo_records
from ratelimit.demand import Claim, Subject, claims_of
from ratelimit.keys import CLOCK_SKEW_S
from ratelimit.store.hits import Hit
from ratelimit.store.protocol import Spent, Store

_CHARGED = ("usage", "partial")


async def count_demo_months(store: Store, clock: Clock, policy: CompiledPolicy) -> None:
    """Adds the charged requests of the windows that run now. A store of a new start has none."""
    now_s = clock.now_s()
    counts: dict[str, dict[str, tuple[Claim, int]]] = {}
    for record in demo_records(datetime.fromtimestamp(now_s, UTC), policy):
        if record.get("source") not in _CHARGED:
            continue
        of_tenant = counts.setdefault(record["tenant"], {})
        for claim in _claims(record, policy, now_s):
            _, before = of_tenant.get(claim.key, (claim, 0))
            of_tenant[claim.key] = claim, before + claim.weights.amount(_spent(record))
    for tenant, found in counts.items():
        hits = [
            Hit(key, amount, limit=None, expires_at_s=claim.window.end_s + CLOCK_SKEW_S)
            for key, (claim, amount) in found.items()
            if claim.window is not None
        ]
        await store.count(tenant, hits, now_s)


def _claims(record: Mapping[str, Any], policy: CompiledPolicy, now_s: float) -> list[Claim]:
    """The running windows that the request was in."""
    at_s = datetime.fromisoformat(record["time"]).timestamp()
    tenant = policy.tenants[record["tenant"]]
    subject = Subject(record["tenant"], record["user"], record["key"], record["model"])
    return [
        claim
        for claim in claims_of(tenant, subject, now_s)
        if claim.window is not None and claim.window.start_s <= at_s
    ]


def _spent(record: Mapping[str, Any]) -> Spent:
    prompt, cached = record["prompt_tokens"], record["cached_tokens"]
    output = record["completion_tokens"]
    return Spent(requests=1, input=prompt - cached, cached=cached, output=output)
