"""Counters that drain, as the memory store keeps them. reserve.lua and settle.lua do the same.

All numbers are whole, and so exact: a drain is an amount for each millisecond.
"""

from dataclasses import dataclass
from heapq import heappop, heappush

from ratelimit.store.protocol import DRAINED_KEPT_S, MAX_COUNT, Demand

_Key = tuple[str, str]
"""The tenant, then the name of the bucket within it."""


@dataclass(frozen=True, slots=True)
class Level:
    """What is in a bucket at a time, in milliseconds since the epoch."""

    amount: int
    at_ms: int

    def drained(self, drain: int, now_ms: int) -> "Level":
        """The level now. A clock that steps back drains nothing, and nothing twice when it is
        right again: the level's time never goes back.
        """
        at_ms = max(self.at_ms, now_ms)
        return Level(max(0, self.amount - drain * (at_ms - self.at_ms)), at_ms)


def given_back(held: int, actual: int, drained: int) -> int:
    """How much of what was held to give back, where less was used and `drained` could drain since.

    As if nothing but this had been in the bucket: of the held, what cannot have drained yet,
    less what of the actual would still be there. A bucket that had held the actual from the start
    is never above the one that gives this back. Beside the held one it has drained alike, until
    it was empty; the gap between the two only closes while the one is empty and the other is not,
    and all else that was in both, or came in, has let it be empty for a shorter time.
    """
    return max(0, held - drained) - max(0, actual - drained)


@dataclass(slots=True)
class _Bucket:
    level: Level
    until_ms: int


class Buckets:
    """The buckets of one process."""

    def __init__(self) -> None:
        self._buckets: dict[_Key, _Bucket] = {}
        self._expiring: list[tuple[int, _Key]] = []

    def __len__(self) -> int:
        return len(self._buckets) + len(self._expiring)

    def level(self, key: _Key, drain: int, now_ms: int) -> Level:
        """What is in it now; nothing where there is none."""
        bucket = self._buckets.get(key)
        return Level(0, now_ms) if bucket is None else bucket.level.drained(drain, now_ms)

    def fill(self, key: _Key, demand: Demand, now_ms: int) -> int:
        """Adds the demand's amount; returns the time of the level that it was added to."""
        level = self.level(key, demand.drain, now_ms)
        self._set(key, Level(level.amount + demand.amount, level.at_ms), demand.drain)
        return level.at_ms

    def settle(self, key: _Key, demand: Demand, filled_ms: int, actual: int, now_ms: int) -> int:
        """Replaces the demand's amount by the actual one; returns what is in the bucket then.

        Both times are the bucket's own, so that no clock drains what no clock has drained. What
        was used beyond the amount is added in full, to a new bucket if it has been forgotten.
        """
        level = self.level(key, demand.drain, now_ms)
        more = actual - demand.amount
        if more < 0:
            drained = demand.drain * max(0, level.at_ms - filled_ms)
            more = -given_back(demand.amount, actual, drained)
        amount = max(0, level.amount + more)
        if key in self._buckets or amount:
            self._set(key, Level(amount, level.at_ms), demand.drain)
        return min(MAX_COUNT, amount)

    def clean(self, now_ms: int, most: int) -> None:
        """Forgets up to `most` of those that have drained."""
        for _ in range(most):
            if not self._expiring or self._expiring[0][0] > now_ms:
                break
            _, key = heappop(self._expiring)
            until_ms = self._buckets[key].until_ms
            if until_ms > now_ms:  # it was filled again since
                heappush(self._expiring, (until_ms, key))
            else:
                del self._buckets[key]

    def _set(self, key: _Key, level: Level, drain: int) -> None:
        level = Level(min(MAX_COUNT, level.amount), level.at_ms)
        until_ms = level.at_ms - (-level.amount // drain) + DRAINED_KEPT_S * 1000
        if key not in self._buckets:
            heappush(self._expiring, (until_ms, key))
        self._buckets[key] = _Bucket(level, until_ms)
