"""Keeps the event loop free for the hooks, and measures what holds it.

Every hook waits while the loop is held. Full garbage collections held it longest: they walk all
objects that are alive, most of which (modules, the policy) live until the program ends.
"""

import asyncio
import gc
from types import TracebackType
from typing import Any, Self

from headgate.core.clock import Clock
from headgate.core.metrics import Metrics

_YOUNG_OBJECTS = 10_000
"""New containers between two collections of the youngest generation: some hundred requests."""
_LOOK_EVERY_S = 0.1


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
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])
        gc.callbacks.append(self._on_collection)
        self._task = asyncio.create_task(self._watch(), name="loop lag")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        gc.callbacks.remove(self._on_collection)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            due_s = self._clock.monotonic_s() + _LOOK_EVERY_S
            await asyncio.sleep(_LOOK_EVERY_S)
            self._lag.observe(max(0.0, self._clock.monotonic_s() - due_s))

    def _on_collection(self, phase: str, info: dict[str, Any]) -> None:
        """Called by the collector before and after each collection (`gc.callbacks`)."""
        if phase == "start":
            self._began_s = self._clock.monotonic_s()
        else:
            pause_s = self._clock.monotonic_s() - self._began_s
            self._pauses[info["generation"]].observe(pause_s)
