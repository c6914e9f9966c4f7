"""The only module that reads the machine's clock. All others are given a Clock."""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time. Tests pass one that they move by hand."""

    def now_s(self) -> float:
        """Wall clock, in seconds since the Unix epoch."""
        ...

    def monotonic_s(self) -> float:
        """A clock that never steps back, in seconds; only differences mean anything."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_s(self) -> float:
        return time.time()

    def monotonic_s(self) -> float:
        return time.perf_counter()
