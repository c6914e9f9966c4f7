"""In any order of the replicas' actions, a limit in slices admits no more than there is. The store
learns everything that was used, once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ratelimit.store.protocol import ReserveDecision, StoreError
from tests.ratelimit.builders import spent, tokens
from tests.ratelimit.fleets import Fleet, Shared, sliced
from tests.ratelimit.outages import A

LIMIT = 100
SLICE = 40
REPLICAS = 3

places = st.integers(0, REPLICAS - 1)
asks = st.tuples(st.sampled_from(["ask", "ask", "ask with rest"]), places, st.integers(1, 60))
settles = st.tuples(st.just("settle"), places, st.integers(0, 60))
calm = st.one_of(
    asks,
    asks,
    settles,
    st.tuples(st.sampled_from(["again", "settle again", "tend"]), places, st.integers(0, 9)),
    st.tuples(st.just("rest"), places, st.just(0)),
)
storms = st.tuples(st.sampled_from(["crash", "leave", "away", "deaf", "back"]), places, st.just(0))


Step = tuple[str, int, int]


@dataclass
class Asked:
    """A request that was let in: where, what it holds or is charged, and who said to hold it."""

    id: str
    place: int
    held_by: str
    amount: int
    rest: bool
    charged: int | None = None
    lost: bool = False


@dataclass
class World:
    """A fleet and what happened to it. `overuse`: requests may use more than they hold.

    `unheard`: answers of the store may have been lost since the last recovery.
    """

    fleet: Fleet
    overuse: bool = False
    unheard: bool = False
    asked: list[Asked] = field(default_factory=list)
    number: int = 0
    lost: int = 0

    async def do(self, action: str, place: int, amount: int) -> None:
        open_ones = [asked for asked in self.asked if asked.charged is None]
        before = self.lost
        match action:
            case "ask" | "ask with rest":
                await self.ask(place, amount, action != "ask")
            case "settle" if open_ones:
                asked = open_ones[amount % len(open_ones)]
                await self.settle(
                    place, asked, amount if self.overuse else min(amount, asked.amount)
                )
            case "again" if open_ones:
                await self.again(open_ones[amount % len(open_ones)])
            case "settle again" if len(self.asked) > len(open_ones):
                ended = [asked for asked in self.asked if asked.charged is not None]
                asked = ended[amount % len(ended)]
                await self.settle(place, asked, asked.charged or 0)
            case "tend":
                self.fleet.clock.advance(0.1)
                await self.fleet.replicas[place].tend()
            case "rest":
                await self.fleet.rest()
            case "crash":
                await self.recover()  # what it owes the store is another test's matter
                await self.end(place)
            case "leave":
                await self.recover()
                await self.fleet.replicas[place].store.withdraw()
                await self.end(place)
                assert self.lost == before
            case "away" | "deaf":
                self.fleet.shared.away = action == "away"
                self.fleet.shared.deaf = action == "deaf"
                self.unheard = self.unheard or action == "deaf"
            case "back":
                await self.recover()

    async def recover(self) -> None:
        await self.fleet.recover()
        self.unheard = False

    async def ask(self, place: int, amount: int, rest: bool) -> None:
        self.number += 1
        name = f"r{self.number}"
        demands = [sliced(tokens(amount, LIMIT), SLICE)]
        if rest:
            demands.append(tokens(amount, LIMIT, "plain"))
        try:
            answer = await self.fleet.ask(place, *demands, id=name)
        except StoreError:
            return
        if answer.decision is ReserveDecision.ADMITTED:
            self.asked.append(Asked(name, place, answer.held_by, amount, rest))

    async def again(self, asked: Asked) -> None:
        """A repeated call finds what the first has done, unless its replica is gone.

        Another lane may settle the request meanwhile: then the answer may be that it has ended.
        """
        if asked.held_by.rstrip("+") != self.fleet.replicas[asked.place].name:
            return
        demands = [sliced(tokens(asked.amount, LIMIT), SLICE)]
        try:
            answer = await self.fleet.ask(asked.place, *demands, id=asked.id)
        except StoreError:
            return
        if asked.charged is not None and answer.decision is ReserveDecision.REPLAYED:
            return
        assert answer.decision is ReserveDecision.ADMITTED
        assert answer.held_by == asked.held_by

    async def settle(self, place: int, asked: Asked, amount: int) -> None:
        charged = asked.charged = amount if asked.charged is None else asked.charged
        await self.fleet.settle(place, asked.id, asked.held_by, spent(charged, 1))

    async def end(self, place: int) -> None:
        """Ends a replica, and what it held with it; a new one takes its place."""
        gone = self.fleet.replicas[place]
        self.lost += gone.lost_if_it_died()
        for asked in self.asked:
            if gone.is_held(self.fleet.shop.tenant, asked.id, self.fleet.clock.now_s()):
                asked.lost = True
        self.fleet.shared.replicas.discard(gone.name)
        self.fleet.replicas[place] = await self.fleet.new()

    def let_in(self) -> int:
        """Everything that was admitted, and what replicas can still admit without the store.

        Each request counts at the amount that it holds or was charged.
        """
        admitted = sum(
            asked.amount if asked.lost or asked.charged is None else asked.charged
            for asked in self.asked
        )
        return admitted + sum(replica.room() for replica in self.fleet.replicas)

    async def end_all(self) -> tuple[int, int]:
        """Ends every request. Returns the right counts now: in slices, and the plain one."""
        await self.recover()
        for asked in self.asked:  # those that have ended, too, as the access log does
            charged = asked.amount // 2 if asked.charged is None else asked.charged
            await self.settle((asked.place + 1) % REPLICAS, asked, charged)
        await self.fleet.rest()
        return (
            sum(asked.charged or 0 for asked in self.asked if not asked.lost) + self.lost,
            sum(asked.charged or 0 for asked in self.asked if asked.rest),
        )


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(calm, calm, calm, storms), min_size=5, max_size=50))
@example(  # held amounts are counted twice while answers are lost
    [
        ("ask", 0, 17),
        ("ask", 0, 43),
        ("ask", 0, 48),
        ("ask", 1, 1),
        ("deaf", 0, 0),
        ("rest", 0, 0),
    ]
)
async def test_no_order_of_events_admits_more_than_the_limit_or_loses_a_token(
    steps: list[Step],
) -> None:
    """A slice that shrinks is reserved anew at what requests hold of it, then given back. If the
    answer is lost, the replica does not know of the new one and tries again later. So the store
    counts held amounts more than once, maybe above the limit, until it has recovered. That admits
    nothing: requests draw from the slices that replicas know.
    """
    world = World(await Fleet.of(REPLICAS))
    for step in steps:
        await world.do(*step)
        [counted] = await world.fleet.in_store("tokens")
        assert world.let_in() <= min(counted, LIMIT)
        assert counted <= LIMIT or world.unheard
    expected = await world.end_all()
    assert await world.fleet.in_store("tokens", "plain") == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(calm, min_size=5, max_size=50))
async def test_what_requests_use_above_what_they_held_is_counted_too(steps: list[Step]) -> None:
    world = World(await Fleet.of(REPLICAS), overuse=True)
    for step in steps:
        await world.do(*step)
    expected = await world.end_all()
    assert await world.fleet.in_store("tokens", "plain") == expected


class Slow(Shared):
    """Answers after some rounds of the loop; others get their turn before and after."""

    def __init__(self, rounds: Sequence[int]) -> None:
        super().__init__()
        self.rounds = cycle(rounds)

    async def _heard(self, call: Callable[[], Awaitable[A]], name: str = "") -> A:
        for _ in range(next(self.rounds)):
            await asyncio.sleep(0)
        answer = await super()._heard(call, name)
        for _ in range(next(self.rounds)):
            await asyncio.sleep(0)
        return answer


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=7),
    st.lists(st.lists(calm, min_size=3, max_size=30), min_size=2, max_size=4),
)
@example(  # what a slice held is spent while the slice shrinks
    [4, 0, 2, 0],
    [
        [
            ("ask", 1, 48),
            ("tend", 0, 0),
            ("settle", 0, 35),
            ("ask with rest", 2, 1),
            ("settle", 0, 43),
        ],
        [
            *[("settle", 0, 0)] * 2,
            ("ask", 0, 1),
            ("ask", 1, 1),
            ("settle", 0, 40),
            ("settle", 0, 0),
        ],
        [("settle", 0, 0), ("ask", 0, 32), ("rest", 0, 0)],
    ],
)
@example(  # a request is settled while its repeated call waits
    [0, 0, 1],
    [
        [("ask", 0, 1)],
        [*[("rest", 0, 0)] * 3, ("again", 0, 0), ("settle", 0, 0)],
        [("rest", 0, 0), ("again", 0, 0)],
    ],
)
async def test_no_interleaving_admits_more_than_the_limit_or_loses_a_token(
    rounds: list[int], lanes: list[list[Step]]
) -> None:
    """Several requests at a time at each replica, in the midst of its taking and giving back."""
    world = World(await Fleet.of(REPLICAS, Slow(rounds)))

    async def lane(steps: list[Step]) -> None:
        for step in steps:
            await world.do(*step)
            [counted] = await world.fleet.in_store("tokens")
            assert world.let_in() <= min(counted, LIMIT)

    await asyncio.gather(*map(lane, lanes))
    expected = await world.end_all()
    assert await world.fleet.in_store("tokens", "plain") == expected
