"""Exchanges the outages of versions among the replicas, through Redis.

A proxy sends its log to one replica and its requests to all of them. So one replica learns of an
outage, and all must know it. The outages are one hash: `hg:outages`, in Unix seconds by version.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headgate.core.clock import Clock
from headgate.core.redis_client import redis_client
from headgate.placement.exchange import Exchange
from headgate.placement.outages import Outages, Served, Told

_KEY = "hg:outages"
_KEPT_S = 600
"""An outage that nobody tells again for so long is forgotten, as each try tells it again."""


class RedisOutages:
    """The outages that all replicas know, in the Redis at `url`. A call takes `deadline_s`."""

    def __init__(self, url: str, deadline_s: float, password_file: Path | None = None) -> None:
        self._client = redis_client(url, password_file)
        self._deadline_s = deadline_s

    async def share(self, told: Told) -> Mapping[Served, float]:
        """Tells changes, and returns all outages. Raises as `headgate.placement.exchange.Share`."""
        pipeline: Any = self._client.pipeline(transaction=False)
        for served, since_s in told.items():
            field = "\0".join(served)
            if since_s is None:
                pipeline.hdel(_KEY, field)
            else:
                pipeline.hset(_KEY, field, f"{since_s:.3f}")
                pipeline.expire(_KEY, _KEPT_S)
        pipeline.hgetall(_KEY)
        async with asyncio.timeout(self._deadline_s):
            known = (await pipeline.execute())[-1]
        return {_served(field): float(since_s) for field, since_s in known.items()}

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()


class OutageExchange(Exchange):
    """Exchanges outages while requests of models with a spare version come in."""

    def __init__(self, outages: Outages, shared: RedisOutages, clock: Clock) -> None:
        super().__init__("outages of versions", clock)
        self._outages = outages
        self._shared = shared

    async def _tell(self) -> None:
        if self._outages.is_used:
            told = self._outages.untold()
            self._outages.learn(told, await self._shared.share(told))


def _served(field: bytes) -> Served:
    base, _, version = field.decode().partition("\0")
    return base, version
