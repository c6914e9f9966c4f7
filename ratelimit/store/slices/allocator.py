"""Takes slices of limits from the store that replicas share, and gives them back."""

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Sequence
from functools import partial

from msgspec.structs import replace

from headgate.core.clock import Clock
from headgate.core.policy import OnOutage
from ratelimit.store.concurrency import groups
from ratelimit.store.outage.resilient import ResilientStore
from ratelimit.store.protocol import (
    MAX_COUNT,
    REQUESTS,
    Demand,
    Reservation,
    ReserveDecision,
    Spent,
    StoreError,
)
from ratelimit.store.slices.pool import MAX_AGE_S, Draw, Pool, Slice


class Allocator:
    """Slices for pools. It takes or gives back for one pool at most once at a time.

    `count` gets a word of the metric headgate_slices for what became of a slice.
    """

    def __init__(self, store: ResilientStore, clock: Clock, count: Callable[[str], None]) -> None:
        self._store = store
        self._clock = clock
        self._count = count
        self._moves: dict[Pool, asyncio.Task[StoreError | None]] = {}

    async def draw(self, reservation: Reservation, demand: Demand, pool: Pool) -> Draw | None:
        """Draws from a slice, a new one if need be. None where too little of the limit remains.

        Raises StoreError.
        """
        while True:
            now_s = self._clock.monotonic_s()
            draw = pool.draw(demand, now_s)
            if draw is not None:
                return draw
            if pool.lacks(demand.amount, now_s):
                return None
            error = await self._move(pool, partial(self._take, reservation, demand, pool))
            if error is not None:
                raise error

    async def give_back_due(self, pools: Sequence[Pool]) -> None:
        """Gives back the idle slices of these pools. Those that the store does not take stay."""
        now_s = self._clock.monotonic_s()
        due = [pool for pool in pools if not pool.busy and pool.due(now_s)]
        await _for_each(due, lambda pool: self._move(pool, partial(self._return_due, pool)))

    async def give_back_all(self, pools: Sequence[Pool]) -> None:
        """Gives back everything; what requests hold counts as used. Raises StoreError."""
        await asyncio.gather(*self._moves.values())
        await _for_each(pools, self._return_all)

    async def _move(
        self, pool: Pool, begin: Callable[[], Coroutine[None, None, StoreError | None]]
    ) -> StoreError | None:
        """Takes or gives back slices of a pool, or waits for the move that is running already.

        In a task of its own: a caller that gives up must not lose what has been taken.
        """

        async def move() -> StoreError | None:
            try:
                return await begin()
            finally:  # in the task itself, so that no caller meets a task that has ended
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
        """Takes a slice with room for the demand, or learns that too little of the limit remains.

        A slice is a whole multiple of the demand, which leaves no remainder. Towards the end of
        the limit slices become smaller, so that other replicas get some of it.
        """
        if self._clock.now_s() >= pool.expires_at_s:
            return StoreError("no slices are taken of a window that is over")
        try:
            if pool.overdrawn:
                for overdrawn in pool.overdrawn:
                    await self._return_unused(pool, overdrawn)
                return None  # the caller looks again
            size: int | None = _whole(demand.slice, demand.amount)
            while size is not None:
                if await self._take_slice(reservation, replace(demand, amount=size), pool):
                    return None
                size = await self._smaller(demand, pool)
        except StoreError as error:
            return error
        return None

    async def _take_slice(self, reservation: Reservation, sized: Demand, pool: Pool) -> bool:
        """Whether the store grants a slice as large as the sized demand. Raises StoreError."""
        taken = Slice(id=new_id(), amount=sized.amount, hold_s=reservation.hold_s + MAX_AGE_S)
        answer = await self._store.reserve(_taking(taken, pool, sized, reservation.now_s))
        now_s = self._clock.monotonic_s()
        pool.learn(answer.used[pool.key], now_s)
        if answer.decision is not ReserveDecision.ADMITTED:
            self._count("refused")
            return False
        taken.taken_s = taken.drawn_s = now_s
        pool.slices.append(taken)
        self._count("taken")
        return True

    async def _smaller(self, demand: Demand, pool: Pool) -> int | None:
        """The size to try after a refusal; None where too little remains. Raises StoreError.

        Where what remains is enough only together with the room here, the slices with room go back
        first.
        """
        remaining = demand.limit - (pool.reported or 0)
        if remaining >= demand.amount:
            return _whole(remaining // 2, demand.amount)
        if remaining + pool.room >= demand.amount:
            for roomy in [each for each in pool.slices if each.room > 0]:
                await self._return_unused(pool, roomy)
            return demand.amount
        pool.learn_refusal(remaining, self._clock.monotonic_s())
        return None

    async def _return_due(self, pool: Pool) -> StoreError | None:
        try:
            for due in pool.due(self._clock.monotonic_s()):
                await self._return_unused(pool, due)
        except StoreError as error:
            return error
        return None

    async def _return_unused(self, pool: Pool, returned: Slice) -> None:
        """Gives back the part of a slice that is neither held nor spent. Raises StoreError.

        The part that requests hold is reserved anew, before the whole slice goes back. That may be
        above the limit, as it has been admitted already.
        """
        now_s = self._clock.now_s()
        if not returned.held:
            pool.slices.remove(returned)
            await self._settle_slice(pool, returned.id, returned.spent)
            return
        if now_s >= pool.expires_at_s:
            return
        returned.closed = True
        try:
            await self._shrink(pool, returned, now_s)
        finally:
            returned.closed = False

    async def _shrink(self, pool: Pool, shrunk: Slice, now_s: float) -> None:
        old_id, spent = shrunk.id, shrunk.spent
        kept = Slice(id=new_id(), amount=shrunk.held, hold_s=shrunk.hold_s)
        demand = Demand(
            weights=REQUESTS,
            key=pool.key,
            amount=kept.amount,
            limit=MAX_COUNT,
            expires_at_s=pool.expires_at_s,
        )
        answer = await self._store.reserve(_taking(kept, pool, demand, now_s))
        if answer.decision is not ReserveDecision.ADMITTED:
            raise StoreError(f"a counter holds no more than {MAX_COUNT}")
        pool.learn(answer.used[pool.key], self._clock.monotonic_s())
        # The kept amount includes the part of the held one that has been spent meanwhile.
        shrunk.id, shrunk.amount, shrunk.spent = kept.id, kept.amount, shrunk.spent - spent
        shrunk.taken_s = shrunk.drawn_s = self._clock.monotonic_s()
        await self._settle_slice(pool, old_id, spent)

    async def _settle_slice(self, pool: Pool, slice_id: str, spent: int) -> None:
        used = Spent(requests=min(MAX_COUNT, spent))
        self._count("returned")
        settled = await self._store.settle(slice_id, pool.tenant, used, self._clock.now_s())
        if pool.key in settled.used:
            pool.learn(settled.used[pool.key], self._clock.monotonic_s())

    async def _return_all(self, pool: Pool) -> None:
        for each in pool.slices:
            await self._settle_slice(pool, each.id, each.spent + each.held)
        pool.slices.clear()


def new_id() -> str:
    """An id that nobody can guess: whoever knows it can settle the slice."""
    return uuid.uuid4().hex


def _whole(most: int, amount: int) -> int:
    """The largest multiple of an amount up to `most`, and the amount itself at least."""
    return amount * max(1, most // amount)


def _taking(taken: Slice, pool: Pool, demand: Demand, now_s: float) -> Reservation:
    """The reservation that is this slice. In an outage it fails."""
    return Reservation(
        id=taken.id,
        tenant=pool.tenant,
        demands=(replace(demand, weights=REQUESTS, on_outage=OnOutage.CLOSED),),
        leases=(),
        hold_s=taken.hold_s,
        now_s=now_s,
    )


async def _for_each(
    pools: Sequence[Pool], do: Callable[[Pool], Coroutine[None, None, object]]
) -> None:
    for group in groups(pools):
        await asyncio.gather(*map(do, group))
