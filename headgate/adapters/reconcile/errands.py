"""The actions that run now: at most one for each pod, beside the rounds, and how each ended."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from headgate.adapters.plan.values import Action, Load, Spot
from headgate.adapters.reconcile.act import ActError, Copying, PodActions
from headgate.adapters.reconcile.state import Registered
from headgate.core.adapter_metrics import AdapterMetrics
from headgate.core.adapter_pools import AdapterPool
from headgate.core.clock import Clock

LONGEST_DELAY_S = 60.0

log = logging.getLogger("headgate.adapters")


@dataclass(slots=True)
class _Trouble:
    """A load that failed: its error, how often, and when it is tried again."""

    error: str
    is_permanent: bool
    tries: int
    again_s: float


class Errands:
    """Starts actions, and keeps their errors until the same action succeeds."""

    def __init__(self, actions: PodActions, clock: Clock, metrics: AdapterMetrics) -> None:
        self._actions = actions
        self._clock = clock
        self._metrics = metrics
        self._running: dict[str, asyncio.Task[None]] = {}
        self._steps: dict[Spot, str] = {}
        self._troubles: dict[Spot, _Trouble] = {}
        self.ended = asyncio.Event()
        """Set when an action ends: it is time to look again."""

    def start(
        self, action: Action, registered: Mapping[str, Registered], pool: AdapterPool
    ) -> None:
        """Starts the action, unless another one runs on its pod."""
        spot = action.spot
        if spot.pod in self._running:
            return
        if isinstance(action, Load):
            work = self._load(spot, registered[spot.version].source, pool)
        else:
            work = self._unload(spot)
        self._running[spot.pod] = asyncio.create_task(work, name=f"adapter on {spot.pod}")

    def step_of(self, spot: Spot) -> str | None:
        """`copying` or `loading` while a load runs there."""
        return self._steps.get(spot)

    def error_of(self, spot: Spot) -> tuple[str, bool]:
        """The last error of a load there, and whether it is permanent; empty if there is none."""
        trouble = self._troubles.get(spot)
        return ("", False) if trouble is None else (trouble.error, trouble.is_permanent)

    def delayed(self) -> frozenset[Spot]:
        """Where a load is not tried again yet."""
        now_s = self._clock.monotonic_s()
        return frozenset(spot for spot, one in self._troubles.items() if now_s < one.again_s)

    def forget(self, spot: Spot) -> None:
        """Forgets what went wrong there."""
        self._troubles.pop(spot, None)

    async def stop(self) -> None:
        """Ends what runs. A pod may have got the call already: its list will say so."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _load(self, spot: Spot, source: str, pool: AdapterPool) -> None:
        result = "loaded"
        try:
            self._steps[spot] = "copying"
            await self._copied(spot, source, pool)
            self._steps[spot] = "loading"
            await self._actions.load(spot, f"{pool.folder}/{spot.version}")
            self.forget(spot)
        except ActError as error:
            result = "failed" if error.is_permanent else "delayed"
            self._note(spot, error)
        finally:
            self._steps.pop(spot, None)
            self._end(spot)
        self._metrics.loads.labels(result).inc()

    async def _copied(self, spot: Spot, source: str, pool: AdapterPool) -> None:
        """Returns once the files are there. The agent answers late while it still copies."""
        while isinstance(await self._actions.copy(spot, source, pool), Copying):
            pass

    async def _unload(self, spot: Spot) -> None:
        try:
            await self._actions.unload(spot)
            self._metrics.unloads.inc()
        except ActError as error:
            log.warning("%s cannot be unloaded from %s: %s", spot.version, spot.pod, error)
        finally:
            self._end(spot)

    def _note(self, spot: Spot, error: ActError) -> None:
        old = self._troubles.get(spot)
        tries = 1 if old is None else old.tries + 1
        delay_s = min(LONGEST_DELAY_S, 2.0**tries)
        again_s = self._clock.monotonic_s() + delay_s
        self._troubles[spot] = _Trouble(str(error), error.is_permanent, tries, again_s)
        log.warning("%s cannot be loaded on %s: %s", spot.version, spot.pod, error)

    def _end(self, spot: Spot) -> None:
        self._running.pop(spot.pod, None)
        self.ended.set()
