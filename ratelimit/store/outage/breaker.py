"""Decides whether to ask a store that may be down. Pure, but for the type of a clock."""

from enum import StrEnum

from headgate.core.clock import Clock

FAILURES = 5
"""How many calls in a row fail before an outage begins."""

PROBE_EVERY_S = 0.25


class BreakerState(StrEnum):
    """Closed: calls go through. Open: no call does. Half open: one probe is running."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Closed until `failures` calls in a row have failed; then only a probe closes it again.

    Calls that began before it opened may end afterwards: they no longer change anything.
    """

    def __init__(
        self, clock: Clock, failures: int = FAILURES, probe_every_s: float = PROBE_EVERY_S
    ) -> None:
        self._clock = clock
        self._failures = failures
        self._probe_every_s = probe_every_s
        self._in_a_row = 0
        self._probe_at_s = 0.0
        self._state = BreakerState.CLOSED

    @property
    def state(self) -> BreakerState:
        return self._state

    @property
    def is_closed(self) -> bool:
        """Whether a call may be tried."""
        return self._state is BreakerState.CLOSED

    def answered(self) -> None:
        """A call was answered."""
        self._in_a_row = 0

    def failed(self) -> bool:
        """A call was not answered. True if this is what opens the breaker."""
        if self._state is not BreakerState.CLOSED:
            return False
        self._in_a_row += 1
        if self._in_a_row < self._failures:
            return False
        self._open()
        return True

    def take_probe(self) -> bool:
        """True for the one caller that must probe now; it then reports the result."""
        if self._state is not BreakerState.OPEN or self._clock.monotonic_s() < self._probe_at_s:
            return False
        self._state = BreakerState.HALF_OPEN
        return True

    def probe_answered(self) -> None:
        """The store is back."""
        self._in_a_row = 0
        self._state = BreakerState.CLOSED

    def probe_failed(self) -> None:
        """The store is still away: the next probe is due after a while."""
        self._open()

    def _open(self) -> None:
        self._state = BreakerState.OPEN
        self._probe_at_s = self._clock.monotonic_s() + self._probe_every_s
