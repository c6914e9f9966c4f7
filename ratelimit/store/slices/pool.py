"""The slices that one replica has of each limit, and how requests draw from them. Pure.

A slice is an amount of one counter that the shared store has reserved for this replica, under
an id that only this replica knows. Requests draw from it without asking the store.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ratelimit.store.protocol import MAX_COUNT, Demand, TenantKey

IDLE_S = 1.0
"""After so long without a draw a slice goes back, except for what requests hold of it."""

MAX_AGE_S = 600.0
"""A slice is drawn from for so long: the store must not forget it while a request holds it."""

REFUSED_FOR_S = 0.1
"""After a refusal the store is not asked again for so long."""

_POOL_KEPT_S = 1.0


@dataclass(slots=True, eq=False, kw_only=True)
class Slice:
    """An `amount` that was reserved at one time: requests have spent some and hold some of it.

    `taken_s` and `drawn_s` (of the last draw) are readings of the monotonic clock. The store holds
    it for `hold_s`. Nothing is drawn from it while it is `closed`.
    """

    id: str
    amount: int
    hold_s: float
    taken_s: float = 0.0
    drawn_s: float = 0.0
    spent: int = 0
    held: int = 0
    closed: bool = False

    @property
    def room(self) -> int:
        """The amount that can still be drawn; below 0 where requests used more than they held."""
        return self.amount - self.spent - self.held


@dataclass(slots=True, eq=False, kw_only=True)
class Pool:
    """This replica's slices of one counter, and what it knows of the rest of the counter.

    `reported` is what the store last said is in use, these slices included; None if it has not.
    `remaining` is what the store had when it last refused a slice: it counts until
    `remaining_until_s`. The pool is `busy` while slices are taken or given back.
    """

    tenant: str
    key: str
    expires_at_s: int
    reported_s: float
    reported: int | None = None
    remaining: int = 0
    remaining_until_s: float = 0.0
    busy: bool = False
    slices: list[Slice] = field(default_factory=list)

    @property
    def room(self) -> int:
        """The room in all slices together; below 0 where more was used than taken."""
        return sum(each.room for each in self.slices)

    @property
    def overdrawn(self) -> list[Slice]:
        """Slices whose requests used more than they held: the store does not know yet."""
        return [each for each in self.slices if each.room < 0]

    @property
    def used(self) -> int:
        """The use of the counter, as far as this replica knows."""
        return self.used_of(self.reported or 0)

    def used_of(self, reported: int) -> int:
        """The use where the store reports `reported`, which includes these slices."""
        return min(MAX_COUNT, max(0, reported - self.room))

    def learn(self, reported: int, now_s: float) -> None:
        """The store has reported what is in use."""
        self.reported, self.reported_s = reported, now_s

    def learn_refusal(self, remaining: int, now_s: float) -> None:
        """The store has refused a slice, as no more than this remains of the limit."""
        self.remaining, self.remaining_until_s = remaining, now_s + REFUSED_FOR_S

    def draw(self, demand: Demand, now_s: float) -> "Draw | None":
        """Holds the demand's amount in the oldest slice with room for it; None if there is none.

        Use above one slice is missing in the others.
        """
        amount = demand.amount
        if self.room < amount:
            return None
        for each in self.slices:
            if not each.closed and each.room >= amount and now_s - each.taken_s < MAX_AGE_S:
                each.held += amount
                each.drawn_s = now_s
                return Draw(demand, self, each)
        return None

    def lacks(self, amount: int, now_s: float) -> bool:
        """Whether this amount is known to be more than remains, in the store and here."""
        return now_s < self.remaining_until_s and amount > self.remaining + self.room

    def due(self, now_s: float) -> list[Slice]:
        """The slices that must go back now, or shrink to what requests hold of them."""
        return [each for each in self.slices if self._is_due(each, now_s)]

    def _is_due(self, each: Slice, now_s: float) -> bool:
        is_idle = now_s - each.drawn_s >= IDLE_S
        if each.held:
            return each.room < 0 or (is_idle and each.room > 0)
        return is_idle or each.room <= 0 or each is not self.slices[-1]


@dataclass(frozen=True, slots=True)
class Draw:
    """The amount that a reservation holds for one of its demands, in a slice of a pool."""

    demand: Demand
    pool: Pool
    slice: Slice

    def undo(self) -> None:
        """As if it had never been drawn."""
        self.slice.held -= self.demand.amount

    def spend(self, amount: int) -> None:
        """Replaces the held amount with the amount that was really used."""
        self.slice.held -= self.demand.amount
        self.slice.spent += amount


def undo(draws: Iterable[Draw]) -> None:
    """As if nothing of it had ever been drawn."""
    for draw in draws:
        draw.undo()


class Pools:
    """The pools of one replica."""

    def __init__(self) -> None:
        self._pools: dict[TenantKey, Pool] = {}

    def all(self) -> Sequence[Pool]:
        return [*self._pools.values()]

    def of(self, tenant: str, demand: Demand, now_s: float) -> Pool:
        """The pool of the demand's counter, which may be a new one."""
        key = (tenant, demand.key)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(
                tenant=tenant, key=demand.key, expires_at_s=demand.expires_at_s, reported_s=now_s
            )
        return pool

    def known(self, tenant: str, counter: str) -> Pool | None:
        """The pool of a counter, if there is one."""
        return self._pools.get((tenant, counter))

    def clean(self, now_s: float) -> None:
        """Forgets empty pools after a while."""
        for key, pool in [*self._pools.items()]:
            idle_s = now_s - max(pool.reported_s, pool.remaining_until_s)
            if not pool.slices and not pool.busy and idle_s > _POOL_KEPT_S:
                del self._pools[key]
