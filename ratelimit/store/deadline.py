"""The deadline of one call to the store."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

_LAST_LOOKS = 3
_LATE_S = 0.005
"""A timer that runs later than this was held up by work of this process."""


class Deadline:
    """Calls `expire` after `seconds`, not counting the time in which this process was busy.

    If this process was busy for longer than the deadline, timer and answer are both due. A few
    more rounds of the loop let the answer win. A timer that runs late shows how long the process
    was busy. The call gets that time again, in all at most as much as the deadline.
    """

    __slots__ = ("_due_s", "_expire", "_loop", "_spare_s", "_timer")

    def __init__(self, seconds: float, expire: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._expire = expire
        self._wait(seconds, spare_s=seconds)

    def cancel(self) -> None:
        """The answer has come."""
        self._timer.cancel()

    def _wait(self, seconds: float, spare_s: float) -> None:
        self._spare_s = spare_s
        self._due_s = self._loop.time() + seconds
        self._timer: asyncio.Handle = self._loop.call_later(seconds, self._at_end)

    def _at_end(self) -> None:
        late_s = min(self._loop.time() - self._due_s, self._spare_s)
        if late_s < _LATE_S:
            self._look(_LAST_LOOKS)
        else:
            self._wait(late_s, self._spare_s - late_s)

    def _look(self, rounds: int) -> None:
        if rounds:
            self._timer = self._loop.call_soon(self._look, rounds - 1)
        else:
            self._expire()


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Like asyncio.timeout, with a `Deadline`."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as bound:
        timer = Deadline(seconds, lambda: bound.reschedule(loop.time()))
        try:
            yield
        finally:
            timer.cancel()
