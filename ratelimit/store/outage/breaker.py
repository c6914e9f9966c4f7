"""Decides whether to ask a store that may be down. Pure, but for the type of a clock."""

from enum import StrEnum

from headgate.core.clock import Clock

FAILURES = 5
"""How many calls, each begun after the failure before it, fail before an outage begins."""
SILENCE_S = 1.0
"""After two such failures an outage begins already, if the first of the calls began this long ago.
Requests wait meanwhile, and a hook must answer within 2 s."""

PROBE_EVERY_S = 0.25


class BreakerState(StrEnum):
    """Closed: calls go through. Open: no call does. Half open: one probe is running."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Closed until `failures` calls in a row have failed, or two calls that began long ago.

    Then only a probe closes it again. One stall of the store or of this machine makes all calls in
    flight fail together, and they count as one failure. So a call counts only if it began after the
    last answer and the last counted failure. Calls that began before the breaker opened no longer
    change anything.
    """

    def __init__(
        self, clock: Clock, failures: int = FAILURES, probe_every_s: float = PROBE_EVERY_S
    ) -> None:
        self._clock = clock
        self._failures = failures
        self._probe_every_s = probe_every_s
        self._in_a_row = 0
        self._counts_from_s = float("-inf")
        self._silent_since_s = 0.0
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
        self._counts_from_s = self._clock.monotonic_s()

    def failed(self, began_s: float) -> bool:
        """A call was not answered that began then, by `Clock.monotonic_s`. True if it opens."""
        if self._state is not BreakerState.CLOSED or began_s < self._counts_from_s:
            return False
        self._counts_from_s = self._clock.monotonic_s()
        if not self._in_a_row:
            self._silent_since_s = began_s
        self._in_a_row += 1
        is_silent = self._counts_from_s - self._silent_since_s >= SILENCE_S
        if self._in_a_row < (min(2, self._failures) if is_silent else self._failures):
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
        self.answered()
        self._state = BreakerState.CLOSED

    def probe_failed(self) -> None:
        """The store is still away: the next probe is due after a while."""
        self._open()

    def _open(self) -> None:
        self._state = BreakerState.OPEN
        self._probe_at_s = self._clock.monotonic_s() + self._probe_every_s
