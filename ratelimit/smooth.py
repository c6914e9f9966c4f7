"""Smooth limits: a bucket of `burst` units that refills evenly, `limit` for each `per`. Pure.

A store counts a smooth limit in drops. A unit (one request, one token) is as many drops as its
period has milliseconds; so `limit` drops drain in each millisecond, and all numbers stay whole
and exact. Of a limit with windows a drop is a unit.
"""

from dataclasses import dataclass

from headgate.core.policy import Limit, Per
from ratelimit.store.protocol import to_ms

_PERIODS_MS = {Per.SECOND: 1000, Per.MINUTE: 60_000, Per.HOUR: 3_600_000}


def drops_per_unit(limit: Limit) -> int:
    """In what a store counts the limit."""
    return 1 if limit.burst is None or limit.per is None else _PERIODS_MS[limit.per]


def drain_of(limit: Limit) -> int:
    """How many drops drain in each millisecond; 0 of a limit with windows."""
    return 0 if limit.burst is None else limit.limit


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
        return (to_ms(self.now_s) - (-max(0, drops) // drain_of(self.limit))) / 1000
