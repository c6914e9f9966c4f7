"""This replica's share of each limit, counted in memory during an outage."""

from collections.abc import Mapping
from typing import TypeVar

from msgspec.structs import replace

from headgate.core.policy import OnOutage
from ratelimit.store.memory import MemoryStore
from ratelimit.store.protocol import (
    Demand,
    Lease,
    Reservation,
    Reserved,
    ReserveDecision,
    Settled,
    Spent,
)

T = TypeVar("T", bound=Demand | Lease)

MAX_RESERVATIONS = 100_000
"""How many reservations a process counts by itself: some 100 MB. Above that it has no room."""


def on_outage(asked: Demand | Lease) -> OnOutage:
    """The policy of an outage: a shadow limit refuses nothing then either."""
    return asked.on_outage if asked.enforced else OnOutage.OPEN


def shared_part(reservation: Reservation) -> Reservation:
    """The reservation without the demands and leases that are not counted in an outage."""
    return replace(
        reservation,
        demands=tuple(
            demand for demand in reservation.demands if on_outage(demand) is OnOutage.SHARE
        ),
        leases=tuple(lease for lease in reservation.leases if on_outage(lease) is OnOutage.SHARE),
    )


class Shares:
    """A share is the limit divided by the live replicas, rounded down: 0 admits nothing.

    A counter lives as long as its window, also when the store comes and goes: several outages
    together never give more than one share.
    """

    def __init__(self) -> None:
        self._store = MemoryStore()

    def is_full(self) -> bool:
        """Whether there is no room for another reservation."""
        return self._store.remembered() >= MAX_RESERVATIONS

    async def reserve(self, reservation: Reservation, replicas: int) -> Reserved:
        """Holds everything that is shared or nothing, like a store. Limits that are open grant.

        The answer is about the whole limits: what remains of them is what remains here.
        """
        part = shared_part(reservation)
        answer = await self._store.reserve(
            replace(
                part,
                demands=tuple(_shared(demand, replicas) for demand in part.demands),
                leases=tuple(_shared(lease, replicas) for lease in part.leases),
            )
        )
        if answer.decision is ReserveDecision.REPLAYED:
            return replace(answer, degraded=True)
        return Reserved(
            decision=answer.decision,
            used=_used_of_whole(reservation, answer.used, replicas),
            refused=answer.refused,
            degraded=True,
            start=answer.start,
        )

    async def settle(self, reservation: str, tenant: str, spent: Spent, now_s: float) -> Settled:
        """Like a store's, but without what is in use."""
        settled = await self._store.settle(reservation, tenant, spent, now_s)
        return Settled(settled.outcome, {}, settled.start)


def _shared(whole: T, replicas: int) -> T:
    """The share of a counter or of slots. A bucket's share drains by its share, if at all."""
    share = replace(whole, limit=whole.limit // replicas)
    if isinstance(share, Demand) and share.drain:
        drain = share.drain // replicas
        share = replace(share, limit=share.limit if drain else 0, drain=drain)
    return share


def _used_of_whole(
    reservation: Reservation, used: Mapping[str, int], replicas: int
) -> dict[str, int]:
    """The use of each limit such that the rest of this share remains."""
    return {
        asked.key: asked.limit - _shared(asked, replicas).limit + used[asked.key]
        if asked.key in used
        else 0
        for asked in reservation.asked
    }
