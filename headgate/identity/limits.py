"""The limits that a key may have of its own."""

from dataclasses import dataclass
from functools import lru_cache

from headgate.core.policy import (
    Count,
    CountedRequests,
    Each,
    Limit,
    Measure,
    Per,
    PricedTokens,
    Slots,
    WeightedTokens,
    Windowed,
)

LARGEST = 2**53 - 1
"""The largest whole number that Redis' Lua and JSON carry exactly."""
_MEASURES: dict[Count, Measure] = {
    Count.TOKENS: WeightedTokens(),
    Count.REQUESTS: CountedRequests(),
    Count.COST: PricedTokens({}),
}


@dataclass(frozen=True, slots=True)
class KeyLimit:
    """At most `limit` of `count` in each window `per`, which `concurrent` has not.

    Cost is in nanos (1e-9 of the currency).
    """

    count: Count
    limit: int
    per: Per | None = None


def problem_of(limit: KeyLimit) -> str | None:
    """The mistake in a limit, as one clause; None if it has none."""
    if not 1 <= limit.limit <= LARGEST:
        return f"the limit {limit.limit} is not a whole number from 1 to {LARGEST}"
    if (limit.per is None) != (limit.count is Count.CONCURRENT):
        return "tokens, requests and cost need a `per`, and concurrent has none"
    return None


@lru_cache(maxsize=4_096)  # thousands of keys have the same few limits
def compiled(limit: KeyLimit) -> Limit:
    """The limit as the store counts it: each key has a counter of its own.

    A limit of cost gets its prices from the policy in force (`key_ring.tenant_of`).
    """
    parts = ["own", limit.count, *(() if limit.per is None else (limit.per,)), Each.KEY]
    return Limit(
        id=".".join(parts), limit=limit.limit, shape=_shape(limit), each=frozenset({Each.KEY})
    )


def _shape(limit: KeyLimit) -> Windowed | Slots:
    if limit.per is None:
        return Slots()
    return Windowed(limit.per, _MEASURES[limit.count])


def written(limit: Limit) -> KeyLimit:
    """The inverse of `compiled`."""
    per = limit.shape.per if isinstance(limit.shape, Windowed) else None
    return KeyLimit(limit.count, limit.limit, per)
