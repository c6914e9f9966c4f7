"""The end of one Envoy: let requests finish, cut the rest, and wait for their records.

Envoy's own end (SIGTERM) would drop the access log entries that it has not sent yet, and streams
that it cuts then would leave none. So everything is logged before Envoy gets the signal.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx

from headgate.dataplane.bootstrap import close_door
from headgate.dataplane.box import OneBox
from headgate.dataplane.envoy_admin import EnvoyAdmin
from headgate.dataplane.listener import ACCESS_LOG_INTERVAL, LISTENER

POLL_S = 0.05
CLOSE_WITHIN_S = 2.0
"""How long Envoy may take to close its listener with all streams. Measured: a few milliseconds."""
LOGGED_WITHIN_S = 5.0
"""How long the services may take to record and settle the requests that have ended."""
_ACTIVE = f"http.{LISTENER}.downstream_rq_active"
_WRITTEN = "access_logs.grpc_access_log.logs_written"
_REMOVED = "listener_manager.listener_removed"
_DRAINING = "listener_manager.total_listeners_draining"


@dataclass(frozen=True, slots=True)
class Drain:
    """How requests in flight end.

    They get at most `within_s`, or until `hurry` is set. `recorded` returns how many access log
    entries the services have recorded and settled; without it nobody waits for them.
    """

    within_s: float
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    recorded: Callable[[], Awaitable[int]] | None = None


async def drain(box: OneBox, admin: EnvoyAdmin, how: Drain) -> None:
    """Takes no new connection, lets requests end, cuts the others, and waits for their records.

    Connections that stay open are told to close after their next answer. Raises nothing if Envoy
    is gone.
    """
    with contextlib.suppress(httpx.HTTPError):
        await admin.stop_listening()
        if not await poll(lambda: _idle_or_hurried(admin, how), how.within_s) or how.hurry.is_set():
            close_door(box)
            await poll(lambda: _is_closed(admin), CLOSE_WITHIN_S)
        if how.recorded is not None:
            await _until_recorded(admin, how.recorded)


async def active_requests(admin: EnvoyAdmin) -> int:
    """The number of requests that clients wait for. May raise httpx.HTTPError."""
    return (await admin.numbers([_ACTIVE]))[_ACTIVE]


async def poll(check: Callable[[], Awaitable[bool]], within_s: float) -> bool:
    """Repeats the check until it is true or the time is over; returns whether it was true."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + within_s
    while not await _is_true(check):
        if loop.time() >= deadline_s:
            return False
        await asyncio.sleep(POLL_S)
    return True


async def _is_true(check: Callable[[], Awaitable[bool]]) -> bool:
    """A busy Envoy that does not answer in time is asked again."""
    try:
        return await check()
    except httpx.TimeoutException:
        return False


async def _idle_or_hurried(admin: EnvoyAdmin, how: Drain) -> bool:
    return how.hurry.is_set() or await active_requests(admin) == 0


async def _is_closed(admin: EnvoyAdmin) -> bool:
    numbers = await admin.numbers([_REMOVED, _DRAINING])
    return numbers[_REMOVED] > 0 and numbers[_DRAINING] == 0


async def _until_recorded(admin: EnvoyAdmin, recorded: Callable[[], Awaitable[int]]) -> None:
    """Envoy counts an entry when it queues it, and sends its queue every ACCESS_LOG_INTERVAL."""
    written = (await admin.numbers([_WRITTEN]))[_WRITTEN]

    async def is_recorded() -> bool:
        return await recorded() >= written

    await poll(is_recorded, ACCESS_LOG_INTERVAL.total_seconds() + LOGGED_WITHIN_S)
