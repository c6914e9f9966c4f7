"""How many requests each pod has in flight, at all replicas together. Pure.

A request begins at the replica that chooses its pod, and ends at the replica that gets its log
entry. So each replica only tells what it has seen, and the sum is right.

A request that is never told to end (its proxy died) is forgotten with its period (`KEPT_PERIODS`).
"""

from collections import Counter
from collections.abc import Callable, Mapping

PERIOD_S = 600.0
KEPT_PERIODS = 2
"""A request counts for 10 to 20 minutes at most. Longer streams are rare and hardly matter."""

Change = tuple[int, str]
"""A period, by the number of `PERIOD_S` since the Unix epoch, and a pod `IP:PORT`."""
Changes = Mapping[Change, int]
"""How many requests more, or less, have begun than ended: by the period in which they began."""


class PodLoads:
    """The counts of all replicas at the last exchange, and those of this one since then."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._told: dict[Change, int] = {}
        self._untold: Counter[Change] = Counter()
        self._loads: Counter[str] = Counter()
        self.is_used = False
        """Whether a request has begun or ended here, or anybody asked, since the last exchange."""

    def of(self, pod: str) -> int:
        """The requests in flight at a pod.

        A question, too, makes the next exchange needed: a replica that finds all pods full begins
        nothing, and another one hears of the ends.
        """
        self.is_used = True
        return max(0, self._loads[pod])

    def begin(self, pod: str) -> None:
        """A request goes to this pod."""
        self._count((self._period(self._now_s()), pod), 1)

    def end(self, pod: str, began_s: float) -> None:
        """A request that began at this Unix time has ended."""
        period = self._period(began_s)
        if period in self.periods():
            self._count((period, pod), -1)

    def periods(self) -> tuple[int, ...]:
        """The periods that count, the present one first."""
        now = self._period(self._now_s())
        return tuple(now - back for back in range(KEPT_PERIODS))

    def untold(self) -> Changes:
        """The changes that other replicas do not know yet."""
        self.is_used = False
        return {change: count for change, count in self._untold.items() if count}

    def learn(self, told: Changes, all_replicas: Changes) -> None:
        """Others know `told` now. `all_replicas` is the sum of what each has told."""
        self._untold.subtract(told)
        periods = self.periods()
        self._untold = Counter({each: count for each, count in self._untold.items() if count})
        self._told = {each: count for each, count in all_replicas.items() if each[0] in periods}
        self._loads = Counter()
        for counts in (self._told, self._untold):
            for (period, pod), count in counts.items():
                if period in periods:
                    self._loads[pod] += count

    def _count(self, change: Change, count: int) -> None:
        self.is_used = True
        self._untold[change] += count
        self._loads[change[1]] += count

    def _period(self, at_s: float) -> int:
        return int(at_s // PERIOD_S)
