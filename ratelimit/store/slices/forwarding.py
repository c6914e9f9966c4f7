"""How settlements reach the replica that holds the reservation."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from headgate.core.clock import Clock
from ratelimit.store.outage.resilient import ResilientStore
from ratelimit.store.protocol import StoreError
from ratelimit.store.slices.allocator import new_id
from ratelimit.store.slices.batches import MAX_WAITING, Outbox, Settlement, read

log = logging.getLogger("headgate.ratelimit")


def left_behind(reservation: str) -> str:
    """The id under which the store holds what a replica had not settled when it ended."""
    return f"{reservation}~"


class Mail:
    """Letters of one replica. They wait while the store is away."""

    def __init__(self, store: ResilientStore, replica: str, clock: Clock) -> None:
        self._store = store
        self._replica = replica
        self._clock = clock
        self._outbox = Outbox(new_id)
        self._read: list[str] = []

    def __len__(self) -> int:
        """How many settlements have not been posted."""
        return len(self._outbox)

    def send(self, holder: str, settlement: Settlement) -> None:
        """Sends it with the next letter. Raises StoreError when too many wait already."""
        if not self._outbox.add(holder, settlement):
            raise StoreError(f"{MAX_WAITING} settlements wait for other replicas already")

    async def exchange(self, expected: bool, settle: Callable[[Settlement], object]) -> None:
        """Posts what waits, and settles what other replicas have sent. Raises StoreError.

        Asks the store only if there is something to post, `expected`, or to say what was read:
        until that has been said, the same letters come again. What a replica held that has
        taken leave is settled in the store; the holds of one that has died are unknown there,
        and stand.
        """
        letters = self._outbox.letters()
        if not (letters or expected or self._read):
            return
        exchanged = await self._store.exchange(self._replica, letters, self._read)
        self._read = [letter.id for letter in exchanged.letters]
        for letter in exchanged.letters:
            try:
                for one in read(letter.text):
                    settle(one)
            except (ValueError, RecursionError) as error:
                log.error("lost a letter of another replica: %s", error)
        posted = [*self._outbox.posted(letters)]
        await self.settle_left_behind([one for to, one in posted if to in exchanged.gone])

    async def settle_left_behind(self, settlements: Sequence[Settlement]) -> None:
        """Settles in the store what was left there. Raises StoreError."""
        now_s = self._clock.now_s()
        await asyncio.gather(
            *(
                self._store.settle(left_behind(one.reservation), one.tenant, one.spent, now_s)
                for one in settlements
            )
        )
