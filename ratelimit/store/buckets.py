"""Counters that drain, in the memory store. For Redis, bucket.lua and settle.lua do the same.

All numbers are whole, and so exact: a drain is an amount for each millisecond.
"""

from dataclasses import dataclass
from heapq import heappop, heappush

from ratelimit.store.protocol import DRAINED_KEPT_S, MAX_COUNT, Demand, TenantKey


@dataclass(frozen=True, slots=True)
class BucketLevel:
    """The content of a bucket at a time, in milliseconds since the epoch."""

    amount: int
    at_ms: int

    def drained(self, drain: int, now_ms: int) -> "BucketLevel":
        """The level now. A clock that steps back drains nothing, and nothing twice when it is
        right again: the level's time never goes back.
        """
        at_ms = max(self.at_ms, now_ms)
        return BucketLevel(max(0, self.amount - drain * (at_ms - self.at_ms)), at_ms)


def given_back(held: int, actual: int, drained: int) -> int:
    """How much of what was held to give back, where less was used and `drained` could drain since.

    It is calculated as if the bucket had held nothing else. Some of the held amount cannot have
    drained yet; some of the actual amount would still be there. The difference goes back.

    This never gives back too much. Compare the bucket with one that had held the actual amount
    from the start. Both drain alike until the second is empty; the gap between them closes only
    while the second is empty and the first is not. Everything else in both buckets, then or later,
    shortens that time. So the second is never above the first after it gives this back.
    """
    return max(0, held - drained) - max(0, actual - drained)


@dataclass(slots=True)
class _Bucket:
    level: BucketLevel
    until_ms: int


class Buckets:
    """The buckets of one process."""

    def __init__(self) -> None:
        self._buckets: dict[TenantKey, _Bucket] = {}
        self._expiring: list[tuple[int, TenantKey]] = []

    def __len__(self) -> int:
        return len(self._buckets) + len(self._expiring)

    def level(self, key: TenantKey, drain: int, now_ms: int) -> BucketLevel:
        """The level now; 0 where there is no bucket."""
        bucket = self._buckets.get(key)
        return BucketLevel(0, now_ms) if bucket is None else bucket.level.drained(drain, now_ms)

    def fill(self, key: TenantKey, demand: Demand, now_ms: int) -> int:
        """Adds the demand's amount; returns the time of the level that it was added to."""
        level = self.level(key, demand.drain, now_ms)
        self._set(key, BucketLevel(level.amount + demand.amount, level.at_ms), demand.drain)
        return level.at_ms

    def settle(
        self, key: TenantKey, demand: Demand, filled_ms: int, actual: int, now_ms: int
    ) -> int:
        """Replaces the demand's amount by the actual one; returns what is in the bucket then.

        Both times are the bucket's own, so that no clock drains what no clock has drained. Use
        beyond the amount is added in full, to a new bucket if the old one has been forgotten.
        """
        level = self.level(key, demand.drain, now_ms)
        more = actual - demand.amount
        if more < 0:
            drained = demand.drain * max(0, level.at_ms - filled_ms)
            more = -given_back(demand.amount, actual, drained)
        amount = max(0, level.amount + more)
        if key in self._buckets or amount:
            self._set(key, BucketLevel(amount, level.at_ms), demand.drain)
        return min(MAX_COUNT, amount)

    def clean(self, now_ms: int, most: int) -> None:
        """Forgets up to `most` buckets that have drained."""
        for _ in range(most):
            if not self._expiring or self._expiring[0][0] > now_ms:
                break
            _, key = heappop(self._expiring)
            until_ms = self._buckets[key].until_ms
            if until_ms > now_ms:  # it was filled again since
                heappush(self._expiring, (until_ms, key))
            else:
                del self._buckets[key]

    def _set(self, key: TenantKey, level: BucketLevel, drain: int) -> None:
        level = BucketLevel(min(MAX_COUNT, level.amount), level.at_ms)
        until_ms = level.at_ms - (-level.amount // drain) + DRAINED_KEPT_S * 1000
        if key not in self._buckets:
            heappush(self._expiring, (until_ms, key))
        self._buckets[key] = _Bucket(level, until_ms)
