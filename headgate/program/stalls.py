"""Keeps the event loop free for the hooks, and measures what holds it.

Every hook waits while the loop is held. Full garbage collections held it longest: they walk all
objects that are alive, most of which (modules, the policy) live until the program ends.
"""

import gc
import logging
from types import TracebackType
from typing import Any, Self

from headgate.core.background import BackgroundTask
from headgate.core.clock import Clock
from headgate.core.metrics import Metrics

_YOUNG_OBJECTS = 10_000
"""New containers between two collections of the youngest generation: some hundred requests."""
_LOOK_EVERY_S = 0.1

log = logging.getLogger("headgate.stalls")


def spare_collections() -> None:
    """Takes all objects that are alive now out of later collections.

    Call it once the long-lived objects exist. Reference counts free them as before; only a cycle
    among them would stay, and the policy has none.
    """
    gc.freeze()


class StallWatch:
    """Measures how late the loop runs timers, and how long collections take.

    An asynchronous context manager: it measures while it is open.
    """

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._lag = metrics.loop_lag_seconds
        self._pauses = [metrics.gc_pause_seconds.labels(str(number)) for number in range(3)]
        self._began_s = 0.0
        self._due_s = 0.0
        self._task = BackgroundTask("the loop's lag", self._look, _LOOK_EVERY_S, log)

    async def __aenter__(self) -> Self:
        gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
        gc.callbacks.append(self._on_collection)
        self._due_s = self._clock.monotonic_s() + _LOOK_EVERY_S
        self._task.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        gc.callbacks.remove(self._on_collection)
        await self._task.stop()

    async def _look(self) -> None:
        now_s = self._clock.monotonic_s()
        self._lag.observe(max(0.0, now_s - self._due_s))
        self._due_s = now_s + _LOOK_EVERY_S

    def _on_collection(self, phase: str, info: dict[str, Any]) -> None:
        """Called by the collector before and after each collection (`gc.callbacks`)."""
        if phase == "start":
            self._began_s = self._clock.monotonic_s()
        else:
            pause_s = self._clock.monotonic_s() - self._began_s
            self._pauses[info["generation"]].observe(pause_s)
