"""Limits in slices: a replica takes some of a limit ahead of need and decides by itself.

It sits in front of the store that the replicas share. A slice is an ordinary reservation there.
So it is taken and given back once, however often that is sent, and in the very window that was
meant. The slices of a replica that dies stay charged. So the sum of what all replicas admit never
passes the limit.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from headgate.core.background import BackgroundTask
from headgate.core.clock import Clock
from headgate.core.metrics import Metrics
from headgate.core.policy import OnOutage
from ratelimit.fair.tags import VirtualTimes
from ratelimit.store.concurrency import Turns, groups
from ratelimit.store.hits import CountedHits, Hit
from ratelimit.store.outage.resilient import ResilientStore
from ratelimit.store.protocol import (
    MAX_COUNT,
    PeekQuery,
    Reservation,
    Reserved,
    ReserveDecision,
    Settled,
    SettleOutcome,
    Spent,
    StoreError,
)
from ratelimit.store.shared import Told
from ratelimit.store.slices.admission import Admission, is_sliced, query_of
from ratelimit.store.slices.allocator import Allocator
from ratelimit.store.slices.batches import ForwardedSettlement
from ratelimit.store.slices.forwarding import Forwarding, handed_over
from ratelimit.store.slices.holds import WITH_REST, Hold, Holds
from ratelimit.store.slices.pool import Pools

TEND_EVERY_S = 0.25
"""How long a forwarded settlement waits at most to be sent, and again to be read: a few round trips
a second, however many requests there are."""
_WITHDRAW_WITHIN_S = 5.0

log = logging.getLogger("headgate.ratelimit")


class SlicedStore:
    """See `Store`. An async context manager: inside it the background task runs.

    `replica` names this process among those that share `inner`. `Reserved.held_by` is that name,
    with a `+` after it where `inner` holds another part of the reservation. `virtual_times` learn
    the starts of what other replicas settle here.
    """

    def __init__(
        self,
        inner: ResilientStore,
        replica: str,
        clock: Clock,
        metrics: Metrics,
        virtual_times: VirtualTimes,
    ) -> None:
        self._inner = inner
        self._replica = replica
        self._clock = clock
        self._pools = Pools()
        self._holds = Holds(replica)
        self._allocator = Allocator(inner, clock, lambda word: metrics.slices.labels(word).inc())
        self._admission = Admission(inner, self._pools, self._holds, self._allocator, clock)
        self._virtual_times = virtual_times
        self._forwarding = Forwarding(inner, replica, clock)
        self._turns = Turns()
        self._background = BackgroundTask("slices", self.tend, TEND_EVERY_S, log)

    async def __aenter__(self) -> "SlicedStore":
        self._background.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._background.stop()
        await self.withdraw()

    async def reserve(self, reservation: Reservation) -> Reserved:
        """The counts include what other replicas have taken, but not what this one has.

        In an outage requests are admitted as long as slices have room. Without room the whole
        reservation goes to the store, which then does what `on_outage` says.
        """
        tenant, name, now_s = reservation.tenant, reservation.id, reservation.now_s
        async with self._turns.of((tenant, name)):
            match self._holds.decision(tenant, name, now_s):
                case ReserveDecision.REPLAYED:
                    return Reserved(decision=ReserveDecision.REPLAYED)
                case ReserveDecision.ADMITTED:
                    return await self._again(reservation)
            is_plain = self._holds.is_full or self._holds.is_delegated(tenant, name)
            if is_plain or not any(map(is_sliced, reservation.demands)):
                return await self._inner.reserve(reservation)
            return await self._admission.reserve(reservation)

    async def settle(self, reservation: str, tenant: str, spent: Spent, now_s: float) -> Settled:
        """For a caller that does not know which replica holds it."""
        return await self.settle_held("", reservation, tenant, spent, now_s)

    async def settle_held(
        self, held_by: str, reservation: str, tenant: str, spent: Spent, now_s: float
    ) -> Settled:
        """Settles at once what this replica holds, without asking the store.

        If another replica holds it, the settlement is forwarded there. Raises StoreError: then
        settle again.
        """
        holder = held_by.removesuffix(WITH_REST)
        elsewhere = holder not in ("", self._replica)
        async with self._turns.of((tenant, reservation)):
            if self._holds.decision(tenant, reservation, now_s) is ReserveDecision.REPLAYED:
                return Settled(SettleOutcome.DUPLICATE, {})
            hold = self._holds.of(tenant, reservation, now_s)
            may_have_rest = held_by in ("", f"{holder}{WITH_REST}")
            rest = Settled(SettleOutcome.UNKNOWN, {})
            if may_have_rest if hold is None else hold.has_rest:
                rest = await self._inner.settle(reservation, tenant, spent, now_s)
            if elsewhere:  # a repeated call was held here too: here it has used nothing
                self._forwarding.send(holder, ForwardedSettlement(tenant, reservation, spent))
                self._holds.settle(tenant, reservation, Spent(), now_s)
                return Settled(SettleOutcome.FORWARDED, rest.used, rest.start)
            here = self._holds.settle(tenant, reservation, spent, now_s)
        if here.outcome is not SettleOutcome.SETTLED:
            return rest
        is_deferred = rest.outcome is SettleOutcome.DEFERRED
        outcome = SettleOutcome.DEFERRED if is_deferred else SettleOutcome.SETTLED
        return Settled(outcome, {**rest.used, **here.used}, here.start or rest.start)

    async def count(self, tenant: str, hits: Sequence[Hit], now_s: float) -> CountedHits:
        return await self._inner.count(tenant, hits, now_s)

    async def peek(self, query: PeekQuery) -> Mapping[str, int]:
        """The counts include what other replicas have taken, but not what this one has."""
        used = {**await self._inner.peek(query)}
        for counter in query.counters:
            pool = self._pools.known(query.tenant, counter)
            if pool is not None:
                used[counter] = pool.used_of(used[counter])
        return used

    async def exchange_ids(self, ids: Sequence[str], place: str) -> Told:
        """See `SharedStore`. In an outage, StoreAwayError at once."""
        return await self._inner.exchange_ids(ids, place)

    async def ping(self) -> None:
        """Returns when the store itself can be used."""
        await self._inner.ping()

    async def close(self) -> None:
        """Gives back what it can, then ends the connections of the store behind it."""
        await self.withdraw()
        await self._inner.close()

    async def tend(self) -> None:
        """One round of the background task: forwards settlements, gives idle slices back."""
        self._holds.clean(self._clock.now_s())
        self._pools.clean(self._clock.monotonic_s())
        try:
            await self._exchange()
        except StoreError as error:
            log.debug("forwarded settlements wait: %s", error)
        if not self._inner.is_away:  # in an outage the slices serve on
            await self._allocator.give_back_due(self._pools.all())

    async def withdraw(self) -> None:
        """Gives all slices back. The store takes over what requests hold in them, so that it can
        be settled through any replica.
        """
        if not self._pools.all() and not self._forwarding:
            return
        try:
            async with asyncio.timeout(_WITHDRAW_WITHIN_S):
                await self._inner.withdraw(self._replica)
                await self._exchange()
                await self._hand_over_holds()
                await self._allocator.give_back_all(self._pools.all())
                # For what came meanwhile. From now on other replicas find this one gone.
                late: list[ForwardedSettlement] = []
                await self._forwarding.exchange(expects=True, settle=late.append)
                await self._forwarding.settle_handed_over(late)
                await self._forwarding.exchange(expects=False, settle=late.append)
        except (StoreError, TimeoutError) as error:
            log.warning("withdraw: could not give back all slices of limits: %r", error)
        if self._forwarding:
            log.error(
                "withdraw: settlements that were not forwarded to the replicas that hold them: %d",
                len(self._forwarding),
            )

    async def _exchange(self) -> None:
        now_s = self._clock.now_s()

        def settle(settlement: ForwardedSettlement) -> None:
            settled = self._holds.settle(
                settlement.tenant, settlement.reservation, settlement.spent, now_s
            )
            if settled.start is not None and settlement.spent.requests:
                self._virtual_times.started(settled.start)

        await self._forwarding.exchange(expects=len(self._holds) > 0, settle=settle)

    async def _hand_over_holds(self) -> None:
        """Lets the store hold what slices hold. The rest, if it refuses, counts as used."""
        now_s = self._clock.now_s()
        for group in groups(self._holds.all()):
            reservations = [
                _taken_over(tenant, reservation, hold, now_s)
                for (tenant, reservation), hold in group
            ]
            answers = await asyncio.gather(*map(self._inner.reserve, reservations))
            for (key, _), answer in zip(group, answers, strict=True):
                if answer.decision is ReserveDecision.ADMITTED:
                    self._holds.release(*key)

    async def _again(self, reservation: Reservation) -> Reserved:
        """The answer to a reservation that this replica holds already."""
        hold = self._holds.of(reservation.tenant, reservation.id, reservation.now_s)
        held_by = "" if hold is None else self._holds.held_by(hold)
        counters = [demand.key for demand in reservation.demands]
        used = await self.peek(query_of(reservation, counters))
        start = None if hold is None or hold.start is None else hold.start.tag
        return Reserved(decision=ReserveDecision.ADMITTED, used=used, held_by=held_by, start=start)


def _taken_over(tenant: str, reservation: str, hold: Hold, now_s: float) -> Reservation:
    """The reservation that the store takes over from a replica that withdraws.

    It is above the limit if need be, as it has been admitted already.
    """
    return Reservation(
        id=handed_over(reservation),
        tenant=tenant,
        demands=tuple(
            replace(draw.demand, limit=MAX_COUNT, on_outage=OnOutage.CLOSED) for draw in hold.draws
        ),
        leases=(),
        hold_s=hold.until_s - now_s,
        now_s=now_s,
    )
