"""Whether to ask a store that may be down. Pure: it is told what happened, and reads a clock."""

from enum import StrEnum

from headgate.core.clock import Clock

FAILURES = 5
"""Calls in a row that fail before the store counts as away."""

PROBE_EVERY_S = 0.25


class State(StrEnum):
    """Closed: calls go through. Open: none does. Half open: one probe is on its way."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Closed until `failures` calls in a row have failed; then only a probe closes it again.

    Calls that began before it opened may still end afterwards: they change nothing any more.
    """

    def __init__(
        self, clock: Clock, failures: int = FAILURES, probe_every_s: float = PROBE_EVERY_S
    ) -> None:
        self._clock = clock
        self._failures = failures
        self._probe_every_s = probe_every_s
        self._in_a_row = 0
        self._probe_at_s = 0.0
        self._state = State.CLOSED

    @property
    def state(self) -> State:
        return self._state

    @property
    def is_closed(self) -> bool:
        """Whether a call may be tried."""
        return self._state is State.CLOSED

    def answered(self) -> None:
        """A call was answered."""
        self._in_a_row = 0

    def failed(self) -> bool:
        """A call was not answered. True if this is what opens the breaker."""
        if self._state is not State.CLOSED:
            return False
        self._in_a_row += 1
        if self._in_a_row < self._failures:
            return False
        self._open()
        return True

    def take_probe(self) -> bool:
        """True for the one caller who is to probe now, and who then reports how it went."""
        if self._state is not State.OPEN or self._clock.monotonic_s() < self._probe_at_s:
            return False
        self._state = State.HALF_OPEN
        return True

    def probe_answered(self) -> None:
        """The store is back."""
        self._in_a_row = 0
        self._state = State.CLOSED

    def probe_failed(self) -> None:
        """The store is still away: the next probe is due after a while."""
        self._open()

    def _open(self) -> None:
        self._state = State.OPEN
        self._probe_at_s = self._clock.monotonic_s() + self._probe_every_s
