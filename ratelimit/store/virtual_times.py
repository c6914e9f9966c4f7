"""Exchanges the virtual times of the queues among the replicas of a store."""

import logging
from collections.abc import Awaitable, Callable, Mapping

from headgate.core.background import BackgroundTask
from ratelimit.fair.tags import VirtualTimes
from ratelimit.store.protocol import StoreError

EXCHANGE_EVERY_S = 0.25
"""With a second between, a tenant with few requests would wait for seconds at another replica."""

Exchange = Callable[[Mapping[str, int]], Awaitable[Mapping[str, int]]]
"""`SharedStore.exchange_times`, which raises StoreError."""

log = logging.getLogger("headgate.ratelimit")


class VirtualTimeExchange:
    """An async context manager: inside it the background task runs.

    Without requests whose order is kept, it asks the store nothing.
    """

    def __init__(self, exchange_times: Exchange, times: VirtualTimes) -> None:
        self._exchange_times = exchange_times
        self._times = times
        self._stored: dict[str, int] = {}
        self._background = BackgroundTask("virtual times", self.exchange, EXCHANGE_EVERY_S, log)

    async def __aenter__(self) -> "VirtualTimeExchange":
        self._background.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._background.stop()

    async def exchange(self) -> None:
        """One round trip: tells what is later here, learns what is later elsewhere.

        Two replicas may store a queue's time at once, the earlier one last. The later one then
        tells its own again. In an outage each goes on by its own times.
        """
        known = self._times.known()
        if not known:
            return
        later = {queue: tag for queue, tag in known.items() if tag > self._stored.get(queue, -1)}
        try:
            self._stored = dict(await self._exchange_times(later))
        except StoreError as error:
            log.debug("the virtual times wait: %s", error)
        else:
            self._times.learn(self._stored)
