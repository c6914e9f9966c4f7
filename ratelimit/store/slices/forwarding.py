"""Forwards settlements to the replicas that hold the reservations."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from headgate.core.clock import Clock
from ratelimit.store.concurrency import groups
from ratelimit.store.outage.resilient import ResilientStore
from ratelimit.store.protocol import StoreError
from ratelimit.store.shared import Batch
from ratelimit.store.slices.allocator import new_id
from ratelimit.store.slices.batches import (
    MAX_WAITING,
    ForwardedSettlement,
    ForwardingQueue,
    decode,
)

log = logging.getLogger("headgate.ratelimit")


def handed_over(reservation: str) -> str:
    """The id under which the store holds what a replica still held when it withdrew."""
    return f"{reservation}~"


SETTLES_AT_ONCE = 64
"""A batch has up to a thousand settlements. After so many of them the loop runs the hooks."""


class Forwarding:
    """The settlements that one replica sends and receives. In an outage they wait."""

    def __init__(self, store: ResilientStore, replica: str, clock: Clock) -> None:
        self._store = store
        self._replica = replica
        self._clock = clock
        self._queue = ForwardingQueue(new_id)
        self._read: list[str] = []

    def __len__(self) -> int:
        """How many settlements the store has not taken yet."""
        return len(self._queue)

    def send(self, holder: str, settlement: ForwardedSettlement) -> None:
        """Sends it with the next batch. Raises StoreError when too many wait already."""
        if not self._queue.add(holder, settlement):
            raise StoreError(f"{MAX_WAITING} settlements wait for other replicas already")

    async def exchange(
        self, expects: bool, settle: Callable[[ForwardedSettlement], object]
    ) -> None:
        """Sends what waits, and calls `settle` for what other replicas sent. Raises StoreError.

        It asks the store only if something waits, if this replica `expects` settlements, or to
        confirm batches that it has read. Until then they are delivered again.

        The reservations of a replica that has withdrawn are settled in the store. Those of one
        that has died are unknown there: their amounts stay charged.
        """
        batches = self._queue.batches()
        if not (batches or expects or self._read):
            return
        exchanged = await self._store.exchange(self._replica, batches, self._read)
        stored = [*self._queue.stored(batches)]
        self._read = []
        for batch in exchanged.batches:
            await _settle_all(batch, settle)
            self._read.append(batch.id)
        await self.settle_handed_over([each for to, each in stored if to in exchanged.gone])

    async def settle_handed_over(self, settlements: Sequence[ForwardedSettlement]) -> None:
        """Settles in the store what a replica handed over to it. Raises StoreError."""
        now_s = self._clock.now_s()
        for some in groups(settlements):
            await asyncio.gather(
                *(
                    self._store.settle(
                        handed_over(each.reservation), each.tenant, each.spent, now_s
                    )
                    for each in some
                )
            )


async def _settle_all(batch: Batch, settle: Callable[[ForwardedSettlement], object]) -> None:
    """Settles in slices. If it ends in the middle, the batch is delivered again as a whole."""
    try:
        settlements = decode(batch.text)
    except (ValueError, RecursionError) as error:
        log.error("cannot read the settlements that another replica forwarded: %s", error)
        return
    for begin in range(0, len(settlements), SETTLES_AT_ONCE):
        for each in settlements[begin : begin + SETTLES_AT_ONCE]:
            settle(each)
        await asyncio.sleep(0)
