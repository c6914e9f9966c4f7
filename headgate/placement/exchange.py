"""Exchanges the requests in flight at each pod among the replicas, through Redis.

The counts of a period are a hash, by pod: `hg:pods:PERIOD`. Without a Redis a replica knows its own
requests only.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from redis.exceptions import RedisClusterException, RedisError

from headgate.core.background import BackgroundTask
from headgate.core.clock import Clock
from headgate.core.damping import DampedLog
from headgate.core.redis_client import redis_client
from headgate.placement.loads import KEPT_PERIODS, PERIOD_S, Changes, PodLoads

log = logging.getLogger("headgate.placement")

EXCHANGE_EVERY_S = 0.25
"""As for virtual times of fairness. Between two exchanges replicas choose without each other."""
_KEY = "hg:pods:"
_KEPT_S = int(PERIOD_S * (KEPT_PERIODS + 1))

Share: TypeAlias = Callable[[Changes, tuple[int, ...]], Awaitable[Changes]]
"""Tells changes, and returns the sums of all replicas for these periods.

Raises RedisError, RedisClusterException, OSError or TimeoutError: some may have been told all the
same, and then count twice until their period ends.
"""


class Exchange(ABC):
    """An asynchronous context: inside it replicas tell each other `what` they know.

    That is every `EXCHANGE_EVERY_S`. While Redis is away each replica goes on by what it knew.
    """

    def __init__(self, what: str, clock: Clock) -> None:
        self._what = what
        self._say = DampedLog(log, clock)
        self._task = BackgroundTask(what, self.exchange, EXCHANGE_EVERY_S, log)

    async def exchange(self) -> None:
        """One exchange, if there is something to tell."""
        try:
            await self._tell()
        except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
            self._say(logging.WARNING, "exchange", f"{self._what} are not exchanged: {error!r}")

    @abstractmethod
    async def _tell(self) -> None:
        """Tells what is new here, and learns what others told. Raises as `Share` does."""

    async def __aenter__(self) -> Self:
        self._task.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._task.stop()


class LoadExchange(Exchange):
    """Exchanges the loads of pods. An idle replica asks Redis nothing."""

    def __init__(self, loads: PodLoads, share: Share, clock: Clock) -> None:
        super().__init__("loads of pods", clock)
        self._loads = loads
        self._share = share

    async def _tell(self) -> None:
        if self._loads.is_used:
            told = self._loads.untold()
            self._loads.learn(told, await self._share(told, self._loads.periods()))


class OwnLoads:
    """The sums of one replica alone: what it has told itself."""

    def __init__(self) -> None:
        self._sums: Counter[tuple[int, str]] = Counter()

    async def share(self, told: Changes, periods: tuple[int, ...]) -> Changes:
        """See `Share`."""
        self._sums.update(told)
        live = {each: n for each, n in self._sums.items() if n and each[0] in periods}
        self._sums = Counter(live)
        return self._sums


class RedisLoads:
    """The sums of all replicas, in the Redis at `url`. Each call takes at most `deadline_s`."""

    def __init__(self, url: str, deadline_s: float, password_file: Path | None = None) -> None:
        self._client = redis_client(url, password_file)
        self._deadline_s = deadline_s

    async def share(self, told: Changes, periods: tuple[int, ...]) -> Changes:
        """See `Share`. One round trip; in a Redis Cluster some in parallel."""
        pipeline: Any = self._client.pipeline(transaction=False)
        for (period, pod), count in told.items():
            pipeline.hincrby(f"{_KEY}{period}", pod, count)
        for period in {period for period, _ in told}:
            pipeline.expire(f"{_KEY}{period}", _KEPT_S)
        for period in periods:
            pipeline.hgetall(f"{_KEY}{period}")
        async with asyncio.timeout(self._deadline_s):
            answers = await pipeline.execute()
        sums = zip(periods, answers[-len(periods) :], strict=True)
        return {
            (period, pod.decode()): int(count)
            for period, counts in sums
            for pod, count in counts.items()
        }

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()
