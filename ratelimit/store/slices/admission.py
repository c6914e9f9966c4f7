"""Admits a reservation: part of it from slices, the rest of it by the shared store.

In this order: each demand of a sliced limit draws from a pool. If all of them could, the store
reserves the rest. Then both parts are held together. If anything lacks room, nothing is held.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec.structs import replace

from headgate.core.clock import Clock
from ratelimit.store.outage.resilient import ResilientStore
from ratelimit.store.protocol import (
    Demand,
    PeekQuery,
    Reservation,
    Reserved,
    ReserveDecision,
    StoreError,
)
from ratelimit.store.slices.allocator import Allocator
from ratelimit.store.slices.holds import Hold, Holds
from ratelimit.store.slices.pool import Draw, Pools, undo


class Admission:
    """Reserves for one replica."""

    def __init__(
        self, store: ResilientStore, pools: Pools, holds: Holds, allocator: Allocator, clock: Clock
    ) -> None:
        self._store = store
        self._pools = pools
        self._holds = holds
        self._allocator = allocator
        self._clock = clock

    async def reserve(self, reservation: Reservation) -> Reserved:
        """Grants the whole reservation or nothing. Raises StoreError.

        If no slice can be taken, the store is asked for the whole: it does what `on_outage` says.
        """
        try:
            draws, lacking = await self._draw_all(reservation)
        except StoreError:
            self._holds.delegate(reservation.tenant, reservation.id)
            return await self._store.reserve(reservation)
        if lacking:
            return await self._refusal(reservation, lacking)
        return await self._reserve_rest(reservation, draws)

    async def _draw_all(self, reservation: Reservation) -> tuple[tuple[Draw, ...], frozenset[str]]:
        """A draw for each sliced demand; or none, and the keys of those without room."""
        tenant, now_s = reservation.tenant, self._clock.monotonic_s()
        sliced = [demand for demand in reservation.demands if is_sliced(demand)]
        pairs = [(demand, self._pools.of(tenant, demand, now_s)) for demand in sliced]
        lacking = {demand.key for demand, pool in pairs if pool.lacks(demand.amount, now_s)}
        draws: list[Draw] = []
        try:
            for demand, pool in pairs if not lacking else []:
                draw = await self._allocator.draw(reservation, demand, pool)
                if draw is None:
                    lacking.add(demand.key)
                    break
                draws.append(draw)
        except BaseException:
            undo(draws)
            raise
        if lacking:
            undo(draws)
            draws = []
        return tuple(draws), frozenset(lacking)

    async def _reserve_rest(self, reservation: Reservation, draws: tuple[Draw, ...]) -> Reserved:
        rest = _rest_of(reservation)
        answer = Reserved(decision=ReserveDecision.ADMITTED)
        is_admitted = False
        try:
            if rest.asked:
                answer = await self._store.reserve(rest)
            is_admitted = answer.decision is ReserveDecision.ADMITTED
        finally:
            if not is_admitted:
                undo(draws)
        if answer.decision is ReserveDecision.REPLAYED:
            return answer
        whole = _merged(draws, answer)
        if not is_admitted:
            return whole
        hold = self._hold(reservation, draws, has_rest=bool(rest.asked) and answer.held)
        self._holds.add(reservation.tenant, reservation.id, hold)
        start = answer.start if hold.start is None else hold.start.tag
        return replace(whole, held=True, held_by=self._holds.held_by(hold), start=start)

    def _hold(self, reservation: Reservation, draws: tuple[Draw, ...], *, has_rest: bool) -> Hold:
        """The whole reservation here. Its work in a queue counts where the rest of it is."""
        until_s = reservation.now_s + reservation.hold_s
        fair = None if has_rest else reservation.fair
        start = None if fair is None else self._holds.take_start(reservation.tenant, fair)
        return Hold(draws, until_s, has_rest, fair, start)

    async def _refusal(self, reservation: Reservation, lacking: frozenset[str]) -> Reserved:
        """Names everything without room. Asks the store only for what it has never reported."""
        now_s = self._clock.monotonic_s()
        pools = {
            demand.key: self._pools.of(reservation.tenant, demand, now_s)
            for demand in reservation.demands
            if is_sliced(demand)
        }
        unknown = [
            demand.key
            for demand in reservation.demands
            if demand.key not in pools or pools[demand.key].reported is None
        ]
        peeked: Mapping[str, int] = {}
        if unknown or reservation.leases:
            peeked = await self._store.peek(query_of(reservation, unknown))
        for key in pools.keys() & peeked.keys():
            pools[key].learn(peeked[key], self._clock.monotonic_s())
        used = {**peeked, **{key: pool.used for key, pool in pools.items()}}
        return _refused(reservation, used, lacking)


def is_sliced(demand: Demand) -> bool:
    """Whether slices hold it: not for a shadow limit, and not for a bucket."""
    return demand.slice > 0 and demand.enforced and not demand.drain and demand.amount > 0


def query_of(reservation: Reservation, counters: Sequence[str]) -> PeekQuery:
    """Asks for these of its counters, and for all of its leases."""
    return PeekQuery(
        tenant=reservation.tenant,
        now_s=reservation.now_s,
        counters=counters,
        leases=[lease.key for lease in reservation.leases],
        drains={demand.key: demand.drain for demand in reservation.demands if demand.drain},
    )


def _rest_of(reservation: Reservation) -> Reservation:
    """The part that the store must hold."""
    demands = tuple(demand for demand in reservation.demands if not is_sliced(demand))
    return replace(reservation, demands=demands)


def _merged(draws: Iterable[Draw], rest: Reserved) -> Reserved:
    """The store's answer about the rest, as an answer about the whole reservation."""
    here = {draw.demand.key: draw.pool.used for draw in draws}
    return replace(rest, used={**here, **rest.used})


def _refused(
    reservation: Reservation, used: Mapping[str, int], lacking: Collection[str]
) -> Reserved:
    """Refused for the counters in `lacking`, and for all others without enough room."""
    refused: list[str] = []
    exceeded: list[str] = []
    for asked in reservation.asked:
        amount = asked.amount if isinstance(asked, Demand) else 1
        if asked.key in lacking or used[asked.key] + amount > asked.limit:
            (refused if asked.enforced else exceeded).append(asked.key)
    return Reserved(
        decision=ReserveDecision.REFUSED,
        used=used,
        refused=tuple(refused),
        exceeded=tuple(exceeded),
    )
