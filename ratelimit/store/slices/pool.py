"""What one replica has taken of limits ahead of need, and what requests hold of it. Pure.

A slice is an amount of one counter that the shared store has reserved for this replica, under
an id that only this replica knows. Requests draw from it without asking the store.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from ratelimit.store.protocol import (
    MAX_COUNT,
    SETTLED_KEPT_S,
    Decision,
    Demand,
    Outcome,
    Settled,
    Spent,
)

IDLE_S = 1.0
"""A slice that nobody has drawn from for so long goes back, as far as nobody holds it."""

MAX_AGE_S = 600.0
"""A slice is drawn from for so long: the store must not forget it while a request holds it."""

REFUSED_FOR_S = 0.1
"""For so long the store is not asked again for what it had not left."""

MAX_HELD = 100_000
"""Reservations that a process holds in slices; the store holds what comes above that."""

_MAX_SETTLED = 262_144
_MAX_LEFT = 65_536
_POOL_KEPT_S = 1.0

_Key = tuple[str, str]
"""The tenant, then the name of a counter or the id of a reservation within it."""


@dataclass(slots=True, eq=False)
class Slice:
    """What was taken at one time: `amount`, of which some is spent and some is held by requests.

    `taken_s` and `drawn_s` (the last time that something was) are readings of the monotonic
    clock; the store keeps it for `hold_s`. While it is `closed`, nothing is drawn from it.
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
        """What is left to draw; below 0 where requests used more than they held."""
        return self.amount - self.spent - self.held


@dataclass(slots=True, eq=False)
class Pool:
    """This replica's slices of one counter, and what it knows of the rest.

    `told` is what the store last said is in use (None if it has not), these slices included, and
    `left` what it had left when it had not enough, which counts until `left_until_s`. It is
    `busy` while slices are taken or given back.
    """

    tenant: str
    key: str
    expires_at_s: int
    told_s: float
    told: int | None = None
    left: int = 0
    left_until_s: float = 0.0
    busy: bool = False
    slices: list[Slice] = field(default_factory=list)

    @property
    def room(self) -> int:
        """What is left in all slices together; below 0 where more was used than was taken."""
        return sum(one.room for one in self.slices)

    @property
    def overdrawn(self) -> list[Slice]:
        """Slices whose requests used more than they held: the store has yet to know."""
        return [one for one in self.slices if one.room < 0]

    @property
    def used(self) -> int:
        """What is in use of the counter, as far as this replica knows."""
        return self.used_of(self.told or 0)

    def used_of(self, told: int) -> int:
        """What is in use where the store says `told`, which has these slices as used."""
        return min(MAX_COUNT, max(0, told - self.room))

    def tell(self, used: int, now_s: float) -> None:
        """The store has said what is in use."""
        self.told, self.told_s = used, now_s

    def draw(self, amount: int, now_s: float) -> Slice | None:
        """Holds an amount in the oldest slice with room for it; None if there is none.

        What was used above one slice is missing in the others.
        """
        if self.room < amount:
            return None
        for one in self.slices:
            if not one.closed and one.room >= amount and now_s - one.taken_s < MAX_AGE_S:
                one.held += amount
                one.drawn_s = now_s
                return one
        return None

    def lacks(self, amount: int, now_s: float) -> bool:
        """Whether the store is known to have less than this left, with all that is left here."""
        return now_s < self.left_until_s and amount > self.left + self.room

    def due(self, now_s: float) -> list[Slice]:
        """The slices that have to go back now, or to shrink to what requests hold of them."""
        return [one for one in self.slices if self._is_due(one, now_s)]

    def _is_due(self, one: Slice, now_s: float) -> bool:
        rests = now_s - one.drawn_s >= IDLE_S
        if one.held:
            return one.room < 0 or (rests and one.room > 0)
        return rests or one.room <= 0 or one is not self.slices[-1]


@dataclass(frozen=True, slots=True)
class Part:
    """What one reservation holds for one of its demands: in which slice of which pool."""

    demand: Demand
    pool: Pool
    slice: Slice

    def undo(self) -> None:
        """As if it had never been drawn."""
        self.slice.held -= self.demand.amount

    def spend(self, amount: int) -> None:
        """Puts what was really used in the place of what is held."""
        self.slice.held -= self.demand.amount
        self.slice.spent += amount


@dataclass(frozen=True, slots=True)
class Hold:
    """A reservation that this replica holds; the store holds the `rest` of it, if there is one."""

    parts: tuple[Part, ...]
    until_s: float
    rest: bool


class Book:
    """All pools, and the reservations that hold something in them or have been settled here."""

    def __init__(self) -> None:
        self._pools: dict[_Key, Pool] = {}
        self._holds: OrderedDict[_Key, Hold] = OrderedDict()
        self._settled: OrderedDict[_Key, float] = OrderedDict()
        self._left: OrderedDict[_Key, None] = OrderedDict()

    @property
    def is_full(self) -> bool:
        return len(self._holds) >= MAX_HELD

    @property
    def held(self) -> int:
        """How many reservations are held."""
        return len(self._holds)

    def pools(self) -> Sequence[Pool]:
        return [*self._pools.values()]

    def pool(self, tenant: str, demand: Demand, now_s: float) -> Pool:
        """The pool of the demand's counter, which may be a new one."""
        key = (tenant, demand.key)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(tenant, demand.key, demand.expires_at_s, now_s)
        return pool

    def known_pool(self, tenant: str, counter: str) -> Pool | None:
        """The pool of a counter, if there is one."""
        return self._pools.get((tenant, counter))

    def decision(self, tenant: str, reservation: str, now_s: float) -> Decision | None:
        """What became of a reservation: ADMITTED and held, REPLAYED where settled, or None."""
        key = (tenant, reservation)
        if self._hold(key, now_s) is not None:
            return Decision.ADMITTED
        return Decision.REPLAYED if now_s < self._settled.get(key, 0) else None

    def hold_of(self, tenant: str, reservation: str, now_s: float) -> Hold | None:
        """The reservation, while it is held."""
        return self._hold((tenant, reservation), now_s)

    def add(self, tenant: str, reservation: str, hold: Hold) -> None:
        """What it holds has been drawn: it can be settled."""
        self._holds[tenant, reservation] = hold

    def settle(self, tenant: str, reservation: str, spent: Spent, now_s: float) -> Settled:
        """Replaces what is held with what was used. `used` is about the counters of slices."""
        key = (tenant, reservation)
        hold = self._hold(key, now_s)
        if hold is None:
            known = now_s < self._settled.get(key, 0)
            return Settled(Outcome.DUPLICATE if known else Outcome.UNKNOWN, {})
        for part in hold.parts:
            part.spend(part.demand.weights.amount(spent))
        del self._holds[key]
        self._settled[key] = now_s + SETTLED_KEPT_S
        self._settled.move_to_end(key)
        if len(self._settled) > _MAX_SETTLED:
            self._settled.popitem(last=False)
        return Settled(Outcome.SETTLED, {part.demand.key: part.pool.used for part in hold.parts})

    def leave_to_store(self, tenant: str, reservation: str) -> None:
        """The store holds this one as a whole: no slice is to hold it, too."""
        self._left[tenant, reservation] = None
        if len(self._left) > _MAX_LEFT:
            self._left.popitem(last=False)

    def is_left_to_store(self, tenant: str, reservation: str) -> bool:
        return (tenant, reservation) in self._left

    def let_go(self, tenant: str, reservation: str) -> None:
        """Holds it no longer: somebody else does."""
        for part in self._holds.pop((tenant, reservation)).parts:
            part.undo()

    def holds(self) -> Sequence[tuple[_Key, Hold]]:
        """Each reservation that is held, by tenant and id."""
        return [*self._holds.items()]

    def clean(self, now_s: float, monotonic_s: float) -> None:
        """Forgets what is over: settled ids, empty pools; amounts held for too long stand as used.

        The oldest reservations are looked at first, and none behind one that may still be
        settled.
        """
        while self._settled and next(iter(self._settled.values())) <= now_s:
            self._settled.popitem(last=False)
        while self._holds and self._hold(next(iter(self._holds)), now_s) is None:
            pass
        for key, pool in [*self._pools.items()]:
            rests_s = monotonic_s - max(pool.told_s, pool.left_until_s)
            if not pool.slices and not pool.busy and rests_s > _POOL_KEPT_S:
                del self._pools[key]

    def _hold(self, key: _Key, now_s: float) -> Hold | None:
        hold = self._holds.get(key)
        if hold is not None and now_s >= hold.until_s:
            for part in self._holds.pop(key).parts:
                part.spend(part.demand.amount)
            return None
        return hold
