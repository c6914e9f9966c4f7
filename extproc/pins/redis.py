"""Pins that replicas share: in Redis, with those that this replica knows in front of it.

A conversation costs a round trip when a replica first meets it, and one for each tenth of the time
that pins are kept, to keep it. While Redis is away one request a second waits for its deadline.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib.resources import files
from typing import cast

from redis.exceptions import RedisClusterException, RedisError

from extproc.pins.memory import MemoryPins
from extproc.versions import Kept, Pin
from headgate.core.clock import Clock
from headgate.core.redis_client import redis_client

PAUSE_S = 1.0
"""How long Redis is not asked once it has not answered."""
_PREFIX = "hg:pin:"
_RENEWED_BELOW = 0.9
"""Of the time that a pin is kept; less is left, it is kept anew."""
_PARALLEL = 64
"""Calls at once. A client has 100 connections and refuses the call that needs one more."""


class RedisPins:
    """Remembers pins in the Redis at `url`, each call of which has `deadline_s`."""

    def __init__(self, url: str, deadline_s: float, clock: Clock) -> None:
        source = files("extproc.pins").joinpath("keep.lua").read_text(encoding="utf-8")
        self._client = redis_client(url)
        self._script = cast(
            "Callable[..., Awaitable[list[bytes | int]]]", self._client.register_script(source)
        )
        self._deadline_s = deadline_s
        self._clock = clock
        self._known = MemoryPins(clock)
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._away = False
        self._asked_from_s = 0.0

    async def keep(self, pin: Pin) -> Kept:
        """The version that all replicas remember, or the pin's own from now on."""
        known = self._known.known(pin)
        if known is not None and self._known.left_s(pin) > pin.kept_s * _RENEWED_BELOW:
            return Kept(known, remembered=True)
        # What this replica knows goes before the hash: Redis may have lost it.
        wanted = pin if known is None else replace(pin, version=known)
        told = await self._ask(wanted)
        if told is not None:
            self._known.remember(pin, told.version)
            return Kept(told.version, told.remembered or known is not None)
        if known is None:
            return Kept(pin.version, remembered=None)  # the hash: all replicas have the same
        self._known.remember(pin, known)
        return Kept(known, remembered=True)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def _ask(self, pin: Pin) -> Kept | None:
        now_s = self._clock.now_s()
        if now_s < self._asked_from_s:
            return None
        if self._away:
            # This request finds out; those beside it do not wait with it.
            self._asked_from_s = now_s + PAUSE_S
        arguments = [pin.version, pin.kept_s * 1000, *pin.live]
        try:
            async with asyncio.timeout(self._deadline_s), self._slots:
                version, remembered = await self._script(keys=[_PREFIX + pin.key], args=arguments)
        except (RedisError, RedisClusterException, OSError, TimeoutError):
            self._away = True
            self._asked_from_s = self._clock.now_s() + PAUSE_S
            return None
        self._away = False
        self._asked_from_s = 0.0
        text = version.decode() if isinstance(version, bytes) else str(version)
        return Kept(text, bool(remembered))
