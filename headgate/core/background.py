"""A task that runs beside the calls, again and again, until its owner stops it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable


class BackgroundTask:
    """Calls `tend` every `every_s` seconds until it is stopped; the first time `at_once`, or later.

    An error is logged as a failure of `name`, and the next round comes all the same. Its owner may
    stop it before it was started, and again.
    """

    def __init__(
        self,
        name: str,
        tend: Callable[[], Awaitable[object]],
        every_s: float,
        log: logging.Logger,
        *,
        at_once: bool = False,
    ) -> None:
        self._name = name
        self._tend = tend
        self._every_s = every_s
        self._log = log
        self._at_once = at_once
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """Returns when the task has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        if not self._at_once:
            await asyncio.sleep(self._every_s)
        while True:
            try:
                await self._tend()
            except Exception:  # the next round may succeed, and without it nothing recovers
                self._log.exception("the background task of %s failed", self._name)
            await asyncio.sleep(self._every_s)
