"""Smooth limits while the store is away: shares of the bucket and of its rate."""

from dataclasses import dataclass, field
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ratelimit.store.outage.breaker import PROBE_EVERY_S
from ratelimit.store.protocol import Demand, Reserved, ReserveDecision, StoreError
from tests.fakes import FakeClock
from tests.ratelimit.builders import NOW_S, Shop, peek, smooth, spent
from tests.ratelimit.outages import FakeShared, Replica, in_shadow, new_replica, opened, shared_out

ADMITTED, REFUSED = ReserveDecision.ADMITTED, ReserveDecision.REFUSED


async def admitted(replica: Replica, shop: Shop, demand: Demand, count: int = 30) -> int:
    now_s = replica.clock.now_s()
    answers = [await replica.store.reserve(shop.ask(demand, now_s=now_s)) for _ in range(count)]
    return sum(answer.decision is ADMITTED for answer in answers)


async def level(replica: Replica, shop: Shop, per_s: int) -> int:
    """The level of the bucket in the shared store, in drops."""
    now_s = replica.clock.now_s()
    [used] = await peek(
        replica.shared, shop.tenant, ["smooth"], [], now_s, drains={"smooth": per_s}
    )
    return used


async def test_a_share_is_a_part_of_the_burst_and_of_the_rate() -> None:
    replica, shop = await new_replica(replicas=3), Shop()
    await replica.lose_the_store()
    asked = shared_out(smooth(1, 30, per_s=6))

    assert await admitted(replica, shop, asked) == 10
    replica.clock.advance(2)
    assert await admitted(replica, shop, asked) == 4


async def test_a_rate_below_the_number_of_replicas_leaves_no_share() -> None:
    replica, shop = await new_replica(replicas=3), Shop()
    await replica.lose_the_store()

    assert await admitted(replica, shop, shared_out(smooth(1, 30, per_s=2))) == 0
    replica.clock.advance(3600)
    assert await admitted(replica, shop, shared_out(smooth(1, 30, per_s=2))) == 0


async def test_the_answer_tells_what_is_left_of_the_share() -> None:
    replica, shop = await new_replica(replicas=2), Shop()
    await replica.lose_the_store()
    asked = shared_out(smooth(2, 10, per_s=2))

    assert await replica.store.reserve(shop.ask(asked)) == Reserved(
        decision=ReserveDecision.ADMITTED, used={"smooth": 7000}, degraded=True
    )


@pytest.mark.parametrize(("kind", "count"), [(opened, 20), (in_shadow, 20)])
async def test_what_is_open_refuses_nobody(kind: object, count: int) -> None:
    replica, shop = await new_replica(), Shop()
    await replica.lose_the_store()
    assert await admitted(replica, shop, kind(smooth(1, 3, 1)), count) == count  # type: ignore[operator]


async def test_what_is_closed_admits_nothing() -> None:
    replica, shop = await new_replica(), Shop()
    await replica.lose_the_store()
    with pytest.raises(StoreError):
        await replica.store.reserve(shop.ask(smooth(1, 3, 1)))


async def test_the_store_learns_what_has_not_drained_of_one_replicas_share() -> None:
    replica, shop = await new_replica(), Shop()
    await replica.lose_the_store()
    asked = replace(shared_out(smooth(1, 20, per_s=1)), expires_at_s=int(NOW_S) + 20)
    await admitted(replica, shop, asked, count=8)
    replica.clock.advance(5)
    await admitted(replica, shop, asked, count=4)
    replica.clock.advance(1)

    await replica.find_the_store()

    passed = round((replica.clock.now_s() - NOW_S - 6) * 1000)
    assert await level(replica, shop, 1) == 6000 - passed


async def test_what_has_drained_before_the_store_is_back_is_left_alone() -> None:
    replica, shop = await new_replica(), Shop()
    await replica.lose_the_store()
    asked = replace(shared_out(smooth(1, 20, per_s=1)), expires_at_s=int(NOW_S) + 20)
    await admitted(replica, shop, asked)
    replica.clock.advance(20)

    await replica.find_the_store()

    assert await level(replica, shop, 1) == 0
    assert replica.count("outage_reconciled_total", what="expired") == 20


async def test_tokens_of_a_bucket_are_told_as_tokens() -> None:
    replica, shop = await new_replica(), Shop()
    await replica.lose_the_store()
    await replica.store.reserve(shop.ask(shared_out(smooth(7, 20, per_s=1))))

    await replica.find_the_store()

    assert replica.count("outage_reconciled_total", what="tokens") == 7


BURST, RATE, REPLICAS = 30, 6, 3

places = st.integers(0, REPLICAS - 1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), places, st.integers(1, 10)),
        st.tuples(st.just("ask"), places, st.integers(1, 10)),
        st.tuples(st.just("settle"), places, st.integers(0, 10)),
        st.tuples(st.sampled_from(["away", "deaf", "back"]), places, st.just(0)),
        st.tuples(st.just("wait"), places, st.integers(1, 9_000)),
        st.tuples(st.just("tend"), places, st.just(0)),
    ),
    max_size=60,
)


@dataclass
class Fleet:
    """Three replicas, and what those requests took that were let in without the store."""

    shared: FakeShared
    clock: FakeClock
    replicas: list[Replica]
    shop: Shop = field(default_factory=Shop)
    open: list[tuple[str, int]] = field(default_factory=list)
    degraded: dict[str, tuple[int, int]] = field(default_factory=dict)
    """When each was let in, in ms, and what it took."""

    async def do(self, number: int, action: str, place: int, amount: int) -> None:
        store, name = self.replicas[place].store, f"r{number}"
        now_s = self.clock.now_s()
        match action:
            case "ask":
                expires_at_s = ceil(now_s + BURST / RATE)
                demand = shared_out(smooth(amount, BURST, RATE))
                demand = replace(demand, expires_at_s=expires_at_s)
                answer = await store.reserve(self.shop.ask(demand, id=name, now_s=now_s))
                if answer.decision is ADMITTED:
                    self.open.append((name, place))
                    if answer.degraded:
                        self.degraded[name] = (round(now_s * 1000), amount)
            case "settle" if self.open:
                name, place = self.open.pop(amount % len(self.open))
                if name in self.degraded:
                    at_ms, held = self.degraded[name]
                    amount = min(amount, held)
                    self.degraded[name] = (at_ms, amount)
                store = self.replicas[place].store
                await store.settle(name, self.shop.tenant, spent(amount, 1), now_s)
            case "tend":
                self.clock.advance(PROBE_EVERY_S)
                await store.tend()
            case "wait":
                self.clock.advance(amount / 1000)
            case "away" | "deaf" | "back":
                self.shared.away, self.shared.deaf = action == "away", action == "deaf"

    def true_level(self) -> int:
        """Of the bucket that only these were in."""
        level, at_ms = 0, 0
        for then_ms, amount in self.degraded.values():
            level, at_ms = max(0, level - RATE * (then_ms - at_ms)) + amount * 1000, then_ms
        return max(0, level - RATE * (round(self.clock.now_s() * 1000) - at_ms))

    def assert_no_span_has_more_than_burst_and_rate(self) -> None:
        taken = list(self.degraded.values())
        for first, (from_ms, _) in enumerate(taken):
            total = 0
            for at_ms, amount in taken[first:]:
                total += amount * 1000
                assert total <= BURST * 1000 + RATE * (at_ms - from_ms)


@settings(max_examples=300, deadline=None)
@given(steps)
async def test_shares_together_are_one_bucket_and_the_store_learns_of_no_less(
    taken: list[tuple[str, int, int]],
) -> None:
    shared, clock = FakeShared(), FakeClock(NOW_S)
    fleet = Fleet(
        shared, clock, [await new_replica(shared, clock, REPLICAS) for _ in range(REPLICAS)]
    )
    for number, step in enumerate(taken):
        await fleet.do(number, *step)
    fleet.assert_no_span_has_more_than_burst_and_rate()

    await fleet.do(len(taken), "back", 0, 0)
    for _ in range(2):
        clock.advance(0.3)
        for replica in fleet.replicas:
            await replica.store.tend()
    for replica in fleet.replicas:
        assert not replica.store._debt._admitted
        assert await level(replica, fleet.shop, RATE) >= fleet.true_level()
