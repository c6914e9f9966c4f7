"""The store that replicas share: besides counters it holds their messages to each other."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ratelimit.store.protocol import Settled, Spent, Store


class SettleHeld(Protocol):
    """Like `Store.settle`, for what was reserved with this `Reserved.held_by`, on any replica."""

    async def __call__(
        self, held_by: str, reservation: str, tenant: str, spent: Spent, now_s: float, /
    ) -> Settled: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Settlements that are forwarded to the replica `to`. `id` is the batch's own."""

    to: str
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Exchanged:
    """The batches for a replica.

    `gone` names those of its own receivers that are not known (any more): perhaps nobody will ever
    read the batches for them.
    """

    batches: tuple[Batch, ...] = ()
    gone: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Told:
    """Ids that replicas have told each other, and the place after the last of them."""

    ids: tuple[str, ...]
    place: str


class SharedStore(Store, Protocol):
    """A store for several replicas, which count themselves in it and forward settlements."""

    async def announce(self, replica: str, life_s: float) -> int:
        """Marks a replica as alive for `life_s` from now; returns how many are."""
        ...

    async def withdraw(self, replica: str) -> None:
        """The replica ends: it no longer counts."""
        ...

    async def exchange(
        self, replica: str, batches: Sequence[Batch], read: Collection[str]
    ) -> Exchanged:
        """Stores batches of this replica and returns the batches for it, in one round trip.

        Batches with the ids in `read` are removed first: until then they are returned again. A
        batch that is stored twice is kept once.
        """
        ...

    async def exchange_times(self, times: Mapping[str, int]) -> Mapping[str, int]:
        """Stores these virtual times, by queue, and returns all that are stored."""
        ...

    async def exchange_ids(self, ids: Sequence[str], place: str) -> Told:
        """Tells all replicas these ids. Returns those that were told after `place`, in order.

        They are all ids of the last minutes for an empty `place`, and a thousand at most. An id may
        be told twice.
        """
        ...
