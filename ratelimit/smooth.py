"""Smooth limits: a bucket of `burst` units that refills evenly, `limit` for each `per`. Pure.

A store counts a smooth limit in drops. A unit (one request or one token) has as many drops as the
period has milliseconds. So `limit` drops drain in each millisecond, and all numbers are whole and
exact. For a limit with windows, a drop is a unit.
"""

from dataclasses import dataclass

from headgate.core.policy import Limit, Per, Smooth
from ratelimit.store.protocol import to_ms

_PERIODS_MS = {Per.SECOND: 1000, Per.MINUTE: 60_000, Per.HOUR: 3_600_000}


def drops_per_unit(limit: Limit) -> int:
    """The number of drops that a store counts for one unit of the limit."""
    return _PERIODS_MS[limit.shape.per] if isinstance(limit.shape, Smooth) else 1


def drain_of(limit: Limit) -> int:
    """The number of drops that drain in each millisecond; 0 for a limit that is not smooth."""
    return limit.limit if isinstance(limit.shape, Smooth) else 0


def used_units(limit: Limit, used: int) -> int:
    """The drops that a store has in use, in whole units and rounded up."""
    return -(-used // drops_per_unit(limit))


def remaining_units(limit: Limit, used: int) -> int:
    """The remaining units of the limit, rounded down and never below 0."""
    if not isinstance(limit.shape, Smooth):
        return max(0, limit.limit - used)
    return max(0, limit.capacity - used_units(limit, used))


@dataclass(frozen=True, slots=True)
class Refill:
    """The refill of a smooth limit's bucket that has `used` drops in use at `now_s`."""

    limit: Limit
    used: int
    now_s: float

    def full_at_s(self) -> float:
        """The time at which no drop is in use any more."""
        return self._drained_at_s(self.used)

    def fits_at_s(self, amount: int) -> float:
        """The time at which `amount` more drops fit, if no other request takes the room."""
        room = self.limit.capacity * drops_per_unit(self.limit)
        return self._drained_at_s(self.used + amount - room)

    def _drained_at_s(self, drops: int) -> float:
        """The first millisecond at which this number of drops has drained."""
        return (to_ms(self.now_s) - (-max(0, drops) // self.limit.limit)) / 1000
