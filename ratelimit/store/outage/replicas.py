"""How many replicas share the limits, as far as this one knows. Pure, but for a clock."""

from headgate.core.clock import Clock

ANNOUNCE_EVERY_S = 5.0
LIFE_S = 15.0
"""A replica that has not announced itself for this long does not count."""


class LiveReplicas:
    """The last count seen in the store; until then, what the operator says.

    More replicas count at once: a share that is too small harms less than one too large.
    Fewer are believed only after `LIFE_S` without a failure, because a store that comes back,
    maybe empty, knows only those who have announced themselves again.
    """

    def __init__(self, configured: int, clock: Clock) -> None:
        self._count = configured
        self._clock = clock
        self._fewer_since_s: float | None = None

    @property
    def count(self) -> int:
        return self._count

    def seen(self, count: int) -> None:
        """The store has told a count, this replica included."""
        count = max(1, count)
        now_s = self._clock.monotonic_s()
        if count >= self._count:
            self._count = count
            self._fewer_since_s = None
        elif self._fewer_since_s is None:
            self._fewer_since_s = now_s
        elif now_s - self._fewer_since_s >= LIFE_S:
            self._count = count
            self._fewer_since_s = None

    def lost(self) -> None:
        """The store did not answer: the last count stands."""
        self._fewer_since_s = None
