"""Pins that replicas share: in Redis, with those that this replica knows in front of it.

A conversation costs a round trip when a replica first meets it, and one for each tenth of the time
that pins are kept, to keep it. While Redis is away one request a second waits for its deadline.
"""

import asyncio
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import cast

from redis.exceptions import RedisError

from extproc.pins.memory import MemoryPins
from extproc.versions import Kept, Pin
from headgate.clock import Clock
from headgate.redis_client import redis_client

PAUSE_S = 1.0
"""How long Redis is not asked once it has not answered."""
_PREFIX = "hg:pin:"
_RENEWED_BELOW = 0.9
"""Of the time that a pin is kept; less is left, it is kept anew."""


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
        self._asked_from_s = 0.0

    async def keep(self, pin: Pin) -> Kept:
        """The version that all replicas remember, or the pin's own from now on."""
        known = self._known.known(pin)
        if known is not None and self._known.left_s(pin) > pin.kept_s * _RENEWED_BELOW:
            return Kept(known, remembered=True)
        told = await self._ask(pin)
        if told is None:
            # What this replica knows, or the hash, which gives all replicas the same.
            return Kept(known or pin.version, True if known else None)
        self._known.remember(pin, told.version)
        return told

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def _ask(self, pin: Pin) -> Kept | None:
        if self._clock.now_s() < self._asked_from_s:
            return None
        arguments = [pin.version, pin.kept_s * 1000, *pin.live]
        try:
            async with asyncio.timeout(self._deadline_s):
                version, remembered = await self._script(keys=[_PREFIX + pin.key], args=arguments)
        except (RedisError, OSError, TimeoutError):
            self._asked_from_s = self._clock.now_s() + PAUSE_S
            return None
        text = version.decode() if isinstance(version, bytes) else str(version)
        return Kept(text, bool(remembered))
