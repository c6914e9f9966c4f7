"""Pins that replicas share in Redis, with a cache of this replica's own in front of it.

A conversation costs a round trip when a replica first meets it. To stay remembered it costs one
more for each tenth of the time that pins are kept. During an outage of Redis one request a second
waits for its deadline.

A size costs a round trip for each request, as another replica may have made it larger.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TypeAlias, cast

from redis.exceptions import RedisClusterException, RedisError

from extproc.pins.memory import MemoryPins
from extproc.types import Pin, SizePin
from extproc.versions import PinnedVersion
from headgate.core.clock import Clock
from headgate.core.redis_client import redis_client

PAUSE_S = 1.0
"""How long Redis is not called after a call that failed."""
_PREFIX = "hg:pin:"
_SIZE_PREFIX = "hg:size:"
_RENEWED_BELOW = 0.9
"""The part of a pin's time below which the pin is renewed in Redis."""
_PARALLEL = 64
"""Calls in parallel. A client has 100 connections, and a call that needs one more fails."""
_Script: TypeAlias = Callable[..., Awaitable[list[bytes | int]]]


class RedisPins:
    """Remembers pins in the Redis at `url`. Each call takes at most `deadline_s`."""

    def __init__(
        self, url: str, deadline_s: float, clock: Clock, password_file: Path | None = None
    ) -> None:
        self._client = redis_client(url, password_file)
        self._keep, self._raise = (
            cast("_Script", self._client.register_script(_source(name)))
            for name in ("keep.lua", "raise.lua")
        )
        self._deadline_s = deadline_s
        self._clock = clock
        self._known = MemoryPins(clock)
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._failed = False
        self._paused_until_s = 0.0

    async def keep(self, pin: Pin) -> PinnedVersion:
        """The version that all replicas remember. Without one, remembers the pin's own version."""
        known = self._known.known(pin)
        if known is not None and self._known.remaining_s(pin) > pin.kept_s * _RENEWED_BELOW:
            return PinnedVersion(known, remembered=True)
        # This replica's memory takes precedence over the hash: Redis may have lost the pin.
        wanted = pin if known is None else replace(pin, version=known)
        arguments = [wanted.version, wanted.kept_s * 1000, *wanted.live]
        shared = await self._ask(self._keep, _PREFIX + wanted.key, arguments)
        if shared is not None:
            self._known.remember(pin, shared.version)
            return PinnedVersion(shared.version, shared.remembered or known is not None)
        if known is None:
            return PinnedVersion(pin.version, remembered=None)  # all replicas have the same hash
        self._known.remember(pin, known)
        return PinnedVersion(known, remembered=True)

    async def largest(self, pin: SizePin) -> str:
        """The larger of the pin's size and those that all replicas remember."""
        known = replace(pin, model=await self._known.largest(pin))
        arguments = [known.model, pin.kept_s * 1000, *pin.order]
        shared = await self._ask(self._raise, _SIZE_PREFIX + pin.key, arguments)
        if shared is None:
            return known.model
        return await self._known.largest(replace(pin, model=shared.version))

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def _ask(
        self, script: _Script, key: str, arguments: Sequence[object]
    ) -> PinnedVersion | None:
        now_s = self._clock.now_s()
        if now_s < self._paused_until_s:
            return None
        if self._failed:
            # This request probes Redis; concurrent ones do not wait with it.
            self._paused_until_s = now_s + PAUSE_S
        try:
            async with asyncio.timeout(self._deadline_s), self._slots:
                version, remembered = await script(keys=[key], args=arguments)
        except (RedisError, RedisClusterException, OSError, TimeoutError):
            self._failed = True
            self._paused_until_s = self._clock.now_s() + PAUSE_S
            return None
        self._failed = False
        self._paused_until_s = 0.0
        text = version.decode() if isinstance(version, bytes) else str(version)
        return PinnedVersion(text, bool(remembered))


def _source(name: str) -> str:
    return files("extproc.pins").joinpath(name).read_text(encoding="utf-8")
