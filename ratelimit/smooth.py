"""Smooth limits: a bucket of `burst` units that refills evenly, `limit` for each `per`. Pure.

A store counts a smooth limit in drops. A unit (one request, one token) is as many drops as its
period has milliseconds; so `limit` drops drain in each millisecond, and all numbers stay whole
and exact. Of a limit with windows a drop is a unit.
"""

from dataclasses import dataclass

from headgate.core.policy import Limit, Per, Smooth
from ratelimit.store.protocol import to_ms

_PERIODS_MS = {Per.SECOND: 1000, Per.MINUTE: 60_000, Per.HOUR: 3_600_000}


def drops_per_unit(limit: Limit) -> int:
    """How many drops a store counts for one unit of the limit."""
    return _PERIODS_MS[limit.shape.per] if isinstance(limit.shape, Smooth) else 1


def drain_of(limit: Limit) -> int:
    """How many drops drain in each millisecond; 0 for a limit that is not smooth."""
    return limit.limit if isinstance(limit.shape, Smooth) else 0


def used_units(limit: Limit, used: int) -> int:
    """What a store has in use, in units: a part of one counts as a whole one."""
    return -(-used // drops_per_unit(limit))


def remaining_units(limit: Limit, used: int) -> int:
    """What is left of the limit, in whole units: never below 0."""
    return max(0, limit.capacity - used_units(limit, used))


@dataclass(frozen=True, slots=True)
class Refill:
    """A bucket with so many drops in use at a time: when it has room again."""

    limit: Limit
    used: int
    now_s: float

    def full_at_s(self) -> float:
        """When nothing of it is in use any more."""
        return self._drained_at_s(self.used)

    def fits_at_s(self, amount: int) -> float:
        """When so many drops more have room, if nobody else takes it."""
        room = self.limit.capacity * drops_per_unit(self.limit)
        return self._drained_at_s(self.used + amount - room)

    def _drained_at_s(self, drops: int) -> float:
        """The first millisecond at which so many drops have drained."""
        return (to_ms(self.now_s) - (-max(0, drops) // self.limit.limit)) / 1000
