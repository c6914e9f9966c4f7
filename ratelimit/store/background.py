"""The background task of a store."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("headgate.ratelimit")


class BackgroundTask:
    """Calls `tend` every `every_s` seconds until it is stopped.

    An error is logged as a failure of `name`, and the next round comes all the same.
    """

    def __init__(self, name: str, tend: Callable[[], Awaitable[None]], every_s: float) -> None:
        self._name = name
        self._tend = tend
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Returns when the task has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self._tend()
            except Exception:  # the next round may succeed, and without it nothing recovers
                log.exception("the background task of %s failed", self._name)
