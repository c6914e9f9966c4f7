"""The deadline of one call to the store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_LAST_LOOKS = 3
_LATE_S = 0.005
"""A timer that runs later than this was held up by work of this process."""


@asynccontextmanager
async def deadline(seconds: float) -> AsyncIterator[None]:
    """Like asyncio.timeout, but the time in which this process was busy does not count against it.

    If this process was busy for longer than the deadline, timer and answer are both due. A few
    more rounds of the loop let the answer win. A timer that runs late shows how long the process
    was busy. The call gets that time again, in all at most as much as the deadline.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.Handle
    async with asyncio.timeout(None) as bound:

        def expire(due_s: float, spare_s: float) -> None:
            late_s = min(loop.time() - due_s, spare_s)
            if late_s < _LATE_S:
                look(_LAST_LOOKS)
            else:
                wait(late_s, spare_s - late_s)

        def wait(wait_s: float, spare_s: float) -> None:
            nonlocal timer
            timer = loop.call_later(wait_s, expire, loop.time() + wait_s, spare_s)

        def look(rounds: int) -> None:
            nonlocal timer
            if rounds:
                timer = loop.call_soon(look, rounds - 1)
            else:
                bound.reschedule(loop.time())

        wait(seconds, seconds)
        try:
            yield
        finally:
            timer.cancel()
