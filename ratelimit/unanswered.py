"""Requests that ended before Envoy had the answer to their check: what they hold goes back.

The log entry of such a request has only its id, and comes to any replica. The replica that reserved
knows more. So each tells the ids to the others, and each gives back its own reservations.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from headgate.core.background import BackgroundTask
from headgate.core.metrics import Metrics
from ratelimit.limiter import SettlementResult
from ratelimit.store.protocol import SettleOutcome, StoreError
from ratelimit.store.shared import Told

EVERY_S = 1.0
"""One round trip a second for each replica, and as long does a slot wait to be free again."""
MOST_WAITING = 10_000
_AT_ONCE = 16

Exchange = Callable[[Sequence[str], str], Awaitable[Told]]
"""`SharedStore.exchange_ids`, which raises StoreError."""
GiveBack = Callable[[str], Awaitable[SettlementResult]]
"""`Limiter.give_back`, which raises StoreError."""

log = logging.getLogger("headgate.ratelimit")


class Unanswered:
    """An async context manager: inside it the background task runs.

    `exchange` is that of a store that replicas share, None for a store of this process. While the
    store is away, up to `MOST_WAITING` ids wait. Those that come then
    stay charged.
    """

    def __init__(self, give_back: GiveBack, exchange: Exchange | None, metrics: Metrics) -> None:
        self._give_back = give_back
        self._exchange = exchange
        self._metrics = metrics
        self._waiting: list[str] = []
        self._told: deque[str] = deque()
        self._place = ""
        self._background = BackgroundTask("unanswered checks", self.tend, EVERY_S, log)

    async def __aenter__(self) -> "Unanswered":
        self._background.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._background.stop()
        await self.tend()

    def add(self, reservation: str) -> None:
        """A request has ended, and Envoy had no answer to its check."""
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(reservation)

    async def tend(self) -> None:
        """One round: tells the others, and gives back what has been told since the last round."""
        try:
            await self._exchange_ids()
            while self._told:
                for _ in range(min(_AT_ONCE, len(self._told))):
                    await self._end(self._told[0])
                    self._told.popleft()
                await asyncio.sleep(0)  # hooks come in between
        except StoreError as error:
            log.debug("unanswered checks wait: %s", error)

    async def _exchange_ids(self) -> None:
        """Fills `_told` with the ids that wait here, and those of the others."""
        if self._exchange is None:
            self._told += self._waiting
            self._waiting.clear()
            return
        ids = [*self._waiting]
        told = await self._exchange(ids, self._place)
        self._place = told.place
        self._told += told.ids
        del self._waiting[: len(ids)]

    async def _end(self, reservation: str) -> None:
        outcome = await self._give_back(reservation)
        if outcome is not SettleOutcome.UNKNOWN:
            self._metrics.settlements.labels("accesslog", outcome.value).inc()
