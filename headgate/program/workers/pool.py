"""All workers: started together, configured alike, counted as one, and ended together."""

import asyncio
import os
import socket
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import reduce
from typing import IO, Any

from prometheus_client import CollectorRegistry

from headgate.core.metrics import Metrics
from headgate.core.policy import CompiledPolicy
from headgate.program.ending import Ending
from headgate.program.hooks import HookInputs
from headgate.program.series import GAUGE_MODES, gauge_of
from headgate.program.settings import LogLevel
from headgate.program.workers.acceptor import Acceptor
from headgate.program.workers.merging import RULES, Rule, merged, registry_of
from headgate.program.workers.messages import Configuration, LogFrom, Setup, StopAdmitting
from headgate.program.workers.slot import Slot
from ratelimit.descriptors.tree import Domains
from ratelimit.fullness import Fullness

_ANSWER_WITHIN_S = 2.0
_APPLY_WITHIN_S = 10.0
_END_GRACE_S = 5.0
"""What a worker may need beyond its drain; see `headgate.program.hook_server`."""


class Workers:
    """The workers of `setups`. Implements `Answering`.

    In one box each worker listens, so that Envoy gives calls to all of them in turn. Elsewhere this
    process listens for them. A restarted worker listens at the same place.
    """

    def __init__(self, setups: Sequence[Setup], inputs: HookInputs, ending: Ending) -> None:
        self._ending = ending
        self._metrics = inputs.metrics
        self._lock_file = _nameless_file()
        lock = self._lock_file.fileno()
        self._slots = [Slot(setup, lock, inputs.clock, inputs.metrics) for setup in setups]
        self._tasks: list[asyncio.Task[None]] = []
        self._acceptor: Acceptor | None = None
        if setups[0].takes_connections:
            self._acceptor = Acceptor(setups[0].settings.hooks, self._connections)

    @property
    def are_ready(self) -> bool:
        """Whether every worker answers hooks."""
        return all(slot.worker is not None for slot in self._slots)

    async def start(self) -> None:
        try:
            await self._start_all()
            if self._acceptor is not None:
                await self._acceptor.start()
        except BaseException:
            await self._each(lambda slot: slot.stop(0.0))
            self._lock_file.close()
            raise
        for slot in self._slots:
            self._begin(slot.keep())
            self._begin(slot.watch())
        if self._acceptor is None:
            self._begin(self._refuse_at_end())

    async def set_policy(self, policy: CompiledPolicy) -> None:
        """Workers that start later decide by it, too."""
        for slot in self._slots:
            slot.setup = replace(slot.setup, policy=policy)
        await self._configure()

    async def set_domains(self, domains: Domains) -> None:
        """Workers that start later decide by them, too."""
        for slot in self._slots:
            slot.setup = replace(slot.setup, domains=domains)
        await self._configure()

    def log_from(self, level: LogLevel) -> None:
        """Workers that start later log from it, too."""
        for slot in self._slots:
            settings = slot.setup.settings
            log = replace(settings.log, level=level)
            slot.setup = replace(slot.setup, settings=replace(settings, log=log))
        self._begin(self._each(lambda slot: slot.ask(LogFrom(level), _ANSWER_WITHIN_S)))

    async def registry(self) -> CollectorRegistry:
        """The metrics of this process and of all workers, as those of one program."""
        await self._count()
        workers = [families for slot in self._slots for families in slot.families]
        return registry_of(merged((self._metrics.registry.collect(), *workers), _rules()))

    def gauge(self, name: str) -> float:
        """As the workers last said it, which is some seconds ago."""
        values = [gauge_of(self._metrics.registry, name)]
        for families in (families for slot in self._slots for families in slot.families):
            values += [family.samples[0].value for family in families if family.name == name]
        return reduce(_rules()[name], values)

    async def handled_entries(self) -> int:
        """The access log entries that they have recorded and settled."""
        await self._count()
        return sum(slot.handled_entries for slot in self._slots)

    async def stop(self) -> None:
        """Drains all of them together. The second signal of the end hurries them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        hurrying = asyncio.create_task(self._hurry())
        await self._each(lambda slot: slot.stop(self._ending.drain_s + _END_GRACE_S))
        hurrying.cancel()
        if self._acceptor is not None:
            self._acceptor.stop()
        self._lock_file.close()

    async def _start_all(self) -> None:
        """Waits for all, so that none is left behind when one of them does not start."""
        starts = (slot.start() for slot in self._slots)
        for error in await asyncio.gather(*starts, return_exceptions=True):
            if error is not None:
                raise error

    async def _configure(self) -> None:
        setup = self._slots[0].setup
        configuration = Configuration(setup.policy, setup.domains)
        await self._each(lambda slot: slot.ask(configuration, _APPLY_WITHIN_S))

    async def _refuse_at_end(self) -> None:
        """One box has to refuse new requests while Envoy drains."""
        await self._ending.begun.wait()
        await self._each(lambda slot: slot.ask(StopAdmitting(), _ANSWER_WITHIN_S))

    def _connections(self) -> list[socket.socket]:
        """Where those workers that run take connections."""
        return [slot.worker.connections for slot in self._slots if slot.worker is not None]

    async def _hurry(self) -> None:
        await self._ending.hurry.wait()
        for slot in self._slots:
            if slot.worker is not None:
                slot.worker.terminate()

    async def _count(self) -> None:
        await self._each(lambda slot: slot.count(_ANSWER_WITHIN_S))

    async def _each(self, act: Callable[[Slot], Coroutine[Any, Any, None]]) -> None:
        await asyncio.gather(*(act(slot) for slot in self._slots))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))


def _rules() -> dict[str, Rule]:
    """By the name of each gauge how the values of several workers become one."""
    modes = {**Metrics.gauge_modes(), **GAUGE_MODES, **Fullness.GAUGE_MODES}
    return {name: RULES[mode] for name, mode in modes.items()}


def _nameless_file() -> IO[bytes]:
    """A file in memory where there is such a thing: a pod may have no file system to write to."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("headgate-records"), "w+b")
    return tempfile.TemporaryFile()
