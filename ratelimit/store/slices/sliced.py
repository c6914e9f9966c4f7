"""Limits in slices: a replica takes some of a limit ahead of need and decides by itself.

It stands in front of the store that the replicas share. A slice is an ordinary reservation
there: taking it and giving it back happen once however often they are sent, they reach the very
window that was meant, and what a replica takes with it when it dies stands as used. So the sum
of what all replicas admit never passes the limit.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from headgate.core.clock import Clock
from headgate.core.metrics import Metrics
from ratelimit.store.outage.resilient import ResilientStore
from ratelimit.store.protocol import (
    Counted,
    Decision,
    Hit,
    Outcome,
    Peek,
    Reservation,
    Reserved,
    Settled,
    Spent,
    StoreError,
)
from ratelimit.store.slices.admission import (
    is_sliced,
    merged,
    peek_of,
    refusal,
    rest_of,
    taken_over,
)
from ratelimit.store.slices.allocator import Supply
from ratelimit.store.slices.batches import Settlement
from ratelimit.store.slices.forwarding import Mail, left_behind
from ratelimit.store.slices.pool import Book, Hold, Part

TEND_EVERY_S = 0.25
"""At most so many seconds wait a letter to be posted, and again to be read: a few round trips a
second, however many requests there are."""
_LEAVE_WITHIN_S = 5.0
_AT_ONCE = 16
_WITH_REST = "+"

log = logging.getLogger("headgate.ratelimit")


class SlicedStore:
    """See `Store`. An async context manager: inside it the background task runs.

    `replica` names this process among those that share `inner`. `Reserved.held_by` is that name,
    and a `+` after it where `inner` holds another part of the reservation.
    """

    def __init__(self, inner: ResilientStore, replica: str, clock: Clock, metrics: Metrics) -> None:
        self._inner = inner
        self._replica = replica
        self._clock = clock
        self._book = Book()
        self._supply = Supply(inner, clock, lambda what: metrics.slices.labels(what).inc())
        self._mail = Mail(inner, replica, clock)
        self._turns: dict[tuple[str, str], asyncio.Event] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "SlicedStore":
        self._task = asyncio.create_task(self._tend_for_ever())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.take_leave()

    async def reserve(self, reservation: Reservation) -> Reserved:
        """What is in use counts what other replicas have taken ahead, and not what this one has.

        Without the store, requests are let in as long as there is room in slices. What has
        none is asked of the store as a whole, which then does what `on_outage` says.
        """
        tenant, name, now_s = reservation.tenant, reservation.id, reservation.now_s
        async with self._turn(tenant, name):
            match self._book.decision(tenant, name, now_s):
                case Decision.REPLAYED:
                    return Reserved(decision=Decision.REPLAYED)
                case Decision.ADMITTED:
                    return await self._again(reservation)
            plain = self._book.is_full or self._book.is_left_to_store(tenant, name)
            if plain or not any(map(is_sliced, reservation.demands)):
                return await self._inner.reserve(reservation)
            return await self._reserve(reservation)

    async def settle(self, reservation: str, tenant: str, spent: Spent, now_s: float) -> Settled:
        """For a caller who does not know by whom it is held."""
        return await self.settle_held("", reservation, tenant, spent, now_s)

    async def settle_held(
        self, held_by: str, reservation: str, tenant: str, spent: Spent, now_s: float
    ) -> Settled:
        """Settles what this replica holds at once, without asking the store, and sends word to
        the one that holds it otherwise. Raises StoreError: then settle again.
        """
        holder = held_by.removesuffix(_WITH_REST)
        elsewhere = holder not in ("", self._replica)
        async with self._turn(tenant, reservation):
            if self._book.decision(tenant, reservation, now_s) is Decision.REPLAYED:
                return Settled(Outcome.DUPLICATE, {})
            hold = self._book.hold_of(tenant, reservation, now_s)
            rest = Settled(Outcome.UNKNOWN, {})
            if hold.rest if hold is not None else held_by in ("", f"{holder}{_WITH_REST}"):
                rest = await self._inner.settle(reservation, tenant, spent, now_s)
            if elsewhere:  # asked again, it is held there: here it has used nothing
                self._mail.send(holder, Settlement(tenant, reservation, spent))
                self._book.settle(tenant, reservation, Spent(), now_s)
                return Settled(Outcome.FORWARDED, rest.used)
            here = self._book.settle(tenant, reservation, spent, now_s)
        if here.outcome is not Outcome.SETTLED:
            return rest
        outcome = rest.outcome if rest.outcome is Outcome.DEFERRED else Outcome.SETTLED
        return Settled(outcome, {**rest.used, **here.used})

    async def count(self, tenant: str, hits: Sequence[Hit], now_s: float) -> Counted:
        return await self._inner.count(tenant, hits, now_s)

    async def peek(self, peek: Peek) -> Mapping[str, int]:
        """What other replicas have taken ahead counts as used, what this one has does not."""
        used = {**await self._inner.peek(peek)}
        for counter in peek.counters:
            pool = self._book.known_pool(peek.tenant, counter)
            if pool is not None:
                used[counter] = pool.used_of(used[counter])
        return used

    async def ping(self) -> None:
        """Returns when the store itself can be used."""
        await self._inner.ping()

    async def close(self) -> None:
        """Gives back what it can, ends the connections of the store behind it."""
        await self.take_leave()
        await self._inner.close()

    async def tend(self) -> None:
        """One round of the background task: letters, and slices that have to go back."""
        self._book.clean(self._clock.now_s(), self._clock.monotonic_s())
        try:
            await self._exchange()
        except StoreError as error:
            log.debug("letters wait: %s", error)
        if not self._inner.is_away:  # else what is here serves on
            await self._supply.give_back_due(self._book.pools())

    async def take_leave(self) -> None:
        """Gives all slices back. What requests hold in them, the store holds from now on, so that
        it can be settled through any replica.
        """
        if not self._book.pools() and not self._mail:
            return
        try:
            async with asyncio.timeout(_LEAVE_WITHIN_S):
                await self._inner.withdraw(self._replica)
                await self._exchange()
                await self._leave_holds()
                await self._supply.give_back_all(self._book.pools())
                # What came while it was leaving. Later ones find this replica gone.
                late: list[Settlement] = []
                await self._mail.exchange(expected=True, settle=late.append)
                await self._mail.settle_left_behind(late)
                await self._mail.exchange(expected=False, settle=late.append)
        except (StoreError, TimeoutError) as error:
            log.warning("could not give back all slices of limits: %r", error)
        if self._mail:
            log.error("%d settlements never reached the replicas that wait", len(self._mail))

    async def _reserve(self, reservation: Reservation) -> Reserved:
        try:
            parts, lacking = await self._draw_all(reservation)
        except StoreError:
            self._book.leave_to_store(reservation.tenant, reservation.id)
            return await self._inner.reserve(reservation)
        if lacking:
            return await self._refusal(reservation, lacking)
        rest = rest_of(reservation)
        answer = Reserved(decision=Decision.ADMITTED)
        is_held = False
        try:
            if rest.asked:
                answer = await self._inner.reserve(rest)
            is_held = answer.decision is Decision.ADMITTED
        finally:
            if not is_held:
                _undo(parts)
        if answer.decision is Decision.REPLAYED:
            return answer
        whole = merged(parts, answer)
        if not is_held:
            return whole
        hold = Hold(parts, reservation.now_s + reservation.hold_s, bool(rest.asked) and answer.held)
        self._book.add(reservation.tenant, reservation.id, hold)
        return replace(whole, held=True, held_by=self._held_by(hold))

    async def _draw_all(self, reservation: Reservation) -> tuple[tuple[Part, ...], frozenset[str]]:
        """A part for each demand in slices; or nothing, and the keys of those without room."""
        tenant, now_s = reservation.tenant, self._clock.monotonic_s()
        sliced = [one for one in reservation.demands if is_sliced(one)]
        pairs = [(one, self._book.pool(tenant, one, now_s)) for one in sliced]
        lacking = {one.key for one, pool in pairs if pool.lacks(one.amount, now_s)}
        parts: list[Part] = []
        try:
            for demand, pool in pairs if not lacking else []:
                part = await self._supply.draw(reservation, demand, pool)
                if part is None:
                    lacking.add(demand.key)
                    break
                parts.append(part)
        except BaseException:
            _undo(parts)
            raise
        if lacking:
            _undo(parts)
            parts = []
        return tuple(parts), frozenset(lacking)

    async def _exchange(self) -> None:
        now_s = self._clock.now_s()

        def settle(one: Settlement) -> None:
            self._book.settle(one.tenant, one.reservation, one.spent, now_s)

        await self._mail.exchange(expected=self._book.held > 0, settle=settle)

    async def _leave_holds(self) -> None:
        """Lets the store hold what slices hold. What it does not take counts as used."""
        now_s = self._clock.now_s()
        holds = self._book.holds()
        for start in range(0, len(holds), _AT_ONCE):
            some = holds[start : start + _AT_ONCE]
            left = [
                taken_over(tenant, left_behind(name), hold, now_s) for (tenant, name), hold in some
            ]
            answers = await asyncio.gather(*map(self._inner.reserve, left))
            for (key, _), answer in zip(some, answers, strict=True):
                if answer.decision is Decision.ADMITTED:
                    self._book.let_go(*key)

    async def _again(self, reservation: Reservation) -> Reserved:
        """The answer to a reservation that is held already."""
        tenant, name, now_s = reservation.tenant, reservation.id, reservation.now_s
        hold = self._book.hold_of(tenant, name, now_s)
        held_by = "" if hold is None else self._held_by(hold)
        used = await self.peek(peek_of(reservation, [demand.key for demand in reservation.demands]))
        return Reserved(decision=Decision.ADMITTED, used=used, held_by=held_by)

    async def _refusal(self, reservation: Reservation, lacking: frozenset[str]) -> Reserved:
        """Names all that have not enough left. Asks the store only for what it has never told."""
        tenant = reservation.tenant
        pools = {
            one.key: self._book.pool(tenant, one, self._clock.monotonic_s())
            for one in reservation.demands
            if is_sliced(one)
        }
        unknown = [
            one.key
            for one in reservation.demands
            if one.key not in pools or pools[one.key].told is None
        ]
        peeked: Mapping[str, int] = {}
        if unknown or reservation.leases:
            peeked = await self._inner.peek(peek_of(reservation, unknown))
        for key in pools.keys() & peeked.keys():
            pools[key].tell(peeked[key], self._clock.monotonic_s())
        used = {**peeked, **{key: pool.used for key, pool in pools.items()}}
        return refusal(reservation, used, lacking)

    def _held_by(self, hold: Hold) -> str:
        return self._replica + (_WITH_REST if hold.rest else "")

    @asynccontextmanager
    async def _turn(self, tenant: str, reservation: str) -> AsyncIterator[None]:
        """One call about a reservation at a time: the later ones find what the first has done."""
        key = (tenant, reservation)
        while (earlier := self._turns.get(key)) is not None:
            await earlier.wait()
        self._turns[key] = asyncio.Event()
        try:
            yield
        finally:
            self._turns.pop(key).set()

    async def _tend_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TEND_EVERY_S)
            try:
                await self.tend()
            except Exception:  # without it no slice would ever go back
                log.exception("the background task of slices failed")


def _undo(parts: Iterable[Part]) -> None:
    for part in parts:
        part.undo()
