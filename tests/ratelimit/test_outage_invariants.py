"""Whenever the store goes and comes: shares are kept to, and nothing is lost or counted twice."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from ratelimit.store.memory import MemoryStore
from ratelimit.store.outage.breaker import PROBE_EVERY_S
from ratelimit.store.protocol import ReserveDecision, SettleOutcome
from tests.fakes import FakeClock
from tests.ratelimit.builders import NOW_S, Shop, lease, peek, requests, spent, tokens
from tests.ratelimit.outages import FakeShared, Replica, new_replica, shared_out

LIMIT = 90
REPLICAS = 3
SHARE = LIMIT // REPLICAS

places = st.integers(0, REPLICAS - 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), places, st.integers(1, 40)),
        st.tuples(st.just("ask"), places, st.integers(1, 40)),
        st.tuples(st.just("settle"), places, st.integers(0, 40)),
        st.tuples(st.sampled_from(["away", "deaf", "back"]), places, st.just(0)),
        st.tuples(st.just("tend"), places, st.just(0)),
    ),
    max_size=60,
)


@dataclass
class Fleet:
    """Three replicas, and what each request that was let in is charged in the end."""

    shared: FakeShared
    clock: FakeClock
    replicas: list[Replica]
    shop: Shop = field(default_factory=Shop)
    open: list[str] = field(default_factory=list)
    charged: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    degraded: dict[str, int] = field(default_factory=dict)
    number: int = 0

    async def do(self, action: str, place: int, amount: int) -> None:
        match action:
            case "ask":
                await self.ask(place, amount)
            case "settle" if self.open:
                name = self.open.pop(amount % len(self.open))
                self.charged[name] = min(amount, self.charged[name])
                await self.settle(place, name)
            case "tend":
                self.clock.advance(PROBE_EVERY_S)
                await self.replicas[place].store.tend()
            case "away" | "deaf" | "back":
                self.shared.away = action == "away"
                self.shared.deaf = action == "deaf"

    async def ask(self, place: int, amount: int) -> None:
        self.number += 1
        name = f"r{self.number}"
        asked = self.shop.ask(
            shared_out(tokens(amount, LIMIT)),
            shared_out(lease(30, lease_s=300)),
            id=name,
            now_s=self.clock.now_s(),
        )
        answer = await self.replicas[place].store.reserve(asked)
        if answer.decision is ReserveDecision.ADMITTED:
            self.open.append(name)
            self.charged[name] = amount
            if answer.degraded:
                self.degraded[name] = place

    async def settle(self, place: int, name: str) -> None:
        settled = await self.replicas[place].store.settle(
            name, self.shop.tenant, spent(self.charged[name], 1), self.clock.now_s()
        )
        if settled.outcome is SettleOutcome.UNKNOWN:
            self.unknown.append(name)

    async def in_store(self) -> tuple[int, ...]:
        return await peek(self.shared, self.shop.tenant, ["tokens"], ["slots"], self.clock.now_s())


@settings(max_examples=400)
@given(steps)
async def test_shares_are_kept_to_and_the_store_learns_everything_once(
    taken: list[tuple[str, int, int]],
) -> None:
    shared, clock = FakeShared(), FakeClock(NOW_S)
    fleet = Fleet(
        shared, clock, [await new_replica(shared, clock, REPLICAS) for _ in range(REPLICAS)]
    )
    for step in taken:
        await fleet.do(*step)
    await fleet.do("back", 0, 0)
    for _ in range(2):
        clock.advance(5)
        for replica in fleet.replicas:
            await replica.store.tend()
    for name in fleet.unknown:  # as the access log does
        await fleet.settle(0, name)
    for _ in range(2):
        clock.advance(5)
        for replica in fleet.replicas:
            await replica.store.tend()

    for place in range(REPLICAS):
        admitted = [name for name, where in fleet.degraded.items() if where == place]
        assert sum(fleet.charged[name] for name in admitted) <= SHARE
    total = sum(fleet.charged.values())
    assert total <= 2 * LIMIT
    assert await fleet.in_store() == (total, len(fleet.open))


asks = st.tuples(st.just("ask"), st.sampled_from("abcdef"), st.integers(1, 60))
settles = st.tuples(st.just("settle"), st.sampled_from("abcdef"), st.integers(0, 80))


@settings(max_examples=200)
@given(st.lists(st.one_of(asks, settles), max_size=25))
async def test_a_share_of_everything_decides_as_a_store_does(
    taken: list[tuple[str, str, int]],
) -> None:
    replica, plain, shop = await new_replica(), MemoryStore(), Shop()
    await replica.lose_the_store()
    for action, name, amount in taken:
        if action == "ask":
            asked = (tokens(amount, 100), requests(4), lease(3))
            mine = await replica.store.reserve(shop.ask(*map(shared_out, asked), id=name))
            theirs = await plain.reserve(shop.ask(*asked, id=name))
            assert (mine.decision, mine.used, mine.refused) == (
                theirs.decision,
                theirs.used,
                theirs.refused,
            )
        else:
            mine_too = await replica.store.settle(name, shop.tenant, spent(amount, 1), NOW_S)
            theirs_too = await plain.settle(name, shop.tenant, spent(amount, 1), NOW_S)
            if theirs_too.outcome is SettleOutcome.UNKNOWN:  # the store may know it: kept for it
                assert mine_too.outcome in {SettleOutcome.DEFERRED, SettleOutcome.DUPLICATE}
                return
            assert mine_too.outcome is theirs_too.outcome
