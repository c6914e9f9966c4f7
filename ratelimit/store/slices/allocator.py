"""Takes slices of limits from the store that replicas share, and gives them back."""

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial

from headgate.core.clock import Clock
from headgate.core.policy import OnOutage
from ratelimit.store.outage.resilient import ResilientStore
from ratelimit.store.protocol import (
    MAX_COUNT,
    REQUESTS,
    Decision,
    Demand,
    Reservation,
    Spent,
    StoreError,
)
from ratelimit.store.slices.pool import MAX_AGE_S, REFUSED_FOR_S, Part, Pool, Slice

_AT_ONCE = 16


class Supply:
    """Slices for pools. At most one is taken or given back of a pool at a time.

    `count` is told what became of slices: the words of headgate_slices.
    """

    def __init__(self, store: ResilientStore, clock: Clock, count: Callable[[str], None]) -> None:
        self._store = store
        self._clock = clock
        self._count = count
        self._moves: dict[Pool, asyncio.Task[StoreError | None]] = {}

    async def draw(self, reservation: Reservation, demand: Demand, pool: Pool) -> Part | None:
        """Draws from a slice, a new one if need be. None where the limit has not enough left.

        Raises StoreError.
        """
        while True:
            now_s = self._clock.monotonic_s()
            found = pool.draw(demand.amount, now_s)
            if found is not None:
                return Part(demand, pool, found)
            if pool.lacks(demand.amount, now_s):
                return None
            error = await self._move(pool, partial(self._take, reservation, demand, pool))
            if error is not None:
                raise error

    async def give_back_due(self, pools: Sequence[Pool]) -> None:
        """Gives back what rests in these pools. What the store does not take stays here."""
        now_s = self._clock.monotonic_s()
        due = [pool for pool in pools if not pool.busy and pool.due(now_s)]
        await _each(due, lambda pool: self._move(pool, partial(self._return_due, pool)))

    async def give_back_all(self, pools: Sequence[Pool]) -> None:
        """Gives back everything; what requests hold counts as used. Raises StoreError."""
        await asyncio.gather(*self._moves.values())
        await _each(pools, self._return_all)

    async def _move(
        self, pool: Pool, begin: Callable[[], Coroutine[None, None, StoreError | None]]
    ) -> StoreError | None:
        """Takes or gives back slices of a pool; waits for it where somebody does so already.

        In a task of its own: a call that its caller gives up must not lose what it has taken.
        """

        async def move() -> StoreError | None:
            try:
                return await begin()
            finally:  # in the task itself: nobody may find a task that has ended
                del self._moves[pool]
                pool.busy = False

        task = self._moves.get(pool)
        if task is None:
            pool.busy = True
            task = self._moves[pool] = asyncio.create_task(move())
        return await asyncio.shield(task)

    async def _take(
        self, reservation: Reservation, demand: Demand, pool: Pool
    ) -> StoreError | None:
        """Takes a slice in which the demand has room, or learns that the limit has not enough.

        Whole multiples of the demand leave no crumbs. Towards the limit's end they become
        smaller, so that other replicas get some of it.
        """
        if self._clock.now_s() >= pool.expires_at_s:
            return StoreError("no slices are taken of a window that is over")
        amount = demand.amount
        ask = _whole(demand.slice, amount)
        try:
            if pool.overdrawn:
                for one in pool.overdrawn:
                    await self._return_unused(pool, one)
                return None  # to look again
            while True:
                taken = Slice(new_id(), ask, reservation.hold_s + MAX_AGE_S)
                asked = replace(demand, amount=ask)
                answer = await self._store.reserve(_taking(taken, pool, asked, reservation.now_s))
                now_s = self._clock.monotonic_s()
                pool.tell(answer.used[pool.key], now_s)
                if answer.decision is Decision.ADMITTED:
                    taken.taken_s = taken.drawn_s = now_s
                    pool.slices.append(taken)
                    self._count("taken")
                    return None
                self._count("refused")
                left = demand.limit - answer.used[pool.key]
                if left >= amount:
                    ask = _whole(left // 2, amount)
                elif left + pool.room >= amount:
                    ask = amount
                    for one in [one for one in pool.slices if one.room > 0]:
                        await self._return_unused(pool, one)
                else:
                    pool.left, pool.left_until_s = left, now_s + REFUSED_FOR_S
                    return None
        except StoreError as error:
            return error

    async def _return_due(self, pool: Pool) -> StoreError | None:
        try:
            for one in pool.due(self._clock.monotonic_s()):
                await self._return_unused(pool, one)
        except StoreError as error:
            return error
        return None

    async def _return_unused(self, pool: Pool, one: Slice) -> None:
        """Gives back what nobody holds or has spent of a slice. Raises StoreError.

        While requests hold some of it, that much is taken anew, before all of it goes back: above
        the limit if need be, as it has been admitted already.
        """
        now_s = self._clock.now_s()
        if not one.held:
            pool.slices.remove(one)
            await self._settle_slice(pool, one.id, one.spent)
            return
        if now_s >= pool.expires_at_s:
            return
        kept = Slice(new_id(), one.held, one.hold_s)
        demand = Demand(REQUESTS, pool.key, one.held, MAX_COUNT, pool.expires_at_s)
        one.closed = True
        try:
            answer = await self._store.reserve(_taking(kept, pool, demand, now_s))
            if answer.decision is not Decision.ADMITTED:
                raise StoreError(f"a counter holds no more than {MAX_COUNT}")
            pool.tell(answer.used[pool.key], self._clock.monotonic_s())
            gone, spent = one.id, one.spent
            one.id, one.amount, one.spent = kept.id, kept.amount, 0
            one.taken_s = one.drawn_s = self._clock.monotonic_s()
            await self._settle_slice(pool, gone, spent)
        finally:
            one.closed = False

    async def _settle_slice(self, pool: Pool, slice_id: str, spent: int) -> None:
        used = Spent(requests=min(MAX_COUNT, spent))
        self._count("returned")
        settled = await self._store.settle(slice_id, pool.tenant, used, self._clock.now_s())
        if pool.key in settled.used:
            pool.tell(settled.used[pool.key], self._clock.monotonic_s())

    async def _return_all(self, pool: Pool) -> None:
        for one in pool.slices:
            await self._settle_slice(pool, one.id, one.spent + one.held)
        pool.slices.clear()


def new_id() -> str:
    """An id that nobody can guess: who knows it can settle the slice."""
    return uuid.uuid4().hex


def _whole(most: int, amount: int) -> int:
    """The largest multiple of an amount up to `most`, and the amount itself at least."""
    return amount * max(1, most // amount)


def _taking(one: Slice, pool: Pool, demand: Demand, now_s: float) -> Reservation:
    """What the store is asked for to have this slice. Without the store there is none."""
    asked = replace(demand, weights=REQUESTS, on_outage=OnOutage.CLOSED)
    return Reservation(one.id, pool.tenant, (asked,), (), one.hold_s, now_s)


async def _each(pools: Sequence[Pool], do: Callable[[Pool], Coroutine[None, None, object]]) -> None:
    """Some at a time, so that requests get their turn."""
    for start in range(0, len(pools), _AT_ONCE):
        await asyncio.gather(*(do(pool) for pool in pools[start : start + _AT_ONCE]))
