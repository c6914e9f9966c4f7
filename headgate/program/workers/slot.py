"""The place of one worker: the process that has it now, and what its predecessors counted."""

import asyncio
import logging
import signal
from collections.abc import Sequence

from prometheus_client import Metric

from headgate.core.clock import Clock
from headgate.core.errors import OperatorError
from headgate.core.metrics import Metrics
from headgate.program.workers.merging import counts, merged
from headgate.program.workers.messages import Count, Numbers, Setup
from headgate.program.workers.process import WorkerProcess
from headgate.program.workers.restarts import Backoff

log = logging.getLogger("headgate.workers")

_LOOK_EVERY_S = 5.0
_ALIVE_WITHIN_S = 20.0
"""A worker that answers nothing for so long is killed: calls of every proxy may hang in it."""


class Slot:
    """Keeps one worker running. `setup` is what the next process gets."""

    def __init__(self, setup: Setup, record_lock: int, clock: Clock, metrics: Metrics) -> None:
        self.setup = setup
        self.worker: WorkerProcess | None = None
        self._record_lock = record_lock
        self._clock = clock
        self._metrics = metrics
        self._started_s = 0.0
        self._numbers = Numbers()
        self._gone = Numbers()

    async def start(self) -> None:
        """Returns once the worker answers hooks. Raises OperatorError when it does not start."""
        self._started_s = self._clock.monotonic_s()
        self.worker = await WorkerProcess.start(self.setup, self._record_lock)
        self._metrics.workers.inc()

    async def keep(self) -> None:
        """Starts a worker that has ended again, for ever, with a growing pause."""
        backoff = Backoff()
        while True:
            how = await self._ended()
            pause_s = backoff.pause_s(self._clock.monotonic_s() - self._started_s)
            while True:
                self._metrics.worker_ends.inc()
                log.error(
                    "worker %d %s; another one starts in %g s", self.setup.number, how, pause_s
                )
                await asyncio.sleep(pause_s)
                try:
                    await self.start()
                    break
                except OperatorError as error:
                    how, pause_s = f"cannot start: {error}", backoff.pause_s(0.0)

    async def watch(self) -> None:
        """Asks the worker for its numbers now and then, and kills it if it does not answer."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            worker = self.worker
            if worker is None:
                continue
            try:
                await self._count(worker, _ALIVE_WITHIN_S)
            except TimeoutError:
                log.error(
                    "worker %d has not answered for %g s and is killed",
                    self.setup.number,
                    _ALIVE_WITHIN_S,
                )
                worker.kill()

    async def ask(self, message: object, within_s: float) -> None:
        """Tells the worker something, if there is one. It may be too busy to hear it in time."""
        if self.worker is not None:
            try:
                await self.worker.ask(message, within_s)
            except TimeoutError:
                log.error("worker %d does not answer", self.setup.number)

    async def count(self, within_s: float) -> None:
        """Asks for new numbers; without an answer the last ones stay."""
        if self.worker is not None:
            try:
                await self._count(self.worker, within_s)
            except TimeoutError:
                return

    @property
    def families(self) -> Sequence[Sequence[Metric]]:
        """The last metrics of the worker, and the counts of those before it."""
        return self._numbers.families, self._gone.families

    @property
    def handled_entries(self) -> int:
        """The access log entries that this worker and those before it have settled."""
        return self._numbers.handled_entries + self._gone.handled_entries

    async def stop(self, grace_s: float) -> None:
        """Drains the worker, and kills it if it still runs after `grace_s`."""
        if self.worker is not None:
            await self.worker.stop(grace_s)
            self._lose_worker()

    async def _ended(self) -> str:
        """Waits for the end of the worker and says how it came."""
        if self.worker is None:
            return "is gone"
        code = await self.worker.ended()
        self._lose_worker()
        if code >= 0:
            return f"ended with exit code {code}"
        return f"was killed by {signal.Signals(-code).name}"

    def _lose_worker(self) -> None:
        self.worker = None
        self._metrics.workers.dec()
        kept = merged((self._gone.families, counts(self._numbers.families)), {})
        self._gone = Numbers(kept, self.handled_entries)
        self._numbers = Numbers()

    async def _count(self, worker: WorkerProcess, within_s: float) -> None:
        numbers = await worker.ask(Count(), within_s)
        if numbers is not None and worker is self.worker:
            self._numbers = numbers
