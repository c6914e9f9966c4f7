"""Measures how long a hook takes for one answer."""

from headgate.core.clock import Clock
from headgate.core.loop_metrics import Spread


class HookTimer:
    """Measures one answer. A class, as a generator's context costs more than the measurement."""

    __slots__ = ("_clock", "_seconds", "_start_s")

    def __init__(self, seconds: Spread, clock: Clock) -> None:
        self._seconds = seconds
        self._clock = clock

    def __enter__(self) -> None:
        self._start_s = self._clock.monotonic_s()

    def __exit__(self, *_: object) -> None:
        self._seconds.observe(self._clock.monotonic_s() - self._start_s)
