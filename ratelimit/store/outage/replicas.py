"""How many replicas share the limits, as this one knows. Pure, but for the type of a clock."""

from headgate.core.clock import Clock

ANNOUNCE_EVERY_S = 5.0
LIFE_S = 15.0
"""A replica that has not announced itself for this long does not count."""


class LiveReplicas:
    """The last count that the store gave; before that, the operator's number.

    More replicas count at once: a share that is too small does less harm than one too large.
    Fewer count only after `LIFE_S` without a failure. A store that comes back, maybe empty,
    knows only the replicas that have announced themselves again.
    """

    def __init__(self, configured: int, clock: Clock) -> None:
        self._count = configured
        self._clock = clock
        self._fewer_since_s: float | None = None

    @property
    def count(self) -> int:
        return self._count

    def seen(self, count: int) -> None:
        """The store has given a count, this replica included."""
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
        """The store did not answer: the last count stays."""
        self._fewer_since_s = None
